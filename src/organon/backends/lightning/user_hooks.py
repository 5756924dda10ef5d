"""The user's own metrics and callbacks, as the config names them (``callbacks.metrics``, ``callbacks.extra``).

A metrics function may look at everything and must change nothing: the training that it watches gives the
same bytes as one without it. What it raises is logged and does not end the training.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import Callback
from loguru import logger

from organon.backends.lightning.datamodule import ChatDataModule, MicroBatch
from organon.backends.lightning.metrics import COLUMNS
from organon.config.callbacks import check_extra
from organon.config.instantiate import instantiate
from organon.config.spec import TrainSpec
from organon.config.user_code import load, reference_of
from organon.errors import ConfigError
from organon.redact import redact

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

METRICS = "callbacks.metrics"
LONGEST = 300  # characters of an error in the status


@dataclass(frozen=True)
class Moment:
    """What a metrics function is given after each validation, also where there are no validation rows.

    ``step``: optimizer steps done. ``epoch``: how much of the data has been seen, 1.5 in the middle of the
    second epoch. ``metrics``: the step's values so far, ``train/loss`` and ``val/loss`` among them. ``model``:
    in evaluation mode, without gradients; it must not be changed. ``validation()``: the validation rows as
    padded batches, (B, T) with -100 where a label does not count; to be moved to ``model.device``.
    """

    step: int
    epoch: float
    metrics: Mapping[str, float]
    model: Any
    tokenizer: PreTrainedTokenizerBase
    validation: Callable[[], Iterator[MicroBatch]]


@dataclass
class UserMetrics:
    """Calls the function; ``failures``: how often it raised so far, of which the first is logged in full."""

    function: Callable[[Moment], Mapping[str, Any]]
    model: Any
    data: ChatDataModule
    tokenizer: PreTrainedTokenizerBase
    bf16: bool = False  # matrix products in bfloat16, as in training
    failures: int = 0
    failed: bool = False  # the last time
    first_failure: str | None = None  # what was raised at first, in one line

    def __call__(self, row: Mapping[str, Any]) -> dict[str, float]:
        """The function's values after the step of ``row``; none if it raises."""
        values = {name: float(value) for name, value in row.items() if isinstance(value, (int, float))}
        moment = Moment(
            step=int(row["step"]),
            epoch=float(row["epoch"]),
            metrics=MappingProxyType(values),
            model=self.model,
            tokenizer=self.tokenizer,
            validation=self.data.padded_validation,
        )
        self.failed = False
        try:
            with undisturbed(self.model), torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.bf16):
                return _checked(self.function(moment), taken=row)
        except Exception as error:  # noqa: BLE001 - whatever the user's code raises
            self.failures += 1
            self.failed = True
            short = redact(f"{type(error).__name__}: {error}")
            if self.failures == 1:
                self.first_failure = " ".join(short.split())[:LONGEST]
                logger.opt(exception=True).warning("{} failed at step {}; the training goes on", METRICS, row["step"])
            else:
                logger.warning("{} failed again at step {}: {}", METRICS, row["step"], short)
            return {}


def user_metrics(
    spec: TrainSpec, model: Any, data: ChatDataModule, tokenizer: PreTrainedTokenizerBase, *, bf16: bool
) -> UserMetrics | None:
    """The spec's metrics function; None if it names none.

    Raises:
        ConfigError: CFG-053, it cannot be loaded; CFG-028, its file has changed since the run was started.
    """
    reference = spec.callbacks.metrics
    if reference is None:
        return None
    digest = spec.code_digests.get(METRICS, "").partition(":")[0]
    function = load(reference, METRICS, digest=digest)
    if not callable(function):
        raise ConfigError(
            f"{reference} is a {type(function).__name__}, not a function",
            code="CFG-053",
            where=METRICS,
            fix="def my_metrics(moment): return {'val/mine': 1.0}",
        )
    return UserMetrics(function, model, data, tokenizer, bf16)


def user_callbacks(spec: TrainSpec) -> list[Callback]:
    """The spec's own Lightning callbacks, of the classes that the user has allowed by their exact names.

    Raises:
        SecurityError: SEC-053, a class that is not allowed.
        ConfigError: CFG-053 or CFG-028 as ``user_metrics``; CFG-046, an argument that its class does not take.
    """
    made = []
    for number, config in enumerate(spec.callbacks.extra):
        where = f"callbacks.extra[{number}]"
        check_extra(config, number, spec.allow_targets)
        reference = reference_of(str(config["_target_"]))
        kind = load(reference, where, digest=spec.code_digests.get(where, "").partition(":")[0])
        callback = instantiate(config, allowed=spec.allow_targets, where=where, factory=kind)
        if not isinstance(callback, Callback):
            raise ConfigError(
                f"{config['_target_']} is no subclass of lightning.pytorch.Callback", code="CFG-053", where=where
            )
        made.append(callback)
    return made


@contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """Evaluation mode, no gradients and transformers' own attention, which needs no packing; afterwards all is as
    it was, random numbers included."""
    python, numbers, mode = random.getstate(), np.random.get_state(), model.training
    devices = [model.device.index] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad(), _stock_attention(model):
        try:
            model.eval()
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numbers)
            model.train(mode)
            model.zero_grad(set_to_none=True)


@contextmanager
def _stock_attention(model: Any) -> Iterator[None]:
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    ours = inner.config._attn_implementation
    try:
        inner.set_attn_implementation("sdpa")
    except ValueError:  # the architecture has none
        inner.set_attn_implementation("eager")
    try:
        yield
    finally:
        inner.set_attn_implementation(ours)


def _checked(values: Any, taken: Mapping[str, Any]) -> dict[str, float]:
    """What the function returned, as floats under names of its own."""
    if not isinstance(values, Mapping):
        raise TypeError(f"it returned a {type(values).__name__}, not a dict of numbers by name")
    odd = [name for name in values if not isinstance(name, str) or not name or name in taken or name in COLUMNS]
    if odd:
        raise ValueError(f"{odd[0]!r} cannot be the name of a metric of yours: it is no text, or taken")
    return {name: float(value) for name, value in values.items()}
