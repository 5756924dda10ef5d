"""Copies of a training's weights: made once, whole, and nothing is left of those that were cut off."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from organon.errors import ConfigError, StoreError
from organon.pipeline.checkpoint_dir import check_place, copy_checkpoints


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "store" / "run"
    (folder / "epoch_0").mkdir(parents=True)
    (folder / "epoch_0" / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


def test_what_is_all_there_is_not_copied_again(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk need not hold it twice."""
    place = tmp_path / "copy"
    assert not check_place(place, run)
    copy_checkpoints(run, place)
    assert check_place(place, run)
    monkeypatch.setattr(shutil, "copyfile", None)
    copy_checkpoints(run, place)


def test_own_files_are_known_where_the_store_was_pruned(run: Path, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    copy_checkpoints(run, place)
    run.rename(run.with_name("pruned"))
    with pytest.raises(ConfigError, match="not of this training"):
        check_place(place, run)
    assert not check_place(place, run, copied_before=True)
    run.with_name("pruned").rename(run)
    assert check_place(place, run, copied_before=True)
    (place / "epoch_0" / "adapter_model.safetensors").write_bytes(b"changed")
    with pytest.raises(ConfigError, match="not of this training"):
        copy_checkpoints(run, place)


def test_the_unfinished_copy_of_a_killed_process_is_removed(run: Path, tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = socket.gethostname()
    kept = [f".copy.{host}.{os.getppid()}.new", f".copy.another-{host}.{dead.pid}.new", f".copy.{host}.mine.new"]
    for name in (*kept, f".copy.{host}.{dead.pid}.new"):
        (tmp_path / name).mkdir()
    copy_checkpoints(run, tmp_path / "copy")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "copy", "store"])


@pytest.mark.parametrize("place", ["/proc/foo", "/proc/a/b", "file/in/it"])
def test_a_place_that_cannot_be_made_is_refused_before_training(run: Path, tmp_path: Path, place: str) -> None:
    """By trying: to root /proc looks writable."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be made") as caught:
        check_place(tmp_path / place, run.with_name("not-yet"))
    assert caught.value.where == "checkpoint_dir"
    assert not check_place(tmp_path / "new" / "copy", run)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "store"]


def test_a_failed_copy_says_that_the_training_is_kept(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(StoreError, match=r"No space left on device.*the training is done and kept") as caught:
        copy_checkpoints(run, tmp_path / "copy")
    assert caught.value.where == "checkpoint_dir"
    assert "ORGANON_STORE" not in str(caught.value)
    assert "the same command then only copies" in caught.value.fix
