"""The index: rebuilt from the manifests whatever happens to it, fair to many writers, refused if newer."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from organon.errors import StoreError
from organon.store import maintenance
from organon.store.manifest import STORE_SCHEMA
from organon.store.store import Store

KEY = "f" * 64
Run = Callable[..., subprocess.CompletedProcess[str]]


def delete(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def garbage(path: Path) -> None:
    path.write_bytes(b"not a database, really" * 999)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def break_pages(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xee" * (len(data) - 4096)
    path.write_bytes(bytes(data))


def drop_table(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE entries")
    connection.close()


def make_older(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE entries (other TEXT)")
    connection.close()


@pytest.mark.parametrize("damage", [delete, empty, zero, garbage, cut, break_pages, drop_table, make_older])
def test_a_lost_or_damaged_index_is_rebuilt_with_one_notice(
    store: Store, publish: Callable[..., Any], log: list[dict[str, Any]], damage: Callable[[Path], None]
) -> None:
    """Case 79, CACHE-079, rule 4."""
    digest, _ = store.put_dataset([{"a": 1}])
    publish("runs", KEY, {"a": "1"}, labels={"name": "otter"})
    publish("evals", ("m", KEY))
    store.set_link("model_ids", KEY, "ft:1", backend="openai")
    store.set_link("file_ids", ("openai", digest), "file-1", backend="openai")
    store.record_failure("runs", "0" * 64, "boom")
    before = _contents(store)
    damage(store.index.path)
    log.clear()

    again = Store(store.root)
    assert again.find("runs", KEY) is not None
    notices = [record["message"] for record in log if "CACHE-079" in record["message"]]
    assert len(notices) == 1
    assert "rebuilt from 5 manifests" in notices[0]
    assert _contents(again) == before
    assert again.link("model_ids", KEY) == "ft:1"
    assert [row.error for row in again.failures("runs", "0" * 64)] == ["boom"]
    assert again.index.check() == []
    mirror = sqlite3.connect(store.index.path)
    assert mirror.execute("SELECT * FROM dataset_files").fetchall() == [(digest, "openai", "file-1")]
    assert mirror.execute("SELECT * FROM trained_models").fetchall() == [(KEY, "ft:1", "openai")]
    assert mirror.execute("SELECT * FROM eval_results").fetchall() == [(KEY, f"evals/m/{KEY}/results.json")]
    assert mirror.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchone() == (str(STORE_SCHEMA),)
    mirror.close()


def _contents(store: Store) -> dict[str, Any]:
    return {row.path: (row.kind, row.ident, row.bytes, row.files, row.labels) for row in store.index.entries()}


def test_a_new_store_says_nothing_about_its_index(store: Store, log: list[dict[str, Any]]) -> None:
    store.put_dataset([{"a": 1}])
    assert [record for record in log if "CACHE-079" in record["message"]] == []


DIE_IN_TRANSACTION = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 5")
connection.execute("BEGIN IMMEDIATE")
connection.execute("DELETE FROM memo")
connection.executemany("INSERT INTO memo VALUES ('x', ?, ?)", [(str(i), "y" * 500) for i in range(500)])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("index_is", ["kept", "deleted"])
def test_the_journal_of_a_killed_writer(store: Store, publish: Callable[..., Any], python: Run, index_is: str) -> None:
    """Rolled back into its own index; never played into one that was rebuilt in its place."""
    publish("runs", KEY)
    for number in range(30):
        store.set_memo("n", str(number), "z" * 900)
    python(DIE_IN_TRANSACTION, str(store.index.path))
    assert store.index.path.with_name("store.db-journal").stat().st_size > 512
    if index_is == "deleted":
        store.index.path.unlink()
    assert [row.ident for row in store.index.entries()] == [(KEY,)]
    assert store.memo("n", "3") == (None if index_is == "deleted" else "z" * 900)
    assert store.memo("x", "3") is None
    assert store.index.check() == []


OPERATIONS: list[Callable[[Store], Any]] = [
    lambda s: Store.open(s.root),
    lambda s: s.find("runs", KEY),
    lambda s: s.find("runs", "0" * 64),
    lambda s: s.put_dataset([{"a": 1}]),
    lambda s: s.dataset_path("a" * 64),
    lambda s: s.staging("runs", KEY),
    lambda s: s.publish("runs", "0" * 64, s.root / "staging" / "x"),
    lambda s: s.lock("runs", KEY).__enter__(),
    lambda s: s.discard("runs", KEY),
    lambda s: s.link("model_ids", KEY),
    lambda s: s.set_link("model_ids", KEY, "m", backend="b"),
    lambda s: s.record_failure("runs", KEY, "e"),
    lambda s: s.memo("a", "b"),
    lambda s: s.set_memo("a", "b", "c"),
    lambda s: s.index.rebuild(),
    lambda s: maintenance.list_entries(s),
    lambda s: maintenance.verify(s),
    lambda s: maintenance.clear(s),
    lambda s: maintenance.prune(s, max_bytes=0),
]


def test_a_newer_index_is_refused_and_nothing_is_written(store: Store, publish: Callable[..., Any]) -> None:
    """C7, CACHE-080: both versions and the command are named; every operation, no byte changed."""
    publish("runs", KEY)
    with sqlite3.connect(store.index.path) as connection:
        connection.execute(f"PRAGMA user_version = {STORE_SCHEMA + 4}")
    connection.close()
    before = _snapshot(store.root)
    for operation in OPERATIONS:
        with pytest.raises(StoreError) as caught:
            operation(store)
        assert caught.value.code == "CACHE-080"
    message = str(caught.value)
    assert f"version {STORE_SCHEMA + 4}" in message
    assert f"version {STORE_SCHEMA};" in message
    assert "pip install --upgrade organon" in message
    assert _snapshot(store.root) == before


def _snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in [root, *root.rglob("*")]
    }


WRITERS = """
import json, os, sys, time
from pathlib import Path
from organon.store.store import Store
root, seconds = Path(sys.argv[1]), float(sys.argv[2])
Store(root).set_memo("n", "start", "")
start = time.monotonic() + 0.2
children = []
for number in range(8):
    read, write = os.pipe()
    if os.fork() == 0:
        store, count, worst, error = Store(root), 0, 0.0, ""
        time.sleep(max(0, start - time.monotonic()))
        try:
            while time.monotonic() < start + seconds:
                began = time.monotonic()
                store.index.set_memo("n", f"{number}-{count}", "x")
                worst, count = max(worst, time.monotonic() - began), count + 1
        except Exception as problem:
            error = repr(problem)
        os.write(write, json.dumps([count, worst, error]).encode())
        os._exit(0)
    os.close(write)
    children.append(read)
print(json.dumps([json.loads(os.read(read, 9999)) for read in children]))
"""


def test_eight_writers_get_their_turn(store: Store, python: Run) -> None:
    """C3, short: no `database is locked`, at least 3 % of the commits each, no wait above 2 s, nothing lost."""
    done = python(WRITERS, str(store.root), "2.5")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    total = sum(count for count, _, _ in results)
    assert [error for _, _, error in results] == [""] * 8
    # The promise is 5 % over 60 s; in seconds on a busy machine a writer's start weighs (measured: 4.1 %). Without
    # turns, one gets a single commit.
    assert min(count for count, _, _ in results) >= 0.03 * total
    assert max(worst for _, worst, _ in results) <= 2.0
    rows = store.index.read(lambda c: c.execute("SELECT count(*) FROM memo").fetchone()[0], 0)
    assert rows == total + 1
    assert store.index.check() == []


def test_a_transaction_of_another_program_is_waited_for_then_named(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.set_memo("a", "b", "c")
    other = sqlite3.connect(store.index.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="another program") as caught:
        store.index.write(lambda connection: None, wait_seconds=0.1)
    assert caught.value.code == "CACHE-082"
    other.close()
    store.set_memo("a", "b", "d")


READ_ONLY = """
import os, shutil, sys
from pathlib import Path
import loguru
from organon.errors import StoreError
from organon.store.store import Store
os.setuid(65534)
store = Store(Path(sys.argv[1]))
assert store.find("runs", "f" * 64).read_json("a.json") == 1
assert store.dataset_path(sys.argv[2])
store.set_memo("a", "b", "c")
assert store.memo("a", "b") is None
assert store.link("model_ids", "f" * 64) == "ft:1"
for write in (lambda: store.put_dataset([{"b": 1}]), lambda: store.staging("runs", "0" * 64),
              lambda: store.discard("runs", "f" * 64), lambda: store.lock("runs", "0" * 64).__enter__()):
    try:
        write()
    except StoreError as error:
        assert error.code == "CACHE-081" and str(store.root) in str(error), error
        assert "ORGANON_STORE" in error.fix
    else:
        raise SystemExit("was written")
"""


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
def test_a_store_of_another_user_can_be_read_but_not_written(python: Run, tmp_path_factory: Any) -> None:
    """Case 80: a hit needs no right to write; a write says which folder and what to do."""
    import shutil
    import tempfile

    root = Path(tempfile.mkdtemp(dir="/tmp"))  # below a folder that everybody may enter
    try:
        root.chmod(0o755)
        store = Store(root / "store")
        digest, _ = store.put_dataset([{"a": 1}])
        (store.staging("runs", KEY) / "a.json").write_text("1")
        store.publish("runs", KEY, store.staging("runs", KEY))
        store.set_link("model_ids", KEY, "ft:1", backend="openai")
        done = python(READ_ONLY, str(store.root), digest)
        assert done.returncode == 0, done.stderr + done.stdout
    finally:
        shutil.rmtree(root)


def test_entries_come_in_order_of_use_and_match_the_disk(store: Store, publish: Callable[..., Any]) -> None:
    for letter in "abc":
        publish("runs", letter * 64)
    store.index.touch(store.index.row("runs/" + "a" * 64), store.clock() + 1000)  # type: ignore[arg-type]
    (store.root / "runs" / ("b" * 64)).rename(store.root / "gone")
    assert [row.ident[0][0] for row in store.index.entries()] == ["c", "a"]
