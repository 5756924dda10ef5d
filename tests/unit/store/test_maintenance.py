"""DL-39, DL-40: list, stats, verify, clear and prune."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from organon.errors import NotFoundError
from organon.store import maintenance
from organon.store.store import Store


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Store:
    return Store(tmp_path / "store", clock=clock)


@pytest.fixture
def filled(store: Store, publish: Callable[..., Any], clock: Clock) -> Store:
    """Three runs of 1,000 bytes a day apart, evaluations of two models, a dataset, links."""
    for number, letter in enumerate("abc"):
        clock.now += 86_400
        publish("runs", letter * 64, {"w": b"x" * 1000}, labels={"model": "tiny", "name": f"otter-{number}"})
    publish("evals", ("organon/" + "a" * 64, "1" * 64), {"results.json": b"x" * 100})
    publish("evals", ("gpt", "2" * 64), {"results.json": b"x" * 100})
    digest, _ = store.put_dataset([{"a": 1}])
    store.set_link("file_ids", ("openai", digest), "file-1", backend="openai")
    store.set_link("model_ids", "m" * 64, "gpt", backend="openai")
    return store


def _idents(rows: Any) -> list[str]:
    return [f"{row.kind}:{row.ident[-1][0]}" for row in rows]


def test_list_by_kind_and_by_model(filled: Store) -> None:
    """DL-39."""
    assert _idents(maintenance.list_entries(filled, "runs")) == ["runs:a", "runs:b", "runs:c"]
    assert _idents(maintenance.list_entries(filled, model="gpt")) == ["evals:2", "model_ids:m"]
    assert sorted(_idents(maintenance.list_entries(filled, model="organon/" + "a" * 64))) == ["evals:1", "runs:a"]
    assert sorted(_idents(maintenance.list_entries(filled, model="a" * 64))) == ["evals:1", "runs:a"]
    assert _idents(maintenance.list_entries(filled, model="otter-1")) == ["runs:b"]
    assert len(maintenance.list_entries(filled, "runs", "tiny")) == 3
    assert len(maintenance.list_entries(filled)) == 8
    with pytest.raises(NotFoundError, match="unknown kind"):
        maintenance.list_entries(filled, "models")


def test_stats(filled: Store) -> None:
    """DL-39."""
    counts = maintenance.stats(filled)
    assert counts["runs"] == {"entries": 3, "bytes": 3000}
    assert counts["evals"] == {"entries": 2, "bytes": 200}
    assert counts["datasets"] == {"entries": 1, "bytes": 9}
    assert counts["total"]["entries"] == 8
    assert counts["total"]["bytes"] == sum(counts[kind]["bytes"] for kind in counts if kind != "total")


def test_an_empty_store_has_nothing_and_is_not_made(store: Store) -> None:
    assert maintenance.list_entries(store) == []
    assert maintenance.stats(store)["total"] == {"entries": 0, "bytes": 0}
    assert maintenance.verify(store).ok
    assert maintenance.clear(store).removed == []
    assert maintenance.prune(store, 0, 0, stale_staging_seconds=0, quarantine=True).removed == []
    assert not store.root.exists()


def test_verify_finds_every_damage_and_says_so_in_json(filled: Store) -> None:
    """C1, DL-39."""
    report = maintenance.verify(filled)
    assert report.ok
    assert report.checked == 8
    for place in ("runs/" + "a" * 64 + "/w", "evals/gpt/" + "2" * 64 + "/results.json"):
        (filled.root / place).chmod(0o644)
        (filled.root / place).write_bytes(b"y" * 1000)
    (path,) = (filled.root / "datasets").iterdir()
    path.chmod(0o644)
    path.write_text("{}")
    link = filled.place("model_ids", "m" * 64)
    link.chmod(0o644)
    link.write_text("{}")
    report = maintenance.verify(filled)
    assert not report.ok
    assert len(report.damaged) == 4
    assert json.loads(json.dumps(report.to_dict()))["ok"] is False
    assert filled.link("model_ids", "m" * 64) == "gpt"  # not thrown away, but healed
    assert maintenance.verify(filled).ok


def test_verify_hashes_also_what_a_read_would_trust(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flipped bit under an unchanged time and size: found by verify, whatever the file's size."""
    from organon.store import integrity

    monkeypatch.setattr(integrity, "LARGE_BYTES", 10)
    path = filled.root / "runs" / ("a" * 64) / "w"
    os.utime(path, (1e9, 1e9))
    assert filled.find("runs", "a" * 64)
    path.chmod(0o644)
    path.write_bytes(b"y" * 1000)
    os.utime(path, (1e9, 1e9))
    assert maintenance.verify(filled, "runs").damaged == ["runs/" + "a" * 64]


def test_verify_repairs_the_index(filled: Store) -> None:
    data = bytearray(filled.index.path.read_bytes())
    data[4096 * 2 :] = bytes(len(data) - 4096 * 2)
    filled.index.path.write_bytes(bytes(data))
    assert maintenance.verify(filled).index_problems
    assert maintenance.verify(filled).ok
    assert len(maintenance.list_entries(filled)) == 8


def test_clear_by_kind_and_by_model_deletes_files_and_rows(filled: Store) -> None:
    """DL-39."""
    planned = maintenance.clear(filled, "runs", dry_run=True)
    assert len(planned.removed) == 3
    assert filled.find("runs", "a" * 64)
    report = maintenance.clear(filled, "runs")
    assert sorted(_idents(report.removed)) == ["runs:a", "runs:b", "runs:c"]
    assert report.bytes == 3000
    assert list((filled.root / "runs").iterdir()) == []
    assert list((filled.root / "locks" / "runs").iterdir()) == []
    assert _idents(maintenance.clear(filled, model="gpt").removed) == ["evals:2", "model_ids:m"]
    assert filled.link("model_ids", "m" * 64) is None
    assert filled.index.read(lambda c: c.execute("SELECT count(*) FROM trained_models").fetchone(), None) == (0,)
    assert json.dumps(report.to_dict())
    assert len(maintenance.clear(filled).removed) == 3
    assert maintenance.list_entries(filled) == []


def test_prune_by_size_drops_the_least_recently_used(filled: Store, clock: Clock) -> None:
    """DL-40: below the limit, files gone too; a use counts."""
    clock.now += 3600
    filled.find("runs", "a" * 64)
    report = maintenance.prune(filled, max_bytes=2300)
    assert _idents(report.removed) == ["runs:b"]
    kept = maintenance.list_entries(filled)
    assert sum(row.bytes for row in kept if row.kind in maintenance.PRUNED_KINDS) <= 2300
    assert not (filled.root / "runs" / ("b" * 64)).exists()
    assert filled.find("runs", "a" * 64)
    assert filled.find("runs", "c" * 64)


def test_prune_by_age(filled: Store, clock: Clock) -> None:
    """DL-40."""
    clock.now += 3600
    assert _idents(maintenance.prune(filled, max_age_seconds=1.5 * 86_400, dry_run=True).removed) == ["runs:a"]
    assert _idents(maintenance.prune(filled, max_age_seconds=1.5 * 86_400).removed) == ["runs:a"]


def test_prune_never_drops_links_or_what_is_to_be_kept(filled: Store, publish: Callable[..., Any]) -> None:
    publish("runs", "k" * 64, labels={"keep": "promoted"})
    maintenance.prune(filled, max_bytes=0)
    assert sorted(_idents(maintenance.list_entries(filled))) == [
        f"file_ids:{maintenance.list_entries(filled, 'file_ids')[0].ident[-1][0]}",
        "model_ids:m",
        "runs:k",
    ]


def test_nothing_in_use_is_removed(filled: Store) -> None:
    """DL-40: an entry whose lock is held stays; a dataset stays while any run is going on."""
    with filled.lock("runs", "a" * 64):
        report = maintenance.prune(filled, max_bytes=0)
        assert "runs:a" not in _idents(report.removed)
        assert not [row for row in report.removed if row.kind == "datasets"]
        report = maintenance.clear(filled)
        assert sorted(row.kind for row in report.in_use) == ["datasets", "runs"]
        assert sorted(row.kind for row in maintenance.list_entries(filled)) == ["datasets", "runs"]
    assert len(maintenance.clear(filled).removed) == 2


def test_tokens_are_an_entry_like_others(store: Store, publish: Callable[..., Any]) -> None:
    """Listed, counted, verified, cleared and pruned; kept while a run is going on, which may be reading them."""
    publish("tokens", "t" * 64, {"ids.bin": "x" * 100}, labels={"model": "tiny"})
    assert _idents(maintenance.list_entries(store, "tokens")) == ["tokens:t"]
    assert maintenance.stats(store)["tokens"] == {"entries": 1, "bytes": 100}
    assert (maintenance.verify(store, "tokens").checked, maintenance.verify(store).ok) == (1, True)
    with store.lock("runs", "r" * 64):
        assert _idents(maintenance.clear(store, "tokens").in_use) == ["tokens:t"]
        assert maintenance.prune(store, max_bytes=0).removed == []
    assert _idents(maintenance.clear(store, "tokens", "tiny", dry_run=True).removed) == ["tokens:t"]
    assert _idents(maintenance.prune(store, max_bytes=0).removed) == ["tokens:t"]
    assert store.find("tokens", "t" * 64) is None
    (store.staging("tokens", "u" * 64) / "ids.bin").write_text("half")
    assert maintenance.prune(store, stale_staging_seconds=-1).leftovers == [f"staging/tokens/{'u' * 64}"]


def test_prune_removes_what_crashes_left_behind(filled: Store) -> None:
    """K2: orphans go, unfinished work that is young or locked stays."""
    stale, young, held = (filled.staging("runs", letter * 64) for letter in "xyz")
    for folder in (stale, young, held):
        (folder / "f").write_text("123")
    orphan = filled.root / "datasets" / ".tmp-0123"
    orphan.write_text("half")
    aside = filled.root / "quarantine" / "runs-x"
    aside.mkdir(parents=True)
    for path in (stale / "f", stale, held / "f", held, orphan):
        os.utime(path, (1e9, 1e9))
    with filled.lock("runs", "z" * 64):
        report = maintenance.prune(filled, stale_staging_seconds=86_400, dry_run=True)
        assert sorted(report.leftovers) == ["datasets/.tmp-0123", "staging/runs/" + "x" * 64]
        assert stale.exists()
        report = maintenance.prune(filled, stale_staging_seconds=86_400)
    assert report.bytes == 7
    assert [path.exists() for path in (stale, young, held, orphan, aside)] == [False, True, True, False, True]
    maintenance.prune(filled, quarantine=True)
    assert not aside.exists()
    assert len(maintenance.list_entries(filled)) == 8


def test_a_reader_never_sees_half_of_an_entry_being_removed(
    filled: Store, monkeypatch: pytest.MonkeyPatch, log: list[dict[str, Any]]
) -> None:
    """Deleting is a rename, then the files: a crash or a reader in between finds a plain miss."""
    from organon.store import store as module

    monkeypatch.setattr(module, "remove_tree", lambda folder: None)  # killed right after the rename
    filled.discard("runs", "a" * 64)
    assert filled.find("runs", "a" * 64) is None
    assert not [record for record in log if "CACHE-078" in record["message"]]
