"""Which validation was the best one, and when there have been too many without a better one. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from organon.config.schema import CallbacksConfig
from organon.errors import ConfigError, nearest

# What each method's module measures, in training and validation.
MEASURED = {"supervised": ("loss",), "dpo": ("loss", "reward_accuracy", "reward_margin")}


@dataclass(frozen=True)
class Goal:
    """A metric to bring down (``min``) or up (``max``), by more than ``min_delta`` at a time."""

    metric: str
    mode: str = "min"
    min_delta: float = 0.0

    def is_gain(self, value: float, best: float | None) -> bool:
        """Whether ``value`` is better than ``best``, None being worse than any number; NaN is no gain."""
        if math.isnan(value) or best is None:
            return not math.isnan(value)
        return (best - value if self.mode == "min" else value - best) > self.min_delta


@dataclass(frozen=True)
class Patience:
    """Ends a training after ``limit`` validations one behind another without a gain."""

    goal: Goal
    limit: int

    def judge(self, state: dict[str, Any] | None, value: float, step: int) -> dict[str, Any]:
        """The state after a validation: the best value so far, its step, and the validations since then."""
        if state is None or self.goal.is_gain(value, state["value"]):
            # A first value that is no number is not one to be measured by.
            return {"value": None if math.isnan(value) else value, "step": step, "without_gain": int(math.isnan(value))}
        return {**state, "without_gain": state["without_gain"] + 1}

    def reason(self, state: dict[str, Any]) -> str | None:
        """Why the training ends, if it does."""
        if state["without_gain"] < self.limit:
            return None
        best = "was never a number" if state["value"] is None else f"is {state['value']:g} at step {state['step']}"
        return f"no better {self.goal.metric} in {state['without_gain']} validations; the best one {best}"


def best_goal(config: CallbacksConfig) -> Goal | None:
    """What ``best/`` goes by; None if there is none."""
    return None if config.best_metric is None else Goal(config.best_metric, config.best_mode)


def patience(config: CallbacksConfig) -> Patience | None:
    """Early stopping; None if it is off."""
    if config.early_stopping_patience is None:
        return None
    goal = Goal(config.early_stopping_metric, config.early_stopping_mode, config.early_stopping_min_delta)
    return Patience(goal, config.early_stopping_patience)


def check_goals(config: CallbacksConfig, names: Iterable[str], *, has_validation: bool) -> None:
    """Refuse to go by a metric that will never be measured; ``names``: what the module measures.

    What the user's own function will return is not known before it is called.

    Raises:
        ConfigError: CFG-058.
    """
    trained, validated = ([f"{part}/{name}" for name in names] for part in ("train", "val"))
    known = [*trained, *(validated if has_validation else ()), "learning_rate", "grad_norm"]
    for key, metric in goals(config):
        if metric in validated and not has_validation:
            raise no_validation(metric, key)
        if metric not in known and config.metrics is None:
            raise ConfigError(
                f"'{metric}' is not measured.{nearest(metric, known)} There are {', '.join(known)}",
                code="CFG-058",
                where=f"callbacks.{key}",
                fix="name one of these, or a metric of your own with callbacks.metrics=file.py:function",
            )


def no_validation(metric: str, key: str) -> ConfigError:
    """The error for going by a validation metric without validation rows."""
    return ConfigError(
        f"{metric} needs validation rows, and there are none",
        code="CFG-058",
        where=f"callbacks.{key}",
        fix="dataset.validation_fraction=0.1, dataset.validation_source=..., or another metric",
    )


def goals(config: CallbacksConfig) -> Iterator[tuple[str, str]]:
    """The metrics that something goes by, with the keys that name them."""
    if config.best_metric is not None:
        yield "best_metric", config.best_metric
    if config.early_stopping_patience is not None:
        yield "early_stopping_metric", config.early_stopping_metric
