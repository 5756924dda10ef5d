"""The one place where a ``_target_`` becomes an object: exact allow-list, no nesting, no partials.

Hydra's own ``instantiate`` runs any importable callable (its blocklist is no boundary:
hydra#3258) and changes its signature in 1.4; this works alike on 1.3 and 1.4.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_type_hints

from organon.errors import ConfigError, SecurityError, nearest


def check_target(config: Mapping[str, Any], *, allowed: Iterable[str], where: str) -> None:
    """Refuse a ``_target_`` that is not exactly one of ``allowed``, and targets hidden among its arguments.

    Raises:
        SecurityError: SEC-053.
    """
    target, known = str(config.get("_target_", "")), sorted(allowed)
    if target not in known:
        raise SecurityError(
            f"'{target}' is not in the allow-list.{nearest(target, known)} Allowed: {', '.join(known) or 'none'}",
            code="SEC-053",
            where=f"{where}._target_",
            fix=f"'allow_targets=[{target}]', if you trust it: the exact name",
        )
    _refuse_hidden_targets({k: v for k, v in config.items() if k != "_target_"}, where)


def instantiate(config: Mapping[str, Any], *, allowed: Iterable[str], where: str, factory: Any = None) -> Any:
    """Build the object that ``config['_target_']`` names, with the other keys as its arguments.

    ``factory``: what it names, where that has been loaded already; else it is imported.

    Raises:
        SecurityError: SEC-053, as ``check_target``.
        ConfigError: CFG-046, an argument the target does not take.
    """
    check_target(config, allowed=allowed, where=where)
    target = str(config["_target_"])
    arguments = {k: v for k, v in config.items() if k != "_target_"}
    made_by = _import(target, where) if factory is None else factory
    _check_arguments(made_by, arguments, where)
    return made_by(**arguments)


def _import(target: str, where: str) -> Any:
    module_name, _, attribute = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"cannot import '{target}': {error}", code="CFG-053", where=f"{where}._target_") from error


def _refuse_hidden_targets(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if str(key) in ("_target_", "_partial_", "_args_", "_recursive_", "_convert_"):
                raise SecurityError(f"`{key}` is not allowed here", code="SEC-053", where=where)
            _refuse_hidden_targets(item, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            _refuse_hidden_targets(item, f"{where}[{i}]")


def check_argument_names(known: Iterable[str], given: Iterable[str], where: str, of: str = "") -> None:
    """Refuse an argument (``of`` something) that is not among the ``known`` ones.

    Raises:
        ConfigError: CFG-046, naming the near and the allowed ones.
    """
    allowed = list(known)
    for name in given:
        if name not in allowed:
            raise ConfigError(
                f"unknown argument '{name}'{of and f' of {of}'}.{nearest(name, allowed)}",
                code="CFG-046",
                where=f"{where}.{name}",
                fix=f"use {', '.join(allowed)}" if allowed else "leave it out: there are no arguments",
            )


def _check_arguments(factory: Any, arguments: Mapping[str, Any], where: str) -> None:
    parameters = inspect.signature(factory).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    check_argument_names(parameters, arguments, where)
    hints = get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    for name, value in arguments.items():
        _check_type(value, hints.get(name), f"{where}.{name}")


def _check_type(value: Any, hint: Any, where: str) -> None:
    """Refuse a scalar of another type than the argument's annotation says (an int where a float is wanted is fine)."""
    kinds = [k for k in (get_args(hint) or (hint,)) if isinstance(k, type)]
    scalars = {int, float, str, bool, type(None)}
    if not kinds or not set(kinds) <= scalars:
        return
    accepted = (*kinds, int) if float in kinds else tuple(kinds)
    if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
        raise ConfigError(f"{value!r} is {type(value).__name__}, expected {names}", code="CFG-047", where=where)
