"""K4, case 69, rule 16: checkpoints are there whole or not at all, and damaged ones are known."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import resource
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from organon.backends.lightning.checkpoint_io import SCHEMA, Checkpoints, TrainState
from organon.errors import StoreError, TrainingError

IDENTITY: dict[str, Any] = {"seed": 0, "adapter": {"rank": 4, "target_modules": ["a"]}, "compute": {"threads": 1}}


def state(step: int, **changes: Any) -> TrainState:
    tensors = {"model/w": torch.full((4, 4), float(step)), "optimizer/w/step": torch.tensor(float(step))}
    return TrainState(**{"step": step, "tensors": tensors, "identity": IDENTITY, **changes})


def test_round_trip(tmp_path: Path) -> None:
    written = state(3, tokens=12, metrics={"train/loss": 0.25}, pending={"step": 3, "learning_rate": 1e-3})
    Checkpoints(tmp_path).save(written)
    found = Checkpoints(tmp_path).latest(IDENTITY)
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
    found = checkpoints.latest(IDENTITY)
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
    found = checkpoints.latest(IDENTITY)
    assert found is not None
    assert found.step == 1
    assert newest.with_suffix(".damaged").exists()


def test_none_and_unfinished_ones(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none").latest(IDENTITY) is None
    (tmp_path / ".tmp-0123").write_bytes(b"half")
    assert Checkpoints(tmp_path).latest(IDENTITY) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"adapter": {"rank": 8, "target_modules": ["a"]}}, "adapter.rank is 4 there and 8 here"),
        ({"adapter": {"rank": 4}}, r'adapter.target_modules is \["a"\] there and absent here'),
        ({"seed": 1, "compute": {"threads": 2}}, "compute.threads is 1 there and 2 here; seed is 0 there and 1 here"),
        (
            {f"new{i}": 1 for i in range(7)},
            "new0 is absent there .*new4 is absent there and 1 here and 2 more",
        ),
        ({"seed": "x" * 99}, 'seed is 0 there and "x{36}... here'),
    ],
)
def test_of_another_training(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    """Case 72: what differs, there and here."""
    Checkpoints(tmp_path).save(state(1))
    with pytest.raises(TrainingError, match=f"is of another training: {said}") as caught:
        Checkpoints(tmp_path).latest({**IDENTITY, **changes})
    assert caught.value.code == "CKPT-072"
    assert str(tmp_path) in caught.value.fix


def test_all_that_decides_the_rest_is_kept(tmp_path: Path) -> None:
    """K3: what best/ holds, how long early stopping has waited, why it stopped, the user's callbacks."""
    told = {
        "best": {"metric": "val/loss", "value": 0.1 + 0.2, "step": 3, "epoch": 1.5},
        "patience": {"value": None, "step": 3, "without_gain": 1},
        "stopped": "enough",
        "callbacks": {"0:Counter": {"count": 3}},
        "first_loss": 1.75,
        "halvings": 2,
    }
    Checkpoints(tmp_path).save(state(3, **told))
    found = Checkpoints(tmp_path).latest(IDENTITY)
    assert {name: getattr(found, name) for name in told} == told


def test_a_step_has_one_checkpoint(tmp_path: Path) -> None:
    """The one with something pending gives way to the one without, whichever name comes first."""
    checkpoints = Checkpoints(tmp_path)
    for number in range(4):
        checkpoints.save(state(7, pending={"step": number}))
        checkpoints.save(state(7))
        assert len(list(tmp_path.iterdir())) == 1
        found = checkpoints.latest(IDENTITY)
        assert found is not None
        assert found.pending is None


def test_of_two_the_later_one_counts(tmp_path: Path) -> None:
    """A crash may keep the older one of a step from being removed; the names' hashes say nothing of time."""
    for number in range(6):  # by hash, half of them would come in the wrong order
        folder = tmp_path / str(number)
        checkpoints = Checkpoints(folder)
        older = checkpoints.save(state(7, pending={"step": number}))
        kept = older.read_bytes(), older.stat()
        time.sleep(0.01)  # a file system's clock may be coarse
        checkpoints.save(state(7))
        older.write_bytes(kept[0])
        os.utime(older, ns=(kept[1].st_atime_ns, kept[1].st_mtime_ns))
        found = checkpoints.latest(IDENTITY)
        assert found is not None
        assert found.pending is None


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(state(1))
    (tmp_path / ".tmp-0123456789abcdef").write_bytes(b"half")
    Checkpoints(tmp_path)
    assert [p.name[:8] for p in tmp_path.iterdir()] == ["00000001"]


MALICIOUS = {
    "pickle": pickle.dumps(__import__("os").system),
    "header": (2**40).to_bytes(8, "little") + b"{}",
    "short": b"\x00",
    "json": len(b"[1, 2]").to_bytes(8, "little") + b"[1, 2]",
    "fields": None,
}


@pytest.mark.parametrize("name", MALICIOUS)
def test_what_is_no_checkpoint_is_refused_and_never_run(tmp_path: Path, name: str) -> None:
    """S2, cases 65 to 67: a file that bears its own hash, so that it counts as whole."""
    content = MALICIOUS[name]
    if content is None:
        header = {"organon": json.dumps({"schema": SCHEMA, "step": 1, "identity": IDENTITY, "_target_": "os.system"})}
        content = save({"model/w": torch.zeros(1)}, header)
    (tmp_path / f"00000001-{hashlib.sha256(content).hexdigest()}.safetensors").write_bytes(content)
    with pytest.raises(TrainingError, match="is no checkpoint of organon") as caught:
        Checkpoints(tmp_path).latest(IDENTITY)
    assert caught.value.code == "CKPT-067"
    (tmp_path / "last.ckpt").write_bytes(content)  # another name is not looked at
    assert len(Checkpoints(tmp_path)._files()) == 1


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
    found = checkpoints.latest(IDENTITY)
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
