"""Early stopping and the best checkpoint as pure decisions."""

from __future__ import annotations

import math
from typing import Any

import pytest

from organon.backends.lightning.module import CompletionModule
from organon.backends.lightning.preference import PreferenceModule
from organon.backends.lightning.stopping import MEASURED, Goal, Patience, best_goal, check_goals, patience
from organon.config.schema import CallbacksConfig
from organon.errors import ConfigError


def run(limit: int, values: list[float], **goal: Any) -> tuple[int, str | None]:
    """The number of validations until the end, and the reason."""
    judge, state = Patience(Goal("val/loss", **goal), limit), None
    for number, value in enumerate(values, start=1):
        state = judge.judge(state, value, step=10 * number)
        if judge.reason(state) is not None:
            return number, judge.reason(state)
    return len(values), None


def test_patience_counts_validations_without_a_gain() -> None:
    number, reason = run(2, [3.0, 2.0, 2.5, 2.0, 1.0])
    assert number == 4
    assert reason == "no better val/loss in 2 validations; the best one is 2 at step 20"
    assert run(3, [3.0, 2.0, 2.5, 2.0, 1.0]) == (5, None)
    assert run(1, [1.0, 1.0])[0] == 2


def test_a_gain_starts_the_count_anew() -> None:
    assert run(2, [3.0, 3.0, 2.0, 3.0, 1.0, 2.0, 2.0])[0] == 7


def test_up_and_down_and_by_how_much() -> None:
    assert run(1, [0.1, 0.5, 0.4], mode="max")[0] == 3
    assert run(1, [1.0, 0.95, 0.9], min_delta=0.1)[0] == 2
    assert run(1, [1.0, 0.85, 0.7], min_delta=0.1) == (3, None)
    assert Goal("a", min_delta=0.5).is_gain(0.5, 1.0) is False  # exactly so much is not more


def test_no_number_is_no_gain() -> None:
    nan = math.nan
    assert run(2, [1.0, nan, nan])[0] == 3
    number, reason = run(2, [nan, nan, 1.0])
    assert (number, reason) == (2, "no better val/loss in 2 validations; the best one was never a number")
    assert run(2, [nan, 1.0, nan, 0.5])[1] is None
    assert not Goal("a").is_gain(nan, None)
    assert not Goal("a").is_gain(nan, 1.0)
    assert Goal("a").is_gain(5.0, None)


def test_off_by_default() -> None:
    assert best_goal(CallbacksConfig()) is None
    assert patience(CallbacksConfig()) is None


@pytest.mark.parametrize(
    ("config", "validation", "said"),
    [
        ({"best_metric": "val/loss"}, False, "val/loss needs validation rows"),
        ({"early_stopping_patience": 1}, False, "val/loss needs validation rows"),
        ({"best_metric": "val/lss"}, True, "Did you mean 'val/loss'"),
        ({"best_metric": "mine"}, True, "There are train/loss, val/loss, learning_rate, grad_norm"),
        ({"best_metric": "val/reward"}, True, "not measured"),
    ],
)
def test_goals_that_are_never_measured(config: dict[str, Any], validation: bool, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        check_goals(CallbacksConfig(**config), ("loss",), has_validation=validation)
    assert (
        caught.value.where == f"callbacks.{'early_stopping' if 'early_stopping_patience' in config else 'best'}_metric"
    )


def test_the_caller_knows_what_the_modules_measure() -> None:
    assert {"supervised": CompletionModule.names, "dpo": PreferenceModule.names} == MEASURED


def test_goals_that_may_be() -> None:
    check_goals(CallbacksConfig(best_metric="train/loss", best_mode="min"), ("loss",), has_validation=False)
    check_goals(CallbacksConfig(best_metric="val/reward"), ("loss", "reward"), has_validation=True)
    check_goals(CallbacksConfig(best_metric="mine", metrics="a.py:f"), ("loss",), has_validation=False)
