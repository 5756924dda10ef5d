"""Which module trains a spec: ours for its method, or the user's own subclass of it.

A recipe is named by the config (``method.recipe=file.py:Class``), found and hashed by the caller, and run
here, in the worker, only if its source is still what was hashed. It overrides what it wants of
``CompletionModule`` or ``PreferenceModule``: ``micro_loss`` and ``weight`` say what is minimised, ``names``
what is measured, ``add_constraints`` is called once before training.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from loguru import logger

from organon.backends.lightning.module import CompletionModule
from organon.backends.lightning.preference import PreferenceModule
from organon.config.spec import TrainSpec
from organon.config.user_code import load
from organon.errors import ConfigError, nearest

WHERE = "method.recipe"


def module_class(spec: TrainSpec) -> type[CompletionModule]:
    """The class of the spec's module. No model is needed, so a recipe that is wrong is refused at once.

    Raises:
        ConfigError: CFG-053, the recipe cannot be loaded or is no subclass of the method's module;
            CFG-028, its source has changed since the run was started.
    """
    ours: type[CompletionModule] = PreferenceModule if spec.method.type == "dpo" else CompletionModule
    if spec.method.recipe is None:
        return ours
    digest = spec.code_digests.get(WHERE, "").partition(":")[0]
    found = load(spec.method.recipe, WHERE, digest=digest)
    if not _fits(found, ours):
        raise _unfit(spec.method.recipe, found, ours)
    logger.info("the module is {} (sha256 {})", spec.method.recipe, digest[:12])
    recipe: type[CompletionModule] = found
    return recipe


def new_module(
    kind: type[CompletionModule], spec: TrainSpec, model: torch.nn.Module, **arguments: Any
) -> CompletionModule:
    """The module of class ``kind`` for ``model``; ``arguments`` are those of ``CompletionModule``."""
    method = spec.method
    if method.type == "dpo":
        arguments |= {"beta": method.beta, "label_smoothing": method.label_smoothing}
    return kind(model, spec.optim, **arguments)


def constrain(module: CompletionModule) -> None:
    """Let the module constrain its model, once, before training; the log says so.

    Raises:
        ConfigError: CFG-053, the recipe made further parameters trainable, which no optimizer would move.
    """
    kind, before = type(module), set(module.trainable())
    if kind.add_constraints is CompletionModule.add_constraints:
        logger.info("constraints: none")
        return
    module.add_constraints(module.model)
    after = set(module.trainable())
    if new := sorted(after - before):
        raise ConfigError(
            f"{kind.__name__}.add_constraints makes {len(new)} further parameters trainable: {', '.join(new[:3])}",
            code="CFG-053",
            where=WHERE,
            fix="take parameters out of the training there, never in; adapter.modules_to_save trains further modules",
        )
    logger.info("constraints: {}.add_constraints; {} parameters frozen", kind.__name__, len(before - after))


def _fits(found: object, ours: type[CompletionModule]) -> bool:
    """A subclass of ours; but a module for pairs of answers cannot train on single ones."""
    pairs = ours is PreferenceModule
    return inspect.isclass(found) and issubclass(found, ours) and issubclass(found, PreferenceModule) == pairs


def _unfit(reference: str, found: object, ours: type[CompletionModule]) -> ConfigError:
    place, _, name = reference.rpartition(":")
    around = vars(module) if (module := inspect.getmodule(found)) else {}
    known = [other for other, value in around.items() if value is not ours and _fits(value, ours)]
    kind = "class" if inspect.isclass(found) else type(found).__name__
    return ConfigError(
        f"'{name}' is a {kind}, and no recipe on {ours.__module__}.{ours.__name__}.{nearest(name, known)}"
        + (f" There are: {', '.join(known)}" if known else ""),
        code="CFG-053",
        where=WHERE,
        fix=f"in {place}: class {name}({ours.__name__}): ...",
    )
