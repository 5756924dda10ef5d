"""K4, case 69, rule 16: checkpoints are there whole or not at all, and damaged ones are known."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from organon.backends.lightning.checkpoint_io import Checkpoints, TrainState
from organon.errors import StoreError, TrainingError


def state(step: int, **changes: Any) -> TrainState:
    tensors = {"model/w": torch.full((4, 4), float(step)), "optimizer/w/step": torch.tensor(float(step))}
    return TrainState(**{"step": step, "tensors": tensors, "identity": "i", **changes})


def test_round_trip(tmp_path: Path) -> None:
    written = state(3, tokens=12, metrics={"train/loss": 0.25}, pending={"step": 3, "learning_rate": 1e-3})
    Checkpoints(tmp_path).save(written)
    found = Checkpoints(tmp_path).latest("i")
    assert found is not None
    assert (found.step, found.tokens, found.metrics, found.pending) == (3, 12, written.metrics, written.pending)
    assert found.logged_step == 2
    assert found.tensors.keys() == written.tensors.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in written.tensors.items())


def test_the_same_state_makes_the_same_file(tmp_path: Path) -> None:
    names = [Checkpoints(tmp_path / name).save(state(7)).name for name in "ab"]
    assert names[0] == names[1]


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (5, 10, 15):
        checkpoints.save(state(step))
    assert sorted(p.name[:8] for p in tmp_path.iterdir()) == ["00000010", "00000015"]
    found = checkpoints.latest("i")
    assert found is not None
    assert found.step == 15


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_one_is_set_aside(tmp_path: Path, damage: str) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(1))
    newest = checkpoints.save(state(2))
    content = bytearray(newest.read_bytes())
    content[-3] ^= 1
    newest.write_bytes({"cut": content[: len(content) // 2], "flip": content, "empty": b""}[damage])
    found = checkpoints.latest("i")
    assert found is not None
    assert found.step == 1
    assert newest.with_suffix(".damaged").exists()


def test_none_and_unfinished_ones(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none").latest("i") is None
    (tmp_path / ".tmp-0123").write_bytes(b"half")
    assert Checkpoints(tmp_path).latest("i") is None


def test_of_another_training(tmp_path: Path) -> None:
    """Case 72."""
    Checkpoints(tmp_path).save(state(1))
    with pytest.raises(TrainingError, match="another training") as caught:
        Checkpoints(tmp_path).latest("j")
    assert caught.value.code == "CKPT-072"
    assert str(tmp_path) in caught.value.fix


def test_a_full_disk_is_reported_and_leaves_the_old_one(tmp_path: Path) -> None:
    """C5: RLIMIT_FSIZE stands for the full disk."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(1))
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old[1]))
    try:
        with pytest.raises(StoreError) as caught:
            checkpoints.save(state(2, tensors={"model/w": torch.zeros(100_000)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert str(tmp_path) in str(caught.value)
    found = checkpoints.latest("i")
    assert found is not None
    assert found.step == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_no_pickle_is_read_or_written() -> None:
    """Rule 38."""
    folder = Path(__file__).parents[4] / "src" / "organon"
    sources = [*(folder / "backends" / "lightning").glob("*.py"), *(folder / "models").glob("*.py")]
    assert len(sources) > 10
    for file in sources:
        text = file.read_text()
        assert "torch.load" not in text
        assert "torch.save" not in text
        assert "import pickle" not in text
