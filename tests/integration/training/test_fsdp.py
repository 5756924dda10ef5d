"""FSDP2 on two processes with gloo: the weights are shared, and nothing else is different."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

# Nine rows, four in a step, one in a forward pass: in the last step of an epoch, rank 1 has none of its own.
# Adam's epsilon is such that a gradient which is nothing but rounding moves nothing.
PLAIN: dict[str, Any] = {
    **{"global_batch_size": 4, "micro_batch_size": 1, "epochs": 2, "checkpoint_every_n_steps": 2, "epsilon": 1e-5},
    **{"kind": "lora", "quantization": "none"},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {"dropout": 0.0},
    "full": {"kind": "full", "learning_rate": 1e-3, "weight_decay": 0.1},
    "qlora": {"kind": "qlora", "quantization": "nf4"},
    "dora and embeddings": {"use_dora": True, "train_embeddings": True},
}


def weights(workdir: Path, epoch: int = 1) -> dict[str, torch.Tensor]:
    (file,) = (workdir / f"epoch_{epoch}").glob("*model.safetensors")
    return dict(load_file(file))


def logs(workdir: Path) -> str:
    return "".join((workdir / name).read_text() for name in ("logs.txt", "logs_rank1.txt"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_sharded_weights_train_as_whole_ones(lab: Any, tmp_path: Path, variant: str) -> None:
    """Same losses, same files as one process; each rank holds half of the weights, the quantised ones too."""
    arguments = {**PLAIN, **VARIANTS[variant], "rows": lab.words(9), "validation": lab.words(3, start=100)}
    one = lab.train(lab.spec(**arguments), tmp_path / "one")
    two = tmp_path / "two"
    assert lab.run(lab.spec(**arguments, devices=2, strategy="fsdp"), two) == 0, logs(two)
    for mine, other in zip(lab.metrics(two, times=False), lab.metrics(one, times=False), strict=True):
        for name, value in mine.items():
            limit = 1e-6 if name.endswith("loss") else 1e-5
            assert value == pytest.approx(other[name], rel=limit), (name, mine["step"])
    ours, theirs = weights(two), weights(one)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.allclose(tensor, theirs[name], rtol=0, atol=1e-5), name
    assert {p.name for p in (two / "epoch_1").iterdir()} == {p.name for p in (one / "epoch_1").iterdir()}
    checkpoints = [load_file(max((folder / "checkpoints").iterdir())) for folder in (one, two)]
    shapes = [{name: tensor.shape for name, tensor in found.items()} for found in checkpoints]
    assert shapes[0] == shapes[1]
    shares = re.findall(r"weights are shared by 2 ranks: ([\d.]+) of ([\d.]+) MB are here", logs(two))
    assert len(shares) == 2
    assert all(0.4 < float(here) / float(whole) < 0.6 for here, whole in shares)


@pytest.mark.parametrize("variant", ["full", "qlora"])
def test_a_killed_sharded_training_resumes_exactly(lab: Any, tmp_path: Path, variant: str) -> None:
    """Each rank takes its part of the checkpoint, optimizer state included."""
    spec = lab.spec(**{**PLAIN, **VARIANTS[variant], "devices": 2, "strategy": "fsdp"}, rows=lab.words(9))
    before, after = lab.train(spec, tmp_path / "before"), tmp_path / "after"
    assert lab.run(spec, after, kill_at="rank1:micro:5:1") == 1
    lab.train(spec, after)
    assert lab.status(after)["resumed_from_step"] == 4
    assert lab.final_state(after) == lab.final_state(before)
    assert lab.metrics(after, times=False) == lab.metrics(before, times=False)


def test_a_stop_in_the_middle_of_a_step(lab: Any, tmp_path: Path) -> None:
    """All ranks stop before the same forward pass, or one would wait for the other for ever."""
    spec = lab.spec(**{**PLAIN, "devices": 2, "strategy": "fsdp", "epochs": 200, "checkpoint_every_n_steps": 1000})
    process = lab.start(spec, tmp_path)
    until = time.monotonic() + 60
    while not ((tmp_path / "status.json").exists() and lab.status(tmp_path)["step"] >= 3):
        assert time.monotonic() < until
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    process.join(10)
    assert process.exitcode == 143
    assert int(lab.final_state(tmp_path)[:8]) >= 3
    assert "Traceback" not in logs(tmp_path)


def test_best_model_of_sharded_weights(lab: Any, tmp_path: Path) -> None:
    """`best/` is whole, and training goes on after it has been put together."""
    spec = lab.spec(
        **{**PLAIN, "devices": 2, "strategy": "fsdp", "best_metric": "val/loss", "epochs_to_save": "none"},
        rows=lab.words(9),
    )
    assert lab.run(spec, tmp_path) == 0, logs(tmp_path)
    rows = lab.metrics(tmp_path)
    assert len(rows) == 6
    shapes = {tuple(tensor.shape) for tensor in load_file(tmp_path / "best" / "adapter_model.safetensors").values()}
    assert (4, 64) in shapes  # rank x hidden size
