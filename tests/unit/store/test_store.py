"""The store's behaviour when nothing goes wrong: what is put in is found, by its key alone."""

from __future__ import annotations

import io
import json
import os
import stat
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from organon.errors import DataError, NotFoundError, StoreError, UserError
from organon.store import integrity, manifest
from organon.store.keys import dataset_hash, sha256_file
from organon.store.layout import relative
from organon.store.store import Store

KEY = "k" * 64


def _files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_open_takes_argument_then_environment_then_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """MO-49: the root can be set; nothing is made before the first write."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ORGANON_STORE", raising=False)
    assert Store.open().root == tmp_path / "outputs" / "store"
    monkeypatch.setenv("ORGANON_STORE", str(tmp_path / "env"))
    assert Store.open().root == tmp_path / "env"
    assert Store.open(tmp_path / "given").root == tmp_path / "given"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["s3://bucket/store", "gs://b", "memory://", "file:///tmp/x"])
def test_a_url_is_refused_with_a_clear_message(url: str) -> None:
    """MO-65."""
    with pytest.raises(UserError, match="must be a local folder") as caught:
        Store.open(url)
    assert url in str(caught.value)
    assert caught.value.exit_code == 2


def test_reading_makes_nothing(store: Store) -> None:
    """MO-49: folder and database appear on first use."""
    assert store.find("runs", KEY) is None
    assert store.find("evals", ("m", KEY)) is None
    assert store.dataset_path("a" * 64) is None
    assert store.link("model_ids", KEY) is None
    assert store.memo("n", "k") is None
    assert store.holder("runs", KEY) is None
    assert not store.root.exists()
    store.staging("runs", KEY)
    assert (store.root / "store.db").is_file()


def test_published_entry_is_found_with_its_content(store: Store, publish: Callable[..., Any]) -> None:
    """MO-51..53: runs/{key}/ holds what the run wrote."""
    files = {
        "config.json": '{"a": 1}',
        "training_run.json": "{}",
        "logs.txt": "line\n",
        "epoch_0/adapter.bin": b"\0" * 999,
    }
    made = publish("runs", KEY, files, labels={"model": "tiny", "name": "brave-otter"})
    found = store.find("runs", KEY)
    assert found is not None
    assert found == made
    assert found.path == store.root / "runs" / KEY
    assert found.read_json("config.json") == {"a": 1}
    assert found.labels["name"] == "brave-otter"
    assert _files(found.path) == {*files, "manifest.json"}
    assert {name: entry["bytes"] for name, entry in found.manifest["files"].items()}["epoch_0/adapter.bin"] == 999
    assert not list((store.root / "staging").rglob("*.json"))


def test_published_files_are_read_only(store: Store, publish: Callable[..., Any]) -> None:
    entry = publish("runs", KEY, {"a": "1", "deep/b": "2"})
    modes = {stat.S_IMODE(path.stat().st_mode) for path in entry.path.rglob("*") if path.is_file()}
    assert modes == {0o444}
    store.discard("runs", KEY)
    assert not entry.path.exists()
    assert store.index.row(f"runs/{KEY}") is None


def test_everything_is_on_the_disk_before_it_gets_its_name(
    store: Store, publish: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """K1, a power cut: files and folders are fsynced, then the rename, then the folder that holds the new name."""
    store.staging("runs", "0" * 64)
    events: list[str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(file: int) -> None:
        events.append("fsync " + str(Path(f"/proc/self/fd/{file}").readlink().relative_to(store.root)))
        real_fsync(file)

    def rename(source: Any, target: Any, **named: Any) -> None:
        events.append("rename " + str(Path(target).relative_to(store.root)))
        real_rename(source, target, **named)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    publish("runs", KEY, {"a": "1", "deep/b": "2"})
    done = events.index(f"rename runs/{KEY}")
    staging = f"fsync staging/runs/{KEY}"
    assert {f"{staging}/a", f"{staging}/deep/b", f"{staging}/deep", staging} <= set(events[:done])
    assert any(event.startswith(f"{staging}/.tmp-") for event in events[:done])  # the manifest
    assert "fsync runs" in events[done:]


def test_the_first_published_entry_stays(store: Store, publish: Callable[..., Any]) -> None:
    publish("runs", KEY, {"a": "first"})
    second = publish("runs", KEY, {"a": "second"})
    assert (second.path / "a").read_text() == "first"
    assert not (store.root / "staging" / "runs" / KEY).exists()


def test_staging_survives_and_a_half_published_one_can_be_written_again(store: Store) -> None:
    """Resume: the same folder for the same key, writable even if a crash came after it was sealed."""
    folder = store.staging("runs", KEY)
    (folder / "metrics.jsonl").write_text("1\n")
    (folder / "manifest.json").write_text("{}")
    (folder / "metrics.jsonl").chmod(0o444)
    assert Store(store.root).staging("runs", KEY) == folder
    assert stat.S_IMODE((folder / "metrics.jsonl").stat().st_mode) & 0o200
    (folder / "metrics.jsonl").write_text("1\n2\n")
    assert set(store.publish("runs", KEY, folder).manifest["files"]) == {"metrics.jsonl"}
    assert store.find("runs", KEY) is not None


def test_an_empty_or_missing_staging_folder_is_refused(store: Store) -> None:
    for folder in (store.staging("runs", KEY), store.root / "nowhere"):
        with pytest.raises(StoreError, match="empty or gone"):
            store.publish("runs", KEY, folder)
    assert store.find("runs", KEY) is None


def test_links_cannot_be_published(store: Store) -> None:
    folder = store.staging("runs", KEY)
    (folder / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(StoreError, match="not a plain file"):
        store.publish("runs", KEY, folder)


def test_unfinished_temporary_files_are_not_published(store: Store) -> None:
    folder = store.staging("runs", KEY)
    (folder / "a").write_text("1")
    (folder / ".tmp-0123").write_text("half")
    assert set(store.publish("runs", KEY, folder).manifest["files"]) == {"a"}


IDS = [
    "organon/ab",
    "organon:ab",
    "organon%2Fab",
    "a.b",
    "..",
    ".",
    "../../etc",
    "A",
    "a",
    "é",
    "x" * 500,
    "x" * 501,
    "+",
    " ",
]


def test_no_two_ids_share_a_folder_and_none_leaves_the_store(store: Store, publish: Callable[..., Any]) -> None:
    """MO-54: ids with : and / and worse are path-safe and never collide, also where case does not count."""
    places = {str(relative("evals", (model, KEY))).lower() for model in IDS}
    assert len(places) == len(IDS)
    for model in IDS:
        entry = publish("evals", (model, KEY), {"results.json": json.dumps(model)})
        assert entry.path.resolve().is_relative_to(store.root / "evals")
        assert len(entry.path.relative_to(store.root).parts) == 3
    for model in IDS:
        found = store.find("evals", (model, KEY))
        assert found is not None
        assert found.read_json("results.json") == model
        assert found.ident == (model, KEY)


def test_a_plain_model_id_gives_a_readable_folder(publish: Callable[..., Any], store: Store) -> None:
    """MO-54: evals/{model_id}/{suite key}/results.json."""
    publish("evals", ("ft:gpt-4o:org::x1", KEY), {"results.json": "{}"})
    assert (store.root / "evals" / "ft%3Agpt-4o%3Aorg%3A%3Ax1" / KEY / "results.json").is_file()


@pytest.mark.parametrize(("kind", "ident"), [("runs", ("a", "b")), ("evals", "a"), ("evals", ("a", "")), ("runs", "")])
def test_an_id_of_the_wrong_shape_is_refused(store: Store, kind: Any, ident: Any) -> None:
    with pytest.raises(ValueError, match="part"):
        store.find(kind, ident)


def test_an_unknown_kind_is_refused(store: Store) -> None:
    with pytest.raises(NotFoundError, match="Did you mean 'runs'"):
        store.find("run", KEY)  # type: ignore[arg-type]


def test_a_row_without_folder_is_a_miss_and_a_folder_without_row_a_hit(
    store: Store, publish: Callable[..., Any]
) -> None:
    for name in "ab":
        publish("runs", name * 64)
    store.discard("runs", "b" * 64)
    (store.root / "runs" / ("a" * 64)).rename(store.root / "runs" / ("c" * 64))
    assert store.find("runs", "a" * 64) is None
    (store.root / "runs" / ("c" * 64)).rename(store.root / "runs" / ("a" * 64))
    store.index.forget("runs/" + "a" * 64)
    assert store.find("runs", "a" * 64) is not None
    assert store.index.row("runs/" + "a" * 64) is not None


def test_put_dataset_writes_canonical_jsonl(store: Store) -> None:
    """MO-50, MO-46."""
    rows = [{"messages": [{"role": "user", "content": "é"}]}, {"b": 1, "a": 2}]
    digest, path = store.put_dataset(row for row in rows)
    assert digest == dataset_hash(rows)
    assert path == store.root / "datasets" / f"{digest}.jsonl" == store.dataset_path(digest)
    assert path.read_bytes() == b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    inode = path.stat().st_ino
    assert store.put_dataset(rows) == (digest, path)
    assert path.stat().st_ino == inode
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_put_dataset_needs_constant_memory(store: Store) -> None:
    store.put_dataset([{"warm": "up"}])
    row = {"text": "x" * 10_000}
    tracemalloc.start()
    store.put_dataset(row for _ in range(2_000))  # 20 MB
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6_000_000


def test_a_failing_source_of_rows_leaves_nothing_and_keeps_its_own_error(store: Store) -> None:
    def rows() -> Iterator[dict[str, int]]:
        yield {"a": 1}
        raise PermissionError("the source, not the store")

    with pytest.raises(PermissionError, match="the source"):
        store.put_dataset(rows())
    with pytest.raises(DataError, match="row 1"):
        store.put_dataset([{"a": float("nan")}])
    assert list((store.root / "datasets").iterdir()) == []


@pytest.mark.parametrize("bad", ["../../etc/passwd", "A" * 64, "", "a" * 63])
def test_a_dataset_hash_is_checked(store: Store, bad: str) -> None:
    with pytest.raises(ValueError, match="64 lower-case hex"):
        store.dataset_path(bad)


def test_failures_are_recorded_and_never_served(store: Store, publish: Callable[..., Any]) -> None:
    """DL-18."""
    store.record_failure("runs", KEY, ValueError("boom"))
    store.record_failure("runs", KEY, "cancelled")
    assert [row.error for row in store.failures("runs", KEY)] == ["ValueError: boom", "cancelled"]
    assert store.find("runs", KEY) is None
    (store.root / "store.db").unlink()
    store.index.rebuild()
    assert [row.error for row in store.failures("runs", KEY)] == ["ValueError: boom", "cancelled"]
    publish("runs", KEY)
    assert store.find("runs", KEY) is not None


def test_a_failure_line_cut_off_by_a_crash_does_not_swallow_the_next(store: Store) -> None:
    store.record_failure("runs", KEY, "one")
    path = store.staging("runs", KEY) / "failures.jsonl"
    path.write_text(path.read_text() + '{"kind": "ru')
    store.record_failure("runs", KEY, "two")
    store.index.rebuild()
    assert [row.error for row in store.failures("runs", KEY)] == ["one", "two"]


def test_memo(store: Store) -> None:
    store.set_memo("digest", "/models/tiny", "abc")
    store.set_memo("digest", "/models/tiny", "def")
    assert store.memo("digest", "/models/tiny") == "def"
    assert store.memo("other", "/models/tiny") is None


def test_lookups_log_key_level_and_hit_as_json(store: Store, publish: Callable[..., Any]) -> None:
    """DL-41: one line for each lookup, readable by a JSON sink."""
    sink = io.StringIO()
    handler = logger.add(sink, serialize=True)
    digest, _ = store.put_dataset([{"a": 1}])
    store.dataset_path(digest)
    store.find("runs", KEY)
    publish("evals", ("m", KEY))
    store.find("evals", ("m", KEY))
    logger.remove(handler)
    extras = [json.loads(line)["record"]["extra"] for line in sink.getvalue().splitlines()]
    assert [e for e in extras if "hit" in e] == [
        {"key": digest, "level": "dataset", "hit": True},
        {"key": KEY, "level": "train", "hit": False},
        {"key": KEY, "level": "eval", "hit": True},
    ]


def test_a_large_unchanged_file_is_hashed_once(
    store: Store, publish: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrity, "LARGE_BYTES", 1000)
    path = publish("runs", KEY, {"big": b"x" * 2000, "small": b"x"}).path / "big"
    os.utime(path, (1e9, 1e9))
    hashed: list[str] = []

    def count(path: Path) -> str:
        hashed.append(path.name)
        return sha256_file(path)

    monkeypatch.setattr(manifest, "sha256_file", count)
    for _ in range(3):
        assert store.find("runs", KEY)
    assert hashed.count("big") == 1
    assert hashed.count("small") == 3
    path.chmod(0o644)
    path.write_bytes(b"y" * 2000)  # a new time of change: hashed again, found damaged
    assert store.index.verified(f"runs/{KEY}").keys() == {"big"}
    assert store.find("runs", KEY) is None
    assert store.index.verified(f"runs/{KEY}") == {}


def test_last_use_is_noted_once_a_minute(tmp_path: Path) -> None:
    now = 1000.0
    store = Store(tmp_path / "store", clock=lambda: now)
    folder = store.staging("runs", KEY)
    (folder / "a").write_text("")
    store.publish("runs", KEY, folder)
    used = []
    for now in (1030.0, 1061.0, 1090.0, 1200.0):  # noqa: B007
        store.find("runs", KEY)
        row = store.index.row(f"runs/{KEY}")
        used.append(row.last_used_at if row else None)
    assert used == [1000.0, 1061.0, 1061.0, 1200.0]
