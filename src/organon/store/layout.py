"""Where each entry lies below the store's folder, and how an id becomes a safe folder name.

datasets/{hash}.jsonl                   runs/{key}/            file_ids/{backend}/{hash}.json
evals/{model id}/{suite key}/           model_ids/{key}.json   staging/ locks/ quarantine/ store.db
tokens/{key}/
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from organon.errors import unknown
from organon.store.files import TEMPORARY
from organon.store.keys import sha256_text

FolderKind = Literal["runs", "evals", "tokens"]
Ident = str | tuple[str, ...]
PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-~")
LONGEST_NAME = 120  # bytes; file systems allow 255, and suffixes are added


@dataclass(frozen=True)
class Shape:
    """How many parts an id of this kind has, the suffix of its file (none: it is a folder), the labels it needs."""

    parts: int
    suffix: str = ""
    labels: frozenset[str] = frozenset()


SHAPES: dict[str, Shape] = {
    "datasets": Shape(1, ".jsonl"),
    "runs": Shape(1),
    "evals": Shape(2),
    "tokens": Shape(1),
    "file_ids": Shape(2, ".json", frozenset({"file", "backend"})),
    "model_ids": Shape(1, ".json", frozenset({"model", "backend"})),
}


def shape(kind: str) -> Shape:
    """The shape of a kind. Raises NotFoundError for an unknown one."""
    if kind not in SHAPES:
        raise unknown("kind of store entry", kind, SHAPES, code="CACHE-087")
    return SHAPES[kind]


def parts(kind: str, ident: Ident) -> tuple[str, ...]:
    """An id as the tuple of its parts. Raises ValueError for a wrong number of them."""
    found = (ident,) if isinstance(ident, str) else tuple(ident)
    wanted = shape(kind).parts
    if len(found) != wanted or not all(found):
        raise ValueError(f"an id of {kind} has {wanted} part(s) that are not empty, got {found!r}")
    return found


def safe_name(part: str) -> str:
    """One id as one folder name that no other id has.

    Percent-encoded, so that ``:`` and ``/`` are safe. Ids that are long, start with a dot, or differ
    from another one only in case (which some file systems ignore) get a part of their sha256 added
    after ``+``, which encoding never yields.
    """
    octets = part.encode("utf-8", "surrogatepass")
    name = "".join(chr(octet) if octet in PLAIN else f"%{octet:02X}" for octet in octets)
    if part == part.lower() and len(name) <= LONGEST_NAME and not name.startswith("."):
        return name
    return f"{name[:LONGEST_NAME].lstrip('.')}+{sha256_text(ascii(part))[:12]}"


def relative(kind: str, ident: Ident) -> Path:
    """An entry's place, relative to the store's folder."""
    *folders, last = map(safe_name, parts(kind, ident))
    return Path(kind, *folders, last + shape(kind).suffix)


def lock_file(root: Path, kind: str, ident: Ident) -> Path:
    """The lock file of an entry."""
    place = relative(kind, ident)
    return root / "locks" / place.with_name(place.name + ".lock")


def places(root: Path, kind: str) -> Iterator[Path]:
    """All places of entries of a kind that are on the disk, sorted."""
    depth, suffix = shape(kind).parts, shape(kind).suffix
    for place in sorted(root.glob("/".join([kind] + ["*"] * depth))):
        if not place.name.startswith(TEMPORARY) and place.name.endswith(suffix) and place.is_dir() == (not suffix):
            yield place
