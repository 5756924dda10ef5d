"""The optimizer of a training: AdamW in 32 or 8 bit, its learning rate at each step, its state by name.

Eight bit: both moments in blocks of 256 values, each block with its own scale (Dettmers et al. 2022,
"8-bit optimizers via block-wise quantization"). Paged: they lie in memory that CUDA moves to the host
when the GPU is full (QLoRA, Dettmers et al. 2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from organon.config.schema import OptimConfig
from organon.errors import ConfigError

EXPONENTIAL_END = 0.01  # of the peak learning rate, where the exponential schedule leads
EIGHT_BIT = ("adamw_8bit", "paged_adamw_8bit")

Whole = Callable[[torch.Tensor], torch.Tensor]
Share = Callable[[torch.Tensor, torch.nn.Parameter], torch.Tensor]

# The values that the codes of a moment stand for: the same for every parameter, so not in a checkpoint.
_CODEBOOKS = ("qmap1", "qmap2")


def adamw(parameters: dict[str, torch.nn.Parameter], optim: OptimConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019). Weight decay is for matrices, not for norms and biases.

    In 8 bit, tensors of fewer than 4096 values keep moments of 32 bit (bitsandbytes' own limit).

    Raises:
        ConfigError: CFG-060, a paged optimizer without a GPU.
    """
    matrices = [p for p in parameters.values() if p.ndim > 1]
    others = [p for p in parameters.values() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": optim.weight_decay}, {"params": others, "weight_decay": 0.0}]
    arguments: dict[str, Any] = {"lr": optim.learning_rate, "betas": (optim.beta1, optim.beta2), "eps": optim.epsilon}
    groups = [group for group in groups if group["params"]]
    if optim.name not in EIGHT_BIT:
        return torch.optim.AdamW(groups, **arguments)
    from bitsandbytes.optim import AdamW8bit

    paged = optim.name == "paged_adamw_8bit"
    if paged and not all(p.is_cuda for p in parameters.values()):
        raise ConfigError(
            "paged_adamw_8bit pages between a GPU and its host; this training is on the CPU",
            code="CFG-060",
            where="optim.name",
            fix="optim.name=adamw_8bit",
        )
    return AdamW8bit(groups, is_paged=paged, **arguments)  # type: ignore[no-any-return]


def learning_rate(optim: OptimConfig, step: int, total_steps: int) -> float:
    """The rate of optimizer step ``step`` (from 1): linear warm-up, then the schedule to the last step.

    The first step after the warm-up has the full rate. Cosine and linear fall to just above 0, exponential
    to just above 1 % of the peak.
    """
    warmup = min(optim.warmup_steps, total_steps)
    if step <= warmup:
        return optim.learning_rate * step / (warmup + 1)
    progress = (step - warmup - 1) / max(1, total_steps - warmup)  # 0 <= progress < 1
    factors = {
        "constant": 1.0,
        "linear": 1 - progress,
        "cosine": (1 + math.cos(math.pi * progress)) / 2,
        "exponential": math.pow(EXPONENTIAL_END, progress),
    }
    return optim.learning_rate * factors[optim.schedule]


def state_tensors(
    optimizer: torch.optim.Optimizer, parameters: dict[str, torch.nn.Parameter], whole: Whole = lambda tensor: tensor
) -> dict[str, torch.Tensor]:
    """The optimizer's state as ``<parameter>/<part>`` tensors, none of which share memory; empty before a step.

    ``whole``: makes a tensor whole that processes share.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in parameters.items():
        for part, value in optimizer.state.get(parameter, {}).items():
            if part not in _CODEBOOKS:
                # bitsandbytes counts steps in a Python number, torch in a tensor.
                found = value if isinstance(value, torch.Tensor) else torch.tensor(value)
                tensors[f"{name}/{part}"] = whole(found)
    return tensors


def load_state_tensors(
    optimizer: torch.optim.Optimizer,
    parameters: dict[str, torch.nn.Parameter],
    tensors: dict[str, torch.Tensor],
    share: Share = lambda tensor, parameter: tensor.to(parameter.device),
) -> None:
    """Undo ``state_tensors``, bit for bit: a further step gives the same weights.

    ``share``: a whole tensor as its parameter is: on its device, and this process's share of it.

    Raises:
        KeyError: a part of the state is missing.
        ValueError: a part has another shape or dtype, so it is of another optimizer.
    """
    places = {p: (group, g, i) for g, group in enumerate(optimizer.param_groups) for i, p in enumerate(group["params"])}
    for name, parameter in parameters.items():
        start = f"{name}/"
        found = {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
        optimizer.state.pop(parameter, None)
        if found and hasattr(optimizer, "init_state"):  # bitsandbytes' optimizers
            group, g, i = places[parameter]
            # Its own start puts the moments into paged memory, where they are to be paged.
            optimizer.init_state(group, parameter, g, i)
            _fill(name, optimizer.state[parameter], found)
        elif found:
            # AdamW counts steps in a CPU tensor; its moments live beside the parameter.
            optimizer.state[parameter] = {
                part: value if part == "step" else share(value, parameter) for part, value in found.items()
            }


def _fill(name: str, state: dict[str, Any], found: dict[str, torch.Tensor]) -> None:
    for part, value in state.items():
        if part in _CODEBOOKS:
            continue
        saved = found[part]
        if not isinstance(value, torch.Tensor):
            state[part] = int(saved)
        elif value.shape != saved.shape or value.dtype != saved.dtype:
            raise ValueError(
                f"optimizer state {name}/{part}: {tuple(saved.shape)} {saved.dtype}, "
                f"expected {tuple(value.shape)} {value.dtype}"
            )
        else:
            value.copy_(saved)
