"""Weights shared by all ranks: torch's fully sharded data parallel of the second kind (FSDP2).

Each decoder layer is put together on every device for its own forward and backward pass, and let go again.
Gradients are added up, not averaged: our loss is normalised over the whole step already. Every forward pass
is a collective, so all ranks do equally many (``MicroBatch.idle``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from loguru import logger
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from organon.backends.lightning.ranks import Ranks


def shard(model: torch.nn.Module, ranks: Ranks) -> None:
    """Leave each rank its part of every parameter of ``model``, on its device."""
    from transformers.modeling_layers import GradientCheckpointingLayer  # what transformers' decoder layers are

    assert ranks.device is not None
    mesh = init_device_mesh(ranks.device.type, (ranks.world,))
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for module in (*layers, model):
        # The whole of it, too, is let go after the forward pass: else its parameters would be other objects
        # after a validation than those that the optimizer has.
        sharded: Any = fully_shard(module, mesh=mesh, reshard_after_forward=True)
        assert isinstance(sharded, FSDPModule)
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)  # gloo cannot multiply on the way
    register_fsdp_forward_method(model, "generate")  # for metrics of the user's
    parts = [p.to_local() if isinstance(p, DTensor) else p for p in model.parameters()]
    logger.info(
        "weights are shared by {} ranks: {:.3f} of {:.3f} MB are here",
        ranks.world, sum(p.nbytes for p in parts) / 1e6, sum(p.nbytes for p in model.parameters()) / 1e6,
    )  # fmt: skip


@contextmanager
def whole_weights(model: torch.nn.Module, ranks: Ranks) -> Iterator[None]:
    """Inside, rank 0's ``model`` has its trainable parameters whole, in main memory, to be saved.

    All ranks must call this; no forward pass is possible meanwhile.
    """
    places: list[tuple[torch.nn.Module, str, torch.nn.Parameter]] = []
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and isinstance(parameter, DTensor) and parameter.requires_grad:
                places.append((module, name, parameter))
    whole = {id(parameter): ranks.whole(parameter) for _, _, parameter in places}  # tied ones stay tied
    if not ranks.is_main:
        yield
        return
    try:
        plain = {key: torch.nn.Parameter(tensor.detach()) for key, tensor in whole.items()}
        for module, name, parameter in places:
            module._parameters[name] = plain[id(parameter)]
        yield
    finally:
        for module, name, parameter in places:
            module._parameters[name] = parameter
