"""One lock per key, so that two processes asking for the same key do the work once.

A lock is an ``flock`` on a file that also names its holder. The kernel drops it when the holder
dies, so there are no stale locks. Nothing's correctness rests on a lock: publishing is a rename.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from organon.errors import StoreError
from organon.store.files import report_disk_errors

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.02, 0.5
REMIND_SECONDS = 30.0  # between two calls of `on_wait`

_held: set[int] = set()  # descriptors of this process's locks


@dataclass(frozen=True)
class LockInfo:
    """Who holds a lock: process id (0 when unreadable), host name, and since when (epoch seconds)."""

    pid: int
    host: str
    since: float

    def __str__(self) -> str:
        return f"pid {self.pid}@{self.host} ({max(0.0, time.time() - self.since):.0f} s)"


class LockBusy(StoreError):
    """Another process or thread holds the lock; ``holder`` says who."""

    holder: LockInfo | None = None


@contextlib.contextmanager
def hold(
    path: Path,
    *,
    blocking: bool = True,
    timeout_seconds: float | None = None,
    on_wait: Callable[[LockInfo | None], None] | None = None,
) -> Iterator[LockInfo]:
    """Hold the lock file ``path`` during the block. Not re-entrant, also not within one thread.

    While another holds it, ``on_wait(holder)`` is called at once and then every 30 s; by default a
    log line is written.

    Raises:
        LockBusy: it is held, and ``blocking`` is false or ``timeout_seconds`` have passed.
        StoreError: the lock file cannot be made.
    """
    patience = timeout_seconds if blocking else 0.0
    with report_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    file = _acquire(path, patience, on_wait or _log_wait)
    owner = os.getpid()
    _held.add(file)
    try:
        info = LockInfo(owner, os.uname().nodename, time.time())
        _write_info(file, info)
        yield info
    finally:
        if os.getpid() == owner:  # a forked child leaves its parent's lock alone
            _held.discard(file)
            os.close(file)


def holder(path: Path) -> LockInfo | None:
    """Who holds the lock file ``path`` now; None when nobody does."""
    try:
        file = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_info(file)
    else:
        return None
    finally:
        os.close(file)


@contextlib.contextmanager
def turnstile(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Wait in the kernel's queue for a short critical section; readers may be in it together."""
    file = os.open(path, os.O_RDONLY if shared else os.O_RDONLY | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def _acquire(path: Path, patience: float | None, on_wait: Callable[[LockInfo | None], None]) -> int:
    started, reminded, pause, attempts = time.monotonic(), float("-inf"), FIRST_PAUSE_SECONDS, 0
    while True:
        file = _attempt(path)
        if file is not None:
            return file
        attempts += 1
        waited = time.monotonic() - started
        # A look at the lock by `holder` takes it for microseconds: never give up on one refusal.
        if patience is not None and waited >= patience and attempts > 2:
            raise _busy(path, waited)
        if waited - reminded >= REMIND_SECONDS and patience != 0.0:
            reminded = waited
            on_wait(holder(path))
        time.sleep(pause if patience is None else min(pause, max(patience - waited, FIRST_PAUSE_SECONDS)))
        pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)


def _attempt(path: Path) -> int | None:
    with report_disk_errors(path):
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_still(file, path):
            return file
    except BlockingIOError:
        pass
    except BaseException:
        os.close(file)
        raise
    os.close(file)
    return None


def _is_still(file: int, path: Path) -> bool:
    """Whether ``path`` is the file we locked: a clean-up may have deleted it in between."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _busy(path: Path, waited: float) -> LockBusy:
    info = holder(path)
    error = LockBusy(
        f"held by {info or 'another process'}, gave up after {waited:.1f} s",
        code="CACHE-082",
        where=str(path),
        fix="wait for it to end, or stop it; the lock goes with its process",
    )
    error.holder = info
    return error


def _log_wait(info: LockInfo | None) -> None:
    from loguru import logger

    logger.info("CACHE-082 waiting for {}, which builds the same entry", info or "another process")


def _write_info(file: int, info: LockInfo) -> None:
    # Only a help for people: a full disk must not keep anybody from working.
    with contextlib.suppress(OSError):
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(asdict(info)).encode(), 0)


def _read_info(file: int) -> LockInfo:
    for _ in range(3):
        try:
            return LockInfo(**json.loads(os.pread(file, 4096, 0)))
        except (ValueError, TypeError):  # its holder is writing it just now
            time.sleep(0.01)
    return LockInfo(0, "unknown host", time.time())


def _after_fork() -> None:
    """A forked child must not keep its parent's locks alive (data loader workers, for one)."""
    for file in _held:
        with contextlib.suppress(OSError):
            os.close(file)
    _held.clear()


os.register_at_fork(after_in_child=_after_fork)
