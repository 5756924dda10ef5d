"""The manifest of an entry: which files it has, with size and sha256, and what it is an entry of.

Manifests are the truth of the store; the index is rebuilt from them. A manifest carries its own
checksum, so that damage to it is found like damage to any file.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from organon.errors import StoreError
from organon.store.files import TEMPORARY
from organon.store.keys import canonical, is_sha256, sha256_file, sha256_text
from organon.store.layout import relative, shape

STORE_SCHEMA = 1  # of manifests, records and the index
MANIFEST = "manifest.json"


class Damaged(Exception):
    """A file of the store is not what it was when it was written. Never leaves the store."""

    def __init__(self, path: Path, expected: str, found: str) -> None:
        super().__init__(f"{path}: expected {expected}, found {found}")
        self.path, self.expected, self.found = path, expected, found


@dataclass(frozen=True)
class FileStamp:
    """What changes when a file's content does, short of reading it."""

    inode: int
    mtime_ns: int
    bytes: int


Known = Callable[[str, FileStamp], str | None]  # sha256 of a file whose stamp was hashed before


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """``{relative path: {bytes, sha256}}`` of all files below ``folder`` but its manifest.

    Left-over temporary files are deleted.

    Raises:
        StoreError: for a link, socket or other thing that is not a plain file.
    """
    files: dict[str, dict[str, Any]] = {}
    for parent, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = Path(parent, name)
            mode = path.lstat().st_mode
            if name.startswith(TEMPORARY):
                path.unlink()
            elif stat.S_ISREG(mode) and path != folder / MANIFEST:
                files[path.relative_to(folder).as_posix()] = {
                    "bytes": path.stat().st_size,
                    "sha256": sha256_file(path),
                }
            elif not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
                raise StoreError(
                    "is not a plain file, so it cannot be stored",
                    code="CACHE-086",
                    where=str(path),
                    fix="write a copy instead of a link",
                )
    return files


def seal_record(body: Mapping[str, Any]) -> bytes:
    """``body`` as the bytes of a JSON file that carries its own checksum and schema version."""
    full = {**body, "schema_version": STORE_SCHEMA}
    return _render({**full, "checksum": sha256_text(canonical(full))})


def read_record(path: Path) -> dict[str, Any]:
    """The body of a file written by ``seal_record``.

    Raises:
        Damaged: any byte differs from what was written.
        StoreError: it was written by a newer organon (CACHE-080).
        OSError: it cannot be read.
    """
    data = path.read_bytes()
    try:
        record = json.loads(data)
        checksum = record.pop("checksum")
        expected = sha256_text(canonical(record))
        intact = checksum == expected and data == _render({**record, "checksum": checksum})
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        raise Damaged(path, "a sealed JSON record", f"{type(error).__name__}: {error}") from error
    if not intact:
        raise Damaged(path, f"checksum {checksum}", expected)
    if record["schema_version"] > STORE_SCHEMA:
        raise newer_schema(path, record["schema_version"])
    return dict(record)


def read_entry(root: Path, path: str) -> dict[str, Any]:
    """The record of the entry at ``path`` below ``root``: its manifest, the link itself, or a dataset's name.

    Raises:
        Damaged: it is not what was written, or not the entry that belongs there.
        FileNotFoundError: there is no such entry.
    """
    place = root / path
    kind = place.relative_to(root).parts[0]
    if kind == "datasets":
        return _dataset_record(place)
    file = place if shape(kind).suffix else place / MANIFEST
    try:
        record = read_record(file)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        if place.exists():
            raise Damaged(file, "a record of the entry", "none") from error
        raise FileNotFoundError(errno.ENOENT, "no such entry", str(place)) from error
    whole = _is_record(record) and (file != place) == ("files" in record)
    if not whole or not shape(kind).labels <= record["labels"].keys():
        raise Damaged(file, "a record of an entry", "fields of other types")
    try:
        belongs = str(relative(record["kind"], tuple(record["ident"])))
    except ValueError as error:
        raise Damaged(file, f"the entry {path}", str(error)) from error
    if belongs != path:
        raise Damaged(file, f"the entry {path}", f"the entry {belongs}")
    return record


def _dataset_record(place: Path) -> dict[str, Any]:
    found, digest = place.stat(), place.stem
    files = {"": {"sha256": digest, "bytes": found.st_size}}
    return {
        "kind": "datasets",
        "ident": [digest],
        "labels": {},
        "created_at": timestamp(found.st_mtime),
        "files": files,
    }


def check_files(place: Path, files: Mapping[str, Any], known: Known | None = None) -> dict[str, tuple[FileStamp, str]]:
    """Compare files below ``place`` with a manifest's ``files``; returns their stamps and sha256.

    ``known`` may tell the sha256 of a file whose stamp has not changed since it was hashed.

    Raises:
        Damaged: a file is missing, or differs in size or sha256.
    """
    return {name: _check_file(place / name, name, expected, known) for name, expected in files.items()}


def _check_file(path: Path, name: str, expected: Mapping[str, Any], known: Known | None) -> tuple[FileStamp, str]:
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise Damaged(path, f"sha256 {expected['sha256']}", "not a plain file")
        stamp = FileStamp(found.st_ino, found.st_mtime_ns, found.st_size)
        actual = (known(name, stamp) if known else None) or sha256_file(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Damaged(path, f"sha256 {expected['sha256']}", "no file") from error
    if actual != expected["sha256"] or stamp.bytes != expected.get("bytes", stamp.bytes):
        raise Damaged(path, f"sha256 {expected['sha256']}", f"sha256 {actual} ({stamp.bytes:,} bytes)")
    return stamp, actual


def newer_schema(path: Path, version: Any) -> StoreError:
    """The refusal of a store that a newer organon wrote."""
    return StoreError(
        f"made by store schema version {version}, this organon knows version {STORE_SCHEMA}; nothing was changed",
        code="CACHE-080",
        where=str(path),
        fix="`pip install --upgrade organon`, or set ORGANON_STORE to another folder",
    )


def timestamp(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def seconds(timestamp_text: str) -> float:
    """The inverse of ``timestamp``."""
    return datetime.fromisoformat(timestamp_text).timestamp()


def _render(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n").encode("ascii")


def _is_record(value: Mapping[str, Any]) -> bool:
    ident, labels, files = value.get("ident"), value.get("labels"), value.get("files", {})
    return (
        isinstance(value.get("kind"), str)
        and _is_time(value.get("created_at"))
        and isinstance(ident, list)
        and isinstance(labels, dict)
        and all(isinstance(part, str) for part in [*ident, *labels, *labels.values()])
        and isinstance(files, dict)
        and all(_is_file(name, entry) for name, entry in files.items())
    )


def _is_time(value: Any) -> bool:
    try:
        return isinstance(value, str) and seconds(value) >= 0
    except ValueError:
        return False


def _is_file(name: str, entry: Any) -> bool:
    path = PurePosixPath(name)
    return (
        not path.is_absolute()
        and ".." not in path.parts
        and isinstance(entry, dict)
        and type(entry.get("bytes")) is int
        and isinstance(entry.get("sha256"), str)
        and is_sha256(entry["sha256"])
    )
