"""What a crash test does to a store, and what must be true of it afterwards. Run by test_crash.py.

python crash_driver.py every-call <folder>    kill a child before its 1st, 2nd ... call that changes the disk
python crash_driver.py prepare|change <store>    the single steps, for strace
python crash_driver.py check <store> ...         what must be true after a crash, and after another go
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import loguru

from organon.store.store import Store

OLD, NEW, FAILED = "a" * 64, "b" * 64, "c" * 64
ROWS = [{"text": str(i) * 100} for i in range(100)]
FILES = {"results.json": '{"accuracy": 1}', "deep/weights.bin": "w" * 20_000}
CALLS = ["write", "fsync", "rename", "replace", "link", "mkdir", "rmdir", "chmod", "fchmod", "unlink"]


def prepare(root: Path) -> None:
    """A store with one entry, to be found unharmed after every crash."""
    store = Store(root)
    (store.staging("runs", OLD) / "a").write_text("old")
    store.publish("runs", OLD, store.staging("runs", OLD))
    store.set_link("model_ids", OLD, "model-1", backend="openai")


def change(root: Path) -> None:
    """Everything that writes to a store, once."""
    store = Store(root)
    store.put_dataset(ROWS)
    with store.lock("runs", NEW):
        if store.find("runs", NEW) is None:
            folder = store.staging("runs", NEW)
            for name, text in FILES.items():
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text(text)
            store.publish("runs", NEW, folder)
    store.set_link("model_ids", OLD, "model-2", backend="openai")
    store.record_failure("runs", FAILED, "boom")
    store.set_memo("n", "k", "v")
    store.discard("runs", OLD)


def check(root: Path, *, complete: bool = False) -> None:
    """Old or new, never half; no damage, no row without its entry, nothing slow."""
    damage: list[str] = []
    loguru.logger.remove()
    loguru.logger.add(lambda message: damage.append(str(message)) if "CACHE-078" in message else None)
    store, started = Store(root), time.monotonic()
    assert store.index.check() == [], "index damaged"
    old, new = store.find("runs", OLD), store.find("runs", NEW)
    assert new is None or new.manifest["files"].keys() == FILES.keys()
    assert old is not None or new is not None, "the old entry is lost"
    assert old is None or (old.path / "a").read_text() == "old"
    from organon.store.keys import dataset_hash

    dataset = store.dataset_path(dataset_hash(ROWS))
    assert store.link("model_ids", OLD) in ("model-1", "model-2")
    for row in store.index.entries():
        if row.kind == "runs":
            assert store.find("runs", row.ident) is not None, f"a row without an entry: {row}"
    assert time.monotonic() - started < 5.0, "slow to open"
    assert not damage, damage
    if complete:
        assert old is None
        assert new is not None
        assert dataset is not None
        assert store.link("model_ids", OLD) == "model-2"
        assert store.failures("runs", FAILED)
        assert store.memo("n", "k") == "v"


def every_call(folder: Path) -> int:
    """Kill a child before each of its calls that change the disk; returns how many points there were."""
    template, point = folder / "template", 0
    prepare(template)
    while True:
        point += 1
        root = folder / "store"
        shutil.copytree(template, root)
        child = os.fork()
        if child == 0:
            _kill_at(point)
            change(root)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        try:
            assert killed or status == 0, f"ended with status {status}"
            check(root)
            change(root)
            check(root, complete=True)
        except Exception as error:
            raise AssertionError(f"after a kill at point {point}") from error
        shutil.rmtree(root)
        if not killed:
            return point - 1


def _kill_at(point: int) -> None:
    count = 0

    def wrap(name: str) -> None:
        real: Callable[..., Any] = getattr(os, name)

        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == point:
                if name == "write":
                    real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        setattr(os, name, call)

    for name in CALLS:
        wrap(name)


if __name__ == "__main__":
    step, place = sys.argv[1], Path(sys.argv[2])
    if step == "every-call":
        print(json.dumps(every_call(place)))
    elif step == "check":
        for root in map(Path, sys.argv[2:]):
            check(root)
            change(root)
            check(root, complete=True)
    else:
        {"prepare": prepare, "change": change}[step](place)
