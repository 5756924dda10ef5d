"""The folder that caller and worker share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from organon.backends.lightning.workdir import Workdir, sign


def test_a_lock_is_held_by_whoever_inherits_it(tmp_path: Path) -> None:
    """The caller hands its lock to the worker: no moment at which the job looks dead."""
    place = Workdir(tmp_path)
    assert not place.is_locked()
    lock = place.lock()
    assert lock is not None
    assert place.lock() is None
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=[lock]
    )
    os.close(lock)
    assert place.is_locked()
    assert child.stdin is not None
    child.stdin.close()
    child.wait(10)
    assert not place.is_locked()


def test_a_lock_names_its_holder(tmp_path: Path) -> None:
    place = Workdir(tmp_path)
    assert place.holder() is None
    lock = place.lock()
    assert lock is not None
    assert place.holder() is None  # not signed yet
    sign(lock)
    assert place.holder() == os.getpid()
    os.close(lock)
    assert place.holder() is None


def test_files_are_replaced_whole(tmp_path: Path) -> None:
    place = Workdir(tmp_path)
    assert place.read("status.json") is None
    for durable in (True, False):
        place.write("status.json", {"durable": durable}, durable=durable)
        assert place.read("status.json") == {"durable": durable}
    assert [p.name for p in tmp_path.iterdir()] == ["status.json"]


def test_epochs_are_sorted_by_number(tmp_path: Path) -> None:
    for name in ("epoch_10", "epoch_2", "epoch_0", ".epoch_3.new", "epoch_x"):
        (tmp_path / name).mkdir()
    assert [p.name for p in Workdir(tmp_path).epochs()] == ["epoch_0", "epoch_2", "epoch_10"]


def test_log_tail(tmp_path: Path) -> None:
    assert Workdir(tmp_path).log_tail() == ""
    (tmp_path / "logs.txt").write_bytes(b"\xff" + b"".join(b"line %d\n" % i for i in range(5000)))
    assert Workdir(tmp_path).log_tail(lines=2) == "line 4998\nline 4999"
