"""A job's folder as caller and worker share it: names, the lock, the status file. No torch.

spec.json        what to train (the caller)         job.json       key and job id (the caller)
status.json      where the worker is, rewritten     worker.lock    held as long as a worker lives
metrics.jsonl    one line per logged step           logs.txt       the worker's stderr
checkpoints/     to resume from                     epoch_N/       the adapter after epoch N (from 0)
cancel.asked     there if the caller asked to stop  best/       the adapter of the best validation, if asked for
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from organon.store.files import replace_file, temporary, write_all

SPEC, JOB, STATUS, LOCK, CANCEL = "spec.json", "job.json", "status.json", "worker.lock", "cancel.asked"
METRICS, METRICS_CSV, LOG, CHECKPOINTS = "metrics.jsonl", "metrics.csv", "logs.txt", "checkpoints"
BEST, STASH = "best", "adapter_weights"

_LOCK_ATTEMPTS, _LOCK_PAUSE_SECONDS = 5, 0.02


@dataclass(frozen=True)
class Workdir:
    """The folder of one job."""

    path: Path

    def epoch(self, number: int) -> Path:
        """The folder of the adapter after epoch ``number`` (from 0)."""
        return self.path / f"epoch_{number}"

    def epochs(self) -> list[Path]:
        """The finished epoch folders, in order."""
        found = [p for p in self.path.glob("epoch_*") if p.name.removeprefix("epoch_").isdecimal()]
        return sorted(found, key=lambda p: int(p.name.removeprefix("epoch_")))

    def weights(self) -> list[Path]:
        """The finished epoch folders and ``best/``."""
        best = self.path / BEST
        return [*self.epochs(), *([best] if best.is_dir() else [])]

    def result(self) -> Path | None:
        """The folder that the training came to: ``best/`` where it is kept, else the last epoch's."""
        return self.weights()[-1] if self.weights() else None

    def read(self, name: str) -> dict[str, Any] | None:
        """One of the JSON files; None if it is not there."""
        try:
            found = json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return found if isinstance(found, dict) else None

    def write(self, name: str, value: dict[str, Any], *, durable: bool = True) -> None:
        """Replace one of the JSON files at once. Not ``durable``: a power cut may bring back the old one."""
        content = (json.dumps(value, indent=1) + "\n").encode()
        if durable:
            replace_file(self.path / name, content)
            return
        with temporary(self.path) as (file, unfinished):
            write_all(file, content)
            unfinished.replace(self.path / name)

    def lock(self) -> int | None:
        """Take the worker's lock: its file descriptor, or None while a worker lives.

        The lock lives as long as any process holds the descriptor, so a caller that hands it to the
        worker it starts leaves no moment at which the job looks dead.
        """
        file = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        for attempt in range(_LOCK_ATTEMPTS):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return file
            except BlockingIOError:  # a worker's, or that of someone who just looks (`is_locked`)
                time.sleep(_LOCK_PAUSE_SECONDS * (attempt < _LOCK_ATTEMPTS - 1))
        os.close(file)
        return None

    def is_locked(self) -> bool:
        """Whether a worker lives."""
        with contextlib.suppress(FileNotFoundError):
            file = os.open(self.path / LOCK, os.O_RDONLY)
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            finally:
                os.close(file)
        return False

    def holder(self) -> int | None:
        """The process id of the living worker; None if there is none, or it has not said so yet."""
        return self.last_worker() if self.is_locked() else None

    def last_worker(self) -> int | None:
        """The process id of the last worker that was started here, living or dead; None if it is not known."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int((self.path / LOCK).read_text())
        return None

    def log_tail(self, lines: int = 15, most_bytes: int = 8192, name: str = LOG) -> str:
        """The end of the worker's log, or of another one."""
        with contextlib.suppress(FileNotFoundError), (self.path / name).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - most_bytes))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
        return ""


def sign(lock: int, pid: int | None = None) -> None:
    """Write the worker's id into the lock file held by ``lock``: ``pid``, else this process's."""
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(pid or os.getpid()).encode(), 0)
