"""States of the user's callbacks, as checkpoints hold them: JSON, with the tensors beside it. Never a pickle."""

from __future__ import annotations

from typing import Any

import torch

from organon.errors import ConfigError

TENSORS = "callbacks/"  # what their tensors' names in a checkpoint begin with
_MARK = "organon:tensor"  # the key of what stands in the JSON for a tensor

Tensors = dict[str, torch.Tensor]


def packed(states: dict[str, Any]) -> tuple[dict[str, Any], Tensors]:
    """The states as JSON takes them, and copies of their tensors by the names in a checkpoint.

    Raises:
        ConfigError: CFG-053, something in a state would not come back as it was; names callback and place.
    """
    tensors: Tensors = {}
    return {name: _packed(state, name, tensors) for name, state in states.items()}, tensors


def unpacked(states: dict[str, Any], tensors: Tensors) -> dict[str, Any]:
    """Undo ``packed``. Raises KeyError if a tensor is missing."""
    return {name: _unpacked(state, tensors) for name, state in states.items()}


def _packed(value: Any, place: str, tensors: Tensors) -> Any:
    if isinstance(value, torch.Tensor):
        name = f"{TENSORS}{len(tensors)}:{place}"  # a place alone may be another's too, where keys hold a slash
        tensors[name] = value.detach().cpu().clone()
        return {_MARK: name}
    if isinstance(value, dict) and _MARK not in value and all(type(key) is str for key in value):
        return {key: _packed(item, f"{place}/{key}", tensors) for key, item in value.items()}
    if type(value) is list:
        return [_packed(item, f"{place}/{number}", tensors) for number, item in enumerate(value)]
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise ConfigError(
        f"the state of callback {place.partition('/')[0]} cannot be kept in a checkpoint: "
        f"{place} is a {type(value).__name__}" + (" with keys that are no text" if isinstance(value, dict) else ""),
        code="CFG-053",
        where="callbacks.extra",
        fix="its state_dict() may hold tensors, numbers, texts, None, and lists and dicts (keys: texts) of these",
    )


def _unpacked(value: Any, tensors: Tensors) -> Any:
    if isinstance(value, dict):
        return tensors[value[_MARK]] if _MARK in value else {k: _unpacked(v, tensors) for k, v in value.items()}
    return [_unpacked(item, tensors) for item in value] if isinstance(value, list) else value
