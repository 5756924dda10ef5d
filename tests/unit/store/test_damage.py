"""C1, case 78: whatever happens to a file of the store, it is found before use, put aside and rebuilt."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from organon.errors import StoreError
from organon.store.files import replace_file
from organon.store.manifest import MANIFEST, STORE_SCHEMA, seal_record
from organon.store.store import Store

KEY = "d" * 64
OTHER = "e" * 64
FILES = {"results.json": '{"accuracy": 0.9}', "adapter/weights.bin": bytes(range(256)) * 40, "empty.txt": ""}


def _overwrite(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def flip_bit(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    _overwrite(path, bytes(data))


def truncate(path: Path, rng: random.Random) -> None:
    _overwrite(path, path.read_bytes()[: rng.randrange(path.stat().st_size)])


def zero_page(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    start = rng.randrange(len(data))
    length = min(4096, len(data) - start)
    zeroed = data[:start] + bytes(length) + data[start + length :]
    _overwrite(path, zeroed if zeroed != data else data + b"\0")


def append(path: Path, rng: random.Random) -> None:
    _overwrite(path, path.read_bytes() + rng.choice([b"\n", b" ", b"\0", b"x"]))


def remove(path: Path, rng: random.Random) -> None:
    path.unlink()


def make_folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def make_link(path: Path, rng: random.Random) -> None:
    copy = path.with_name("copy")
    path.rename(copy)
    path.symlink_to(copy)


WAYS = [flip_bit, truncate, zero_page, append, remove, make_folder, make_link]
TARGETS = ["results.json", "adapter/weights.bin", MANIFEST]
CASES = [(way, target, seed) for way, target in itertools.product(WAYS, TARGETS) for seed in range(3)]
# A link to the manifest's own bytes is the same manifest.
CASES = [case for case in CASES if case[:2] != (make_link, MANIFEST)]


@pytest.mark.parametrize(("way", "target", "seed"), CASES, ids=[f"{w.__name__}-{t}-{s}" for w, t, s in CASES])
def test_damage_to_an_entry_is_found(
    store: Store,
    publish: Callable[..., Any],
    warnings_in: Callable[[], list[str]],
    way: Callable[..., None],
    target: str,
    seed: int,
) -> None:
    """C1: 60 cases over three files, the manifest among them."""
    entry = publish("runs", KEY, FILES)
    way(entry.path / target, random.Random(seed))
    found = store.find("runs", KEY)
    assert found is None
    assert [p.name.startswith("runs-") for p in (store.root / "quarantine").iterdir()] == [True]
    (warning,) = warnings_in()
    assert "CACHE-078" in warning
    assert str(entry.path / target) in warning
    again = publish("runs", KEY, FILES)
    assert store.find("runs", KEY) == again
    assert len(warnings_in()) == 1


def test_there_are_sixty_cases() -> None:
    assert len(CASES) == 60


def test_the_warning_has_path_and_both_hashes(
    store: Store, publish: Callable[..., Any], warnings_in: Callable[[], list[str]]
) -> None:
    """C1."""
    entry = publish("runs", KEY, {"a": "right"})
    _overwrite(entry.path / "a", b"wrong")
    assert store.find("runs", KEY) is None
    (warning,) = warnings_in()
    expected = entry.manifest["files"]["a"]["sha256"]
    assert expected in warning
    assert hashlib.sha256(b"wrong").hexdigest() in warning
    assert str(store.root / "quarantine") in warning


def test_swapped_files_and_swapped_entries_are_found(store: Store, publish: Callable[..., Any]) -> None:
    """C1: equal sizes, intact contents, wrong places."""
    first, second = publish("runs", KEY, {"a": "1", "b": "2"}), publish("runs", OTHER, {"a": "3"})
    first.path.rename(store.root / "x")
    second.path.rename(first.path)
    (store.root / "x").rename(second.path)
    assert store.find("runs", KEY) is None
    assert store.find("runs", OTHER) is None
    entry = publish("runs", KEY, {"a": "1", "b": "2"})
    for name in ("a", "b"):
        (entry.path / name).rename(entry.path / f"{name}.tmp")
    (entry.path / "a.tmp").rename(entry.path / "b")
    (entry.path / "b.tmp").rename(entry.path / "a")
    assert store.find("runs", KEY) is None


MANIFESTS: list[Any] = [
    [],
    {},
    {"files": []},
    {"files": {"a": {"bytes": "1", "sha256": "0" * 64}}},
    {"files": {"a": {"bytes": 1, "sha256": "0"}}},
    {"files": {"a": 1}},
    {"files": {"../a": {"bytes": 1, "sha256": "0" * 64}}},
    {"files": {"/etc/passwd": {"bytes": 1, "sha256": "0" * 64}}},
    {"kind": 1},
    {"kind": "nothing"},
    {"ident": KEY},
    {"ident": [KEY, "more"]},
    {"ident": []},
    {"labels": {"a": 1}},
    {"created_at": "yesterday"},
    {"created_at": 7},
]


@pytest.mark.parametrize("change", MANIFESTS, ids=str)
def test_a_manifest_of_other_types_is_damage_even_with_a_right_checksum(
    store: Store, publish: Callable[..., Any], change: Any
) -> None:
    """C1: wrong-type metadata."""
    entry = publish("runs", KEY, {"a": "1"})
    manifest = {name: value for name, value in entry.manifest.items() if name != "schema_version"}
    data = seal_record({**manifest, **change}) if change else json.dumps(change).encode()
    replace_file(entry.path / MANIFEST, data)
    assert store.find("runs", KEY) is None
    assert not entry.path.exists()
    store.index.rebuild()  # does not stumble over it either
    assert store.index.entries() == []


@pytest.mark.parametrize("data", [b"", b"null", b"{", b"\xff\xfe", b"[" * 100_000, b'{"checksum": "x"}'])
def test_a_manifest_that_is_no_record_is_damage(store: Store, publish: Callable[..., Any], data: bytes) -> None:
    entry = publish("evals", ("m", KEY))
    replace_file(entry.path / MANIFEST, data)
    assert store.find("evals", ("m", KEY)) is None


@pytest.mark.parametrize("way", [flip_bit, truncate, zero_page, append, remove, make_folder, make_link])
def test_damage_to_a_dataset_is_found(store: Store, log: Any, way: Callable[..., None]) -> None:
    """C1, case 78."""
    rows = [{"text": str(i)} for i in range(50)]
    digest, path = store.put_dataset(rows)
    way(path, random.Random(0))
    assert store.dataset_path(digest) is None
    assert store.put_dataset(rows) == (digest, path)
    assert store.dataset_path(digest) == path


def test_a_damaged_dataset_is_replaced_by_putting_it_again(store: Store, warnings_in: Callable[[], list[str]]) -> None:
    digest, path = store.put_dataset([{"a": 1}])
    _overwrite(path, b"junk")
    assert store.put_dataset([{"a": 1}]) == (digest, path)
    assert path.read_bytes() == b'{"a": 1}\n'
    assert len(warnings_in()) == 1


@pytest.mark.parametrize("way", [flip_bit, truncate, zero_page, append])
def test_a_damaged_link_is_healed_from_the_index(store: Store, way: Callable[..., None]) -> None:
    """Rule 6: a record of something paid for is never taken for absent."""
    store.set_link("model_ids", KEY, "ft:gpt", backend="openai")
    way(store.place("model_ids", KEY), random.Random(1))
    assert store.link("model_ids", KEY) == "ft:gpt"
    assert store.link("model_ids", KEY) == "ft:gpt"
    assert len(list((store.root / "quarantine").iterdir())) == 1


def test_a_damaged_link_to_a_model_that_the_index_lost_is_an_error_every_time(store: Store) -> None:
    """Rule 6: a miss would pay for the training again."""
    store.set_link("model_ids", KEY, "ft:gpt", backend="openai")
    truncate(store.place("model_ids", KEY), random.Random(1))
    store.index.rebuild()
    for _ in range(2):
        with pytest.raises(StoreError, match="note on a trained model is damaged") as caught:
            store.link("model_ids", KEY)
    assert "look the model up" in caught.value.fix
    store.set_link("file_ids", ("openai", "a" * 64), "file-1", backend="openai")
    truncate(store.place("file_ids", ("openai", "a" * 64)), random.Random(1))
    store.index.rebuild()
    assert store.link("file_ids", ("openai", "a" * 64)) is None


@pytest.mark.parametrize("change", [{"labels": {}}, {"labels": {"model": "m"}}, {"files": {}}, {"ident": [KEY, "x"]}])
def test_a_link_of_another_shape_is_damage(store: Store, change: dict[str, Any]) -> None:
    store.set_link("model_ids", KEY, "ft:gpt", backend="openai")
    record = {"kind": "model_ids", "ident": [KEY], "labels": {"model": "m", "backend": "b"}}
    record["created_at"] = "2026-01-01T00:00:00+00:00"
    replace_file(store.place("model_ids", KEY), seal_record({**record, **change}))
    store.index.rebuild()
    with pytest.raises(StoreError, match="damaged"):
        store.link("model_ids", KEY)


def test_links_swapped_on_disk_are_found(store: Store) -> None:
    for key, model in ((KEY, "one"), (OTHER, "two")):
        store.set_link("model_ids", key, model, backend="openai")
    one, two = store.place("model_ids", KEY), store.place("model_ids", OTHER)
    data = one.read_bytes()
    replace_file(one, two.read_bytes())
    replace_file(two, data)
    assert (store.link("model_ids", KEY), store.link("model_ids", OTHER)) == ("one", "two")


def test_an_entry_rebuilt_meanwhile_is_not_put_aside(
    store: Store, publish: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes find the same damage: the slower one leaves the other's new entry alone."""
    from organon.store import integrity

    entry = publish("runs", KEY, {"a": "1"})
    _overwrite(entry.path / "a", b"2")
    real = integrity.quarantine

    def late(index: Any, path: str, inode: int, damage: Any) -> None:
        monkeypatch.setattr(integrity, "quarantine", real)
        shutil.move(entry.path, store.root / "aside")  # the faster process
        publish("runs", KEY, {"a": "1"})
        real(index, path, inode, damage)

    monkeypatch.setattr(integrity, "quarantine", late)
    store.find("runs", KEY)
    assert store.find("runs", KEY) is not None


def test_damage_in_a_store_that_cannot_be_written_is_still_a_miss(
    store: Store, publish: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, warnings_in: Callable[[], list[str]]
) -> None:
    """Case 80: read-only; nothing is served, and the warning says that it could not be moved."""
    entry = publish("runs", KEY, {"a": "1"})
    _overwrite(entry.path / "a", b"2")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "rename", refuse)
    monkeypatch.setattr(Path, "rename", refuse)
    assert store.find("runs", KEY) is None
    assert "cannot be moved away (Read-only file system)" in warnings_in()[0]


def test_a_manifest_of_a_newer_schema_is_refused_not_put_aside(
    store: Store, publish: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """C7."""
    from organon.store import manifest

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "STORE_SCHEMA", STORE_SCHEMA + 1)
        data = manifest.seal_record({"kind": "runs", "ident": [KEY], "labels": {}, "files": {}})
    entry = publish("runs", KEY, {"a": "1"})
    replace_file(entry.path / MANIFEST, data)
    with pytest.raises(StoreError, match=f"schema version {STORE_SCHEMA + 1}") as caught:
        store.find("runs", KEY)
    assert caught.value.code == "CACHE-080"
    assert entry.path.exists()
