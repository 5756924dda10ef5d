"""C2: eight processes want the same keys. With locks each is built once; without them nothing wrong is read."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from organon.errors import StoreError
from organon.store.store import Store

BUILDERS = """
import fcntl, json, os, sys, time, traceback
from pathlib import Path
from organon.errors import StoreError
from organon.store.store import Store
root, working = Path(sys.argv[1]), sys.argv[2] == "locks"
if not working:
    fcntl.flock = lambda *_: None
KEYS = [f"{i:064x}" for i in range(12)]

def content(key):
    return {"a.txt": key * 50, "deep/b.txt": key[::-1] * 70}

def build(store, key):
    folder = store.staging("runs", key)
    for name, text in content(key).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        from organon.store.files import write_atomic
        write_atomic(folder / name, text)
        time.sleep(0.002)
    return store.publish("runs", key, folder)

def get(store, key):
    entry = store.find("runs", key)
    if entry:
        return entry, 0
    with store.lock("runs", key, on_wait=lambda _: None):
        entry = store.find("runs", key)
        return (entry, 0) if entry else (build(store, key), 1)

def work(number):
    store, built, wrong, reads, lost = Store(root), 0, 0, 0, 0
    for key in KEYS[number:] + KEYS[:number] if number % 2 else KEYS:
        for attempt in range(50):
            try:
                entry, made = get(store, key)
                texts = None
                texts = {name: (entry.path / name).read_text() for name in content(key)}
                break
            except (StoreError, OSError):
                if working:
                    raise
                lost += 1  # another builder published the shared staging folder: look again
        built += made
        reads += 1
        wrong += texts != content(key)
    return [built, wrong, reads, lost]

os.environ["LOGURU_LEVEL"] = "ERROR"
children = []
for number in range(8):
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            os.write(write, json.dumps(work(number)).encode())
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(0)
    os.close(write)
    children.append(read)
print(json.dumps([json.loads(os.read(read, 999) or "[]") for read in children]))
"""


@pytest.mark.parametrize("mode", ["locks", "flock is a no-op"])
def test_eight_processes_same_keys(
    store: Store, python: Callable[..., subprocess.CompletedProcess[str]], mode: str
) -> None:
    """C2: exactly one build for each key with locks, zero wrong reads with or without."""
    done = python(BUILDERS, str(store.root), mode)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert all(len(result) == 4 for result in results), done.stderr[-3000:]
    assert sum(wrong for _, wrong, _, _ in results) == 0
    assert [reads for _, _, reads, _ in results] == [12] * 8
    builds = sum(built for built, _, _, _ in results)
    assert builds == 12 if mode == "locks" else builds >= 12
    assert store.index.check() == []
    assert len(store.index.entries()) == 12
    assert all(store.find("runs", row.ident) for row in store.index.entries())


def test_a_staging_folder_made_anew_by_another_process_is_not_published(store: Store) -> None:
    """Without locks: ours was published by another process, and a third one has begun again with half of the files."""
    folder = store.staging("runs", "k" * 64)
    (folder / "a").write_text("1")
    folder.rename(store.root / "published elsewhere")
    half = Store(store.root).staging("runs", "k" * 64)
    (half / "b").write_text("2")
    with pytest.raises(StoreError, match="made it anew"):
        store.publish("runs", "k" * 64, folder)
    assert store.find("runs", "k" * 64) is None
    assert (half / "b").exists()


def test_a_look_into_staging_does_not_break_its_publication(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without locks: `staging` is called by another process between the manifest and the rename."""
    folder = store.staging("runs", "k" * 64)
    (folder / "a").write_text("1")
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self == folder:
            Store(store.root).staging("runs", "k" * 64)
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    store.publish("runs", "k" * 64, folder)
    assert store.find("runs", "k" * 64) is not None


def test_two_publishers_of_one_key_keep_one_entry(store: Store) -> None:
    """Publishing is a rename: the second one finds the first and drops its own."""
    with store.scratch() as first, store.scratch() as second:
        (first / "a").write_text("1")
        (second / "a").write_text("2")
        one, two = store.publish("runs", "k" * 64, first), store.publish("runs", "k" * 64, second)
    assert one == two
    assert (two.path / "a").read_text() == "1"
    assert not first.exists()
    assert not second.exists()
