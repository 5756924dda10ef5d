"""Locks: one at a time, named holder, gone with its process (case 81, C4)."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from organon.store.locks import LockBusy, LockInfo, hold, holder
from organon.store.store import Store

KEY = "c" * 64
HOLD = """
import os, sys, time
from pathlib import Path
from organon.store.store import Store
with Store(Path(sys.argv[1])).lock("runs", "c" * 64):
    if len(sys.argv) > 2 and os.fork() == 0:
        os.close(1)
        time.sleep(20)
    print("held", flush=True)
    time.sleep(20)
"""


@pytest.fixture
def other(store: Store) -> Any:
    """Another process that holds the lock of KEY."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")}
        command = [sys.executable, "-c", HOLD, str(store.root), *arguments]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_the_holder_is_named_and_waited_for(store: Store, other: Callable[..., Any]) -> None:
    """Case 81, CACHE-082: lock of a live pid."""
    process = other()
    info = store.holder("runs", KEY)
    assert info is not None
    assert (info.pid, info.host) == (process.pid, os.uname().nodename)
    assert 0 <= time.time() - info.since < 60
    with pytest.raises(LockBusy, match=f"pid {process.pid}@") as caught, store.lock("runs", KEY, blocking=False):
        pass
    assert caught.value.code == "CACHE-082"
    assert caught.value.holder == info
    waited: list[LockInfo | None] = []
    with pytest.raises(LockBusy), store.lock("runs", KEY, timeout_seconds=0.2, on_wait=waited.append):
        pass
    assert waited == [info]


def test_a_waiter_goes_on_when_the_holder_is_killed(store: Store, other: Callable[..., Any]) -> None:
    """C4, case 81: lock of a dead pid."""
    process = other()
    waits: list[float] = []

    def wait() -> None:
        started = time.monotonic()
        with store.lock("runs", KEY, on_wait=lambda _: process.kill()):
            waits.append(time.monotonic() - started)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(10)
    assert len(waits) == 1
    assert waits[0] < 2.0
    assert json.loads((store.root / "locks" / "runs" / f"{KEY}.lock").read_text())["pid"] == os.getpid()
    assert store.holder("runs", KEY) is None


def test_a_forked_child_does_not_keep_the_lock(store: Store, other: Callable[..., Any]) -> None:
    """Data loader workers outlive a killed trainer for a while."""
    process = other("fork")
    process.kill()
    process.wait()
    with store.lock("runs", KEY, timeout_seconds=2.0):
        pass


def test_threads_exclude_each_other_and_other_keys_are_free(store: Store) -> None:
    with store.lock("runs", KEY) as info:
        assert info.pid == os.getpid()
        with pytest.raises(LockBusy), store.lock("runs", KEY, blocking=False):
            pass
        with store.lock("runs", "0" * 64, blocking=False), store.lock("evals", (KEY, KEY), blocking=False):
            pass
    with store.lock("runs", KEY, blocking=False):
        pass


def test_the_lock_is_released_on_an_error(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), store.lock("runs", KEY):
        raise KeyboardInterrupt
    assert store.holder("runs", KEY) is None


def test_a_lock_file_deleted_by_a_clean_up_does_not_let_two_in(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with hold(path):
        path.unlink()
        with hold(path, blocking=False), pytest.raises(LockBusy), hold(path, blocking=False):
            pass
    assert holder(path) is None


def test_a_lock_file_deleted_between_opening_and_locking_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock must be on the file that the next one will open."""
    path, real, deleted = tmp_path / "x.lock", fcntl.flock, False

    def delete_first(file: int, operation: int) -> None:
        nonlocal deleted
        if not deleted:
            path.unlink()
            deleted = True
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", delete_first)
    with hold(path):
        assert holder(path) is not None
        with pytest.raises(LockBusy), hold(path, blocking=False):
            pass


def test_a_look_at_the_lock_does_not_make_a_non_blocking_one_give_up(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with hold(path):
        pass
    file = os.open(path, os.O_RDONLY)
    fcntl.flock(file, fcntl.LOCK_SH)  # as `holder` does
    timer = threading.Timer(0.01, os.close, [file])
    timer.start()
    with hold(path, blocking=False):
        pass
    timer.join()


def test_unreadable_holder_information_is_no_error(store: Store) -> None:
    with store.lock("runs", KEY):
        (store.root / "locks" / "runs" / f"{KEY}.lock").write_text("{")
        info = store.holder("runs", KEY)
    assert info is not None
    assert info.pid == 0
