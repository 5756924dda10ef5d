"""The optimizer: what it is, its 8-bit state through a checkpoint, its refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from organon.backends.lightning.checkpoint_io import Checkpoints, TrainState
from organon.backends.lightning.optimizer import adamw, load_state_tensors, state_tensors
from organon.config.schema import OptimConfig
from organon.errors import ConfigError

NAMES = ("adamw", "adamw_8bit")


def parameters() -> dict[str, torch.nn.Parameter]:
    """One of more than 4096 values, whose moments can be in 8 bit, one of fewer, and one that never moves."""
    torch.manual_seed(0)
    shapes = {"large": (80, 65), "small": (40, 3), "norm": (7,), "idle": (9, 9)}
    return {name: torch.nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}


def train(found: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        torch.manual_seed(step)
        for name, parameter in found.items():
            parameter.grad = None if name == "idle" else torch.randn_like(parameter)
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / step
        optimizer.step()


@pytest.mark.parametrize("name", NAMES)
def test_going_on_from_a_checkpoint_is_exact(tmp_path: Path, name: str) -> None:
    """Point 6 for 8 bit: the codes, their scales and the step count survive bit for bit."""
    optim = OptimConfig(name=name, weight_decay=0.1)
    straight = parameters()
    optimizer = adamw(straight, optim)
    train(straight, optimizer, range(1, 9))

    first = parameters()
    interrupted = adamw(first, optim)
    train(first, interrupted, range(1, 5))
    tensors = {f"m/{n}": p.detach() for n, p in first.items()}
    tensors |= {f"o/{n}": t for n, t in state_tensors(interrupted, first).items()}
    Checkpoints(tmp_path).save(TrainState(step=4, tensors=tensors, identity="x"))
    state = Checkpoints(tmp_path).latest("x")
    assert state is not None

    second = parameters()
    resumed = adamw(second, optim)
    for n, p in second.items():
        p.data.copy_(state.tensors[f"m/{n}"])
    load_state_tensors(
        resumed, second, {n.removeprefix("o/"): t for n, t in state.tensors.items() if n.startswith("o/")}
    )
    train(second, resumed, range(5, 9))
    for n, p in straight.items():
        assert torch.equal(p, second[n]), n
    assert state_tensors(resumed, second).keys() == state_tensors(optimizer, straight).keys()
    for n, value in state_tensors(optimizer, straight).items():
        assert torch.equal(value, state_tensors(resumed, second)[n]), n


def test_8_bit_state(tmp_path: Path) -> None:
    """A quarter of the bytes for the large one; small ones stay in 32 bit; the shared code books are not saved."""
    found = parameters()
    optimizer = adamw(found, OptimConfig(name="adamw_8bit"))
    assert state_tensors(optimizer, found) == {}
    train(found, optimizer, range(1, 2))
    tensors = state_tensors(optimizer, found)
    assert {n.split("/")[1] for n in tensors if n.startswith("large/")} == {
        "step", "state1", "state2", "absmax1", "absmax2"
    }  # fmt: skip
    assert tensors["large/state1"].dtype == torch.uint8
    assert tensors["small/state1"].dtype == torch.float32
    assert not [n for n in tensors if n.startswith("idle/")]


def test_8_bit_follows_32_bit() -> None:
    """The same update up to the rounding of the moments: a tenth of the learning rate at most, here."""
    optim = {"weight_decay": 0.0, "learning_rate": 1e-2}
    results = []
    for name in NAMES:
        found = parameters()
        train(found, adamw(found, OptimConfig(name=name, **optim)), range(1, 6))
        results.append(found["large"].detach())
    start = parameters()["large"].detach()
    moved = (results[0] - start).norm()
    assert 0 < float((results[0] - results[1]).norm() / moved) < 0.1


def test_weight_decay_is_for_matrices() -> None:
    for name in NAMES:
        groups = adamw(parameters(), OptimConfig(name=name, weight_decay=0.5)).param_groups
        assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(3, 0.5), (1, 0.0)]


def test_state_of_another_optimizer_is_refused() -> None:
    found = parameters()
    optimizer = adamw(found, OptimConfig(name="adamw_8bit"))
    train(found, optimizer, range(1, 2))
    tensors = state_tensors(optimizer, found)
    tensors["large/state1"] = tensors["large/state1"].float()
    with pytest.raises(ValueError, match=r"large/state1: \(80, 65\) torch.float32, expected \(80, 65\) torch.uint8"):
        load_state_tensors(adamw(found, OptimConfig(name="adamw_8bit")), found, tensors)
    del tensors["large/state1"]
    with pytest.raises(KeyError, match="state1"):
        load_state_tensors(adamw(found, OptimConfig(name="adamw_8bit")), found, tensors)


def test_paged_needs_a_gpu() -> None:
    """Case 60: bitsandbytes itself would go on without paging, with a warning."""
    with pytest.raises(ConfigError, match="on the CPU") as caught:
        adamw(parameters(), OptimConfig(name="paged_adamw_8bit"))
    assert (caught.value.code, caught.value.fix) == ("CFG-060", "optim.name=adamw_8bit")
