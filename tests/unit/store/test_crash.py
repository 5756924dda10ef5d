"""K1: a process killed at any moment of a write leaves the old state or the new one, never half of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

DRIVER = Path(__file__).with_name("crash_driver.py")
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(__file__).parents[3] / "src"),
    "PYTHONDONTWRITEBYTECODE": "1",
    "LOGURU_LEVEL": "ERROR",
}
SYSCALLS = ["pwrite64", "fdatasync", "ftruncate", "fsync", "rename", "unlink", "write", "mkdir", "fchmod", "chmod"]
# 0: every one of them, in some minutes; else every n-th
STRIDE = int(os.environ.get("ORGANON_CRASH_STRIDE", "20"))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory: what is killed here are processes, and fsync then costs nothing."""
    memory = Path("/dev/shm")
    place = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    yield place
    shutil.rmtree(place)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=280)


@pytest.mark.slow
def test_kill_before_every_call_that_changes_the_disk(folder: Path) -> None:
    """K1: each write is moreover cut off in its middle."""
    done = _run(sys.executable, str(DRIVER), "every-call", str(folder))
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) >= 50


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_kill_at_system_calls_sqlite_included(folder: Path) -> None:
    """K1: ORGANON_CRASH_STRIDE=1 takes all of the about 190 points."""
    prepared = folder / "prepared"
    assert _run(sys.executable, str(DRIVER), "prepare", str(prepared)).returncode == 0
    stores = []
    for call, when in _points(prepared, folder):
        root = folder / f"{call}-{when}"
        shutil.copytree(prepared, root)
        inject = ["-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={when}"]
        done = _run("strace", *inject, sys.executable, str(DRIVER), "change", str(root))
        assert done.returncode in (-9, 137), (call, when, done.stderr)
        stores.append(str(root))
    assert len(stores) >= 8
    done = _run(sys.executable, str(DRIVER), "check", *stores)
    assert done.returncode == 0, done.stderr[-3000:]


def _points(prepared: Path, folder: Path) -> list[tuple[str, int]]:
    root, counts = folder / "counted", folder / "counts"
    shutil.copytree(prepared, root)
    trace = ["-f", "-c", "-o", str(counts), "-e", "trace=" + ",".join(SYSCALLS)]
    assert _run("strace", *trace, sys.executable, str(DRIVER), "change", str(root)).returncode == 0
    rows = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", counts.read_text(), re.MULTILINE)
    # The very last calls of a kind may depend on timing, so they are left out.
    points = [(call, when) for number, call in rows if call in SYSCALLS for when in range(1, int(number))]
    return points[:: max(STRIDE, 1)]
