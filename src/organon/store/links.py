"""Links: the ids that vendors gave to an uploaded dataset or a trained model, one small file each.

A link to a trained model stands for money. It is therefore never taken for absent because it is damaged.
"""

from __future__ import annotations

from typing import Literal

from organon.errors import StoreError
from organon.store.files import report_disk_errors, write_atomic
from organon.store.index import Index
from organon.store.integrity import quarantine
from organon.store.layout import Ident, parts, relative
from organon.store.manifest import Damaged, read_entry, seal_record, timestamp
from organon.store.rows import row_of

LinkKind = Literal["file_ids", "model_ids"]
TARGETS = {"file_ids": "file", "model_ids": "model"}  # the label that holds the id pointed to


def write_link(index: Index, kind: LinkKind, ident: Ident, target: str, *, backend: str, now: float) -> None:
    """Note the id ``target`` that ``backend`` gave; replaces an earlier one."""
    identity, path = parts(kind, ident), relative(kind, ident)
    place = index.root / path
    labels = {TARGETS[kind]: target, "backend": backend}
    body = {"kind": kind, "ident": list(identity), "labels": labels, "created_at": timestamp(now)}
    with report_disk_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(place, seal_record(body), read_only=True)
    index.add(row_of(index.root, str(path), body))


def read_link(index: Index, kind: LinkKind, ident: Ident, *, now: float) -> str | None:
    """The id noted by ``write_link``; a damaged note is written again from the index.

    Raises:
        StoreError: the note on a trained model is damaged and the index does not know it (CACHE-078).
    """
    path = str(relative(kind, ident))
    index.check_version()
    try:
        with report_disk_errors(index.root / path, action="read"):
            return check_link(index, path)
    except Damaged as damage:
        return _heal(index, kind, ident, damage, now)


def check_link(index: Index, path: str) -> str | None:
    """The id noted at ``path``; raises Damaged."""
    try:
        record = read_entry(index.root, path)
    except FileNotFoundError:
        index.forget(path)
        return None
    return str(record["labels"][TARGETS[record["kind"]]])


def _heal(index: Index, kind: LinkKind, ident: Ident, damage: Damaged, now: float) -> str | None:
    path = str(relative(kind, ident))
    row = index.row(path)
    if row is None and kind == "model_ids":
        raise StoreError(
            f"the note on a trained model is damaged: expected {damage.expected}, found {damage.found}",
            code="CACHE-078",
            where=str(index.root / path),
            fix="look the model up at its vendor and set it again, or delete the file to train it again",
        ) from damage
    quarantine(index, path, (index.root / path).stat().st_ino, damage)
    if row is None:
        return None
    target = row.labels[TARGETS[kind]]
    write_link(index, kind, ident, target, backend=row.labels["backend"], now=now)
    return target
