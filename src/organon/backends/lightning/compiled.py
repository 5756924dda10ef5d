"""torch.compile of a model's decoder layers, each on its own."""

from __future__ import annotations

import torch
from transformers import AttentionInterface
from transformers.modeling_layers import GradientCheckpointingLayer

from organon.backends.lightning import attention, fused
from organon.errors import ConfigError


def compile_layers(model: torch.nn.Module) -> int:
    """Compile the decoder layers at their first use, for batches of any length; how many there are.

    Instead of the forms of ``fused``, which are taken out: the compiler joins the passes over memory itself.
    Attention stays outside, for each batch has documents of other lengths.

    Raises:
        ConfigError: CFG-060, the model's layers are not known, or there is no C++ compiler for the CPU's code.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ConfigError(
            f"torch.compile: {type(model).__name__} has no decoder layers that are known here",
            code="CFG-060",
            where="trainer.compile",
            fix="trainer.compile=false",
        )
    if next(model.parameters()).device.type == "cpu":
        _check_compiler()
    fused.undo(model)
    attention.register()
    AttentionInterface.register(attention.NAME, torch.compiler.disable(attention.attend))  # type: ignore[no-untyped-call]
    for layer in layers:
        layer.compile(dynamic=True)
    return len(layers)


def _check_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise ConfigError(
            "torch.compile makes C++ code for the CPU, and no compiler was found",
            code="CFG-060",
            where="trainer.compile",
            fix="trainer.compile=false, or install g++ (CXX names another one)",
        ) from error
