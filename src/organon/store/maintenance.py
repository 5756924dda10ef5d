"""Looking after a store: list, count, verify, clear and prune its entries (``organon cache ...``)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from organon.store.files import TEMPORARY, remove_tree, report_disk_errors
from organon.store.integrity import intact_record
from organon.store.layout import SHAPES, lock_file, places, shape
from organon.store.links import TARGETS, check_link
from organon.store.locks import LockBusy, holder
from organon.store.manifest import Damaged
from organon.store.rows import EntryRow
from organon.store.store import Store

PRUNED_KINDS = ("runs", "evals", "datasets", "tokens")  # links are tiny and stand for money
KEEP = "keep"  # the label of entries that are never pruned


@dataclass
class Verification:
    """What ``verify`` found; ``damaged`` and ``unreadable`` name places relative to the store."""

    checked: int = 0
    bytes: int = 0
    damaged: list[str] = field(default_factory=list)
    index_problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return not self.damaged and not self.index_problems

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        return {**asdict(self), "ok": self.ok}


@dataclass
class Removal:
    """What ``clear`` or ``prune`` deleted (or would, with ``dry_run``), and what it left because it is in use."""

    removed: list[EntryRow] = field(default_factory=list)
    in_use: list[EntryRow] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)  # staging and quarantine, relative to the store
    bytes: int = 0  # freed

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        return asdict(self)


def list_entries(store: Store, kind: str | None = None, model: str | None = None) -> list[EntryRow]:
    """The entries of a kind (``datasets runs evals tokens file_ids model_ids``) and of a model, oldest use first.

    An entry is of ``model`` if that is the model evaluated, its ``model`` label, or the run's own key, with
    or without ``organon/`` before it.
    """
    if kind is not None:
        shape(kind)
    found = store.index.entries()
    return [row for row in found if (kind is None or row.kind == kind) and (model is None or _is_of(row, model))]


def _is_of(row: EntryRow, model: str) -> bool:
    names = {row.labels.get("model")}
    if row.kind == "evals":
        names.add(row.ident[0])
    if row.kind == "runs":
        names |= {row.ident[0], row.labels.get("name")}
    return bool({model, model.removeprefix("organon/"), f"organon/{model}"} & names)


def stats(store: Store) -> dict[str, dict[str, int]]:
    """Number of entries and bytes of each kind, and in ``total``."""
    found = list_entries(store)
    counts = {
        kind: {"entries": sum(r.kind == kind for r in found), "bytes": sum(r.bytes for r in found if r.kind == kind)}
        for kind in SHAPES
    }
    return {**counts, "total": {"entries": len(found), "bytes": sum(row.bytes for row in found)}}


def verify(store: Store, kind: str | None = None) -> Verification:
    """Hash every file of every entry again; damaged entries go to quarantine. Rebuilds a damaged index."""
    started, report = time.monotonic(), Verification()
    report.index_problems = store.index.check()
    if report.index_problems:
        store.index.rebuild()
    for name in SHAPES if kind is None else [kind]:
        for place in places(store.root, name):
            report.bytes += _size(place)
            report.checked += 1
            path = str(place.relative_to(store.root))
            if not _is_sound(store, path):
                report.damaged.append(path)
    report.seconds = time.monotonic() - started
    return report


def clear(store: Store, kind: str | None = None, model: str | None = None, *, dry_run: bool = False) -> Removal:
    """Delete all entries of a kind and of a model (see ``list_entries``), but those in use."""
    return _remove(store, list_entries(store, kind, model), dry_run=dry_run)


def prune(
    store: Store,
    max_bytes: int | None = None,
    max_age_seconds: float | None = None,
    *,
    stale_staging_seconds: float | None = None,
    quarantine: bool = False,
    dry_run: bool = False,
) -> Removal:
    """Delete the entries unused for ``max_age_seconds``, then the least recently used down to ``max_bytes``.

    Never an entry in use or with the label ``keep``. ``stale_staging_seconds`` also deletes unfinished
    work that nobody has touched for so long, ``quarantine`` all that was put aside as damaged.
    """
    found = [row for row in list_entries(store) if row.kind in PRUNED_KINDS]
    now, size, chosen = store.clock(), sum(row.bytes for row in found), []
    for row in found:  # least recently used first
        too_old = max_age_seconds is not None and now - row.last_used_at > max_age_seconds
        too_much = max_bytes is not None and size > max_bytes
        if (too_old or too_much) and not row.labels.get(KEEP) and not _in_use(store, row):
            chosen.append(row)
            size -= row.bytes
    report = _remove(store, chosen, dry_run=dry_run)
    for leftover in _leftovers(store, stale_staging_seconds, quarantine):
        report.leftovers.append(str(leftover.relative_to(store.root)))
        report.bytes += _size(leftover)
        if not dry_run:
            with report_disk_errors(leftover, action="delete"):
                remove_tree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
    return report


def _remove(store: Store, chosen: Iterable[EntryRow], *, dry_run: bool) -> Removal:
    report = Removal()
    for row in chosen:
        if _in_use(store, row):
            report.in_use.append(row)
            continue
        try:
            if not dry_run:
                _remove_one(store, row)
        except LockBusy:  # taken since we looked
            report.in_use.append(row)
            continue
        report.removed.append(row)
        report.bytes += row.bytes
    return report


def _remove_one(store: Store, row: EntryRow) -> None:
    with store.lock(row.kind, row.ident, blocking=False):
        store.discard(row.kind, row.ident)
        lock_file(store.root, row.kind, row.ident).unlink(missing_ok=True)  # whoever waits for it looks again


def _in_use(store: Store, row: EntryRow) -> bool:
    """Whether somebody holds its lock. A dataset and its tokens are also in use while any run is: it may need them."""
    needed_by_runs = row.kind in ("datasets", "tokens")
    if needed_by_runs and any(holder(path) for path in (store.root / "locks" / "runs").glob("*.lock")):
        return True
    return store.holder(row.kind, row.ident) is not None


def _leftovers(store: Store, stale_seconds: float | None, quarantine: bool) -> Iterator[Path]:
    if quarantine:
        yield from sorted((store.root / "quarantine").glob("*"))
    if stale_seconds is None:
        return
    limit = time.time() - stale_seconds
    unfinished = [("runs", "staging/runs/*"), ("evals", "staging/evals/*/*"), ("tokens", "staging/tokens/*")]
    for kind, pattern in unfinished:
        for folder in sorted(store.root.glob(pattern)):
            lock = store.root / "locks" / kind / folder.relative_to(store.root / "staging" / kind)
            if _last_change(folder) < limit and holder(lock.with_name(lock.name + ".lock")) is None:
                yield folder
    for pattern in (f"{TEMPORARY}*", f"*/{TEMPORARY}*", f"file_ids/*/{TEMPORARY}*"):
        yield from (path for path in sorted(store.root.glob(pattern)) if _last_change(path) < limit)


def _is_sound(store: Store, path: str) -> bool:
    if Path(path).parts[0] not in TARGETS:
        return intact_record(store.index, path, trust_stamps=False) is not None
    try:
        check_link(store.index, path)
    except Damaged:
        return False
    return True


def _last_change(path: Path) -> float:
    inside = path.rglob("*") if path.is_dir() else []
    with contextlib.suppress(FileNotFoundError):
        return max(part.lstat().st_mtime for part in [path, *inside])
    return time.time()  # it changes just now


def _size(place: Path) -> int:
    inside = place.rglob("*") if place.is_dir() else [place]
    with contextlib.suppress(FileNotFoundError):
        return sum(part.lstat().st_size for part in inside if part.is_file())
    return 0
