"""What the callbacks' values mean: which folders a training leaves, and what contradicts what. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from loguru import logger

from organon.config.instantiate import check_target
from organon.config.schema import AdapterConfig, CallbacksConfig, TrainerConfig
from organon.errors import ConfigError

EpochsToSave = Literal["all", "none"] | list[int]

_FORMS = 'all, none, or epochs counted from 0: "0,2,4", [0,2,4] or 2'
# A comma makes a sweep of an unquoted value, and a shell takes quotes away.
_QUOTED = "callbacks.epochs_to_save=[0,2,4], or 'callbacks.epochs_to_save=\"0,2,4\"' with both kinds of quotes"


def epochs_to_save(value: Any) -> EpochsToSave:
    """The meaning of ``callbacks.epochs_to_save``, sorted: ``"0, 2"``, ``[2, 0]`` and ``["0", "2"]`` are ``[0, 2]``.

    Raises:
        ConfigError: CFG-058, it is none of the forms.
    """
    if isinstance(value, str) and value.strip().lower() in ("all", "none"):
        return "all" if value.strip().lower() == "all" else "none"
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    epochs = {_epoch(part) for part in parts}
    if not epochs or None in epochs:
        raise ConfigError(
            f"{value!r} names no epochs; allowed: {_FORMS}",
            code="CFG-058",
            where="callbacks.epochs_to_save",
            fix=_QUOTED,
        )
    return sorted(epoch for epoch in epochs if epoch is not None)


def _epoch(part: Any) -> int | None:
    if isinstance(part, str) and part.strip().isdecimal():
        return int(part)
    return part if isinstance(part, int) and not isinstance(part, bool) and part >= 0 else None


def kept_epochs(callbacks: CallbacksConfig, epochs: int) -> list[int]:
    """The epochs, of ``epochs``, whose folders are kept.

    Raises:
        ConfigError: CFG-058, one is named that does not come.
    """
    if callbacks.save_last_epoch_only:
        return [epochs - 1]
    wanted = epochs_to_save(callbacks.epochs_to_save)
    if wanted == "none":
        return []
    if wanted == "all":
        return list(range(epochs))
    if late := [epoch for epoch in wanted if epoch >= epochs]:
        there = "the only epoch is 0" if epochs == 1 else f"there are epochs 0 to {epochs - 1}"
        raise ConfigError(
            f"epoch {late[0]} does not come: {there}",
            code="CFG-058",
            where="callbacks.epochs_to_save",
            fix=f"trainer.epochs={late[0] + 1} and no trainer.max_steps that ends before, or name other epochs",
        )
    return [int(epoch) for epoch in wanted]


def keeps_none(callbacks: CallbacksConfig) -> bool:
    """Whether a training leaves no weights at all."""
    if callbacks.save_last_epoch_only or callbacks.best_metric is not None:
        return False
    return epochs_to_save(callbacks.epochs_to_save) == "none"


def check_callbacks(
    callbacks: CallbacksConfig, adapter: AdapterConfig, trainer: TrainerConfig, allowed: Iterable[str]
) -> None:
    """Refuse saving rules that contradict each other or name epochs that do not come.

    ``allowed``: exact names of the callback classes that the user allows.

    Raises:
        ConfigError: CFG-058.
        SecurityError: SEC-053, a callback's ``_target_`` that is not allowed.
    """
    if callbacks.stash_adapter_weights and adapter.kind == "full":
        raise ConfigError(
            "adapter.kind=full trains the model itself: there is no adapter to put away",
            code="CFG-058",
            where="callbacks.stash_adapter_weights",
            fix="callbacks.stash_adapter_weights=false, or adapter=lora",
        )
    if callbacks.metrics is not None and ":" not in callbacks.metrics:
        raise ConfigError(
            f"'{callbacks.metrics}' names no function",
            code="CFG-053",
            where="callbacks.metrics",
            fix="callbacks.metrics=my_metrics.py:function, or pkg.mod:function",
        )
    for number, extra in enumerate(callbacks.extra):
        check_extra(extra, number, allowed)
    kept_epochs(callbacks, trainer.epochs)


def check_extra(extra: Any, number: int, allowed: Iterable[str]) -> None:
    """Refuse an entry of ``callbacks.extra`` that is no allowed ``_target_`` with plain arguments."""
    where = f"callbacks.extra[{number}]"
    if not isinstance(extra, Mapping) or "_target_" not in extra:
        raise ConfigError(
            f"{extra!r} is not a callback",
            code="CFG-058",
            where=where,
            fix="callbacks.extra=[{_target_: my_package.MyCallback, argument: 1}]",
        )
    check_target(extra, allowed=allowed, where=where)


def normalise_callbacks(callbacks: CallbacksConfig, adapter: AdapterConfig, trainer: TrainerConfig) -> None:
    """Bring rules that mean the same into one form, so that they get one key."""
    wanted = epochs_to_save(callbacks.epochs_to_save)
    if callbacks.save_last_epoch_only and wanted != "all":
        logger.warning(
            "callbacks.save_last_epoch_only=true overrides callbacks.epochs_to_save={}: only the last epoch is kept",
            callbacks.epochs_to_save,
        )
        wanted = "all"
    if wanted == list(range(trainer.epochs)) and trainer.max_steps is None:
        wanted = "all"
    callbacks.epochs_to_save = wanted
    if adapter.kind == "full":
        callbacks.save_adapter_weights_only = True  # it decides between an adapter and a merged model
    elif callbacks.save_adapter_weights_only:
        callbacks.stash_adapter_weights = False  # there is no model beside the adapter
    elif not callbacks.stash_adapter_weights:
        logger.warning(
            "transformers puts an adapter that lies in a merged model's folder on the model once more; "
            "callbacks.stash_adapter_weights=true moves it to adapter_weights/"
        )
    default = CallbacksConfig()
    if callbacks.best_metric is None:
        callbacks.best_mode = default.best_mode
    if callbacks.early_stopping_patience is None:
        callbacks.early_stopping_metric = default.early_stopping_metric
        callbacks.early_stopping_mode = default.early_stopping_mode
        callbacks.early_stopping_min_delta = default.early_stopping_min_delta


def check_checkpoint_dir(pattern: str | None) -> None:
    """Refuse a ``checkpoint_dir`` with other fields than ``{name}``. Raises ConfigError CFG-054."""
    if pattern is not None and (not pattern.strip() or set("{}") & set(pattern.replace("{name}", ""))):
        raise ConfigError(
            f"'{pattern}': only {{name}} is filled in, with the run's name",
            code="CFG-054",
            where="checkpoint_dir",
            fix="checkpoint_dir='outputs/ck-out-{name}'",
        )
