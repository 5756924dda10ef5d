"""Rows of the index: its tables, what is read from the disk into them, and how a row gets in and out."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from organon.store.layout import SHAPES, places
from organon.store.manifest import Damaged, read_entry, seconds

TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE entries (
    path TEXT PRIMARY KEY, kind TEXT NOT NULL, ident TEXT NOT NULL, bytes INTEGER NOT NULL, files INTEGER NOT NULL,
    created_at REAL NOT NULL, last_used_at REAL NOT NULL, labels TEXT NOT NULL);
CREATE TABLE verified_files (
    path TEXT PRIMARY KEY, inode INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL);
CREATE TABLE dataset_files (
    dataset_hash TEXT NOT NULL, backend TEXT NOT NULL, file_id TEXT NOT NULL, PRIMARY KEY (dataset_hash, backend));
CREATE TABLE trained_models (cache_key TEXT PRIMARY KEY, model_id TEXT NOT NULL, backend TEXT NOT NULL);
CREATE TABLE eval_results (cache_key TEXT PRIMARY KEY, results_path TEXT NOT NULL);
CREATE TABLE failures (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, ident TEXT NOT NULL, failed_at REAL NOT NULL, error TEXT NOT NULL);
CREATE TABLE memo (namespace TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (namespace, key));
"""

SELECT = "SELECT path, kind, ident, bytes, files, created_at, last_used_at, labels FROM entries"
TABLE_NAMES = set(re.findall(r"CREATE TABLE (\w+)", TABLES))


@dataclass(frozen=True)
class EntryRow:
    """One entry as the index knows it; times in seconds since the epoch."""

    path: str  # relative to the store's folder
    kind: str
    ident: tuple[str, ...]
    bytes: int
    files: int
    created_at: float
    last_used_at: float
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FailureRow:
    """One failed attempt at an entry."""

    kind: str
    ident: tuple[str, ...]
    failed_at: float
    error: str


def revive(values: tuple[Any, ...]) -> EntryRow:
    """The row from the columns of ``SELECT``."""
    path, kind, ident, size, files, created_at, last_used_at, labels = values
    return EntryRow(path, kind, tuple(json.loads(ident)), size, files, created_at, last_used_at, json.loads(labels))


def scan(root: Path) -> Iterator[EntryRow]:
    """A row for every entry on the disk whose manifest is sound; the files are not hashed."""
    for kind in SHAPES:
        for place in places(root, kind):
            row = read_row(root, str(place.relative_to(root)))
            if row:
                yield row


def read_row(root: Path, path: str) -> EntryRow | None:
    """The row of the entry at ``path``; None if it has gone or is damaged.

    Raises:
        StoreError: the entry was written by a newer organon.
    """
    try:
        return row_of(root, path, read_entry(root, path))
    except (Damaged, OSError, ValueError):
        return None


def row_of(root: Path, path: str, record: dict[str, Any]) -> EntryRow:
    """The row of the entry at ``path`` from its record."""
    files = record.get("files")
    size = (root / path).stat().st_size if files is None else sum(file["bytes"] for file in files.values())
    created_at = seconds(record["created_at"])
    count = 1 if files is None else len(files)
    return EntryRow(path, record["kind"], tuple(record["ident"]), size, count, created_at, created_at, record["labels"])


def scan_failures(root: Path) -> Iterator[FailureRow]:
    """The failed attempts written down in staging folders and in what became of them."""
    for pattern in ("staging/runs/*", "staging/evals/*/*", "runs/*", "evals/*/*"):
        for path in root.glob(f"{pattern}/failures.jsonl"):
            for line in path.read_text(errors="replace").splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):  # a line cut off by a crash
                    record = json.loads(line)
                    ident = tuple(record["ident"])
                    yield FailureRow(record["kind"], ident, seconds(record["failed_at"]), record["error"])


def insert(connection: sqlite3.Connection, row: EntryRow) -> None:
    values = (row.path, row.kind, json.dumps(row.ident), row.bytes, row.files, row.created_at, row.last_used_at)
    insert = "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
    connection.execute(insert, (*values, json.dumps(row.labels)))
    if row.kind == "evals":
        connection.execute(
            "INSERT OR REPLACE INTO eval_results VALUES (?, ?)", (row.ident[1], f"{row.path}/results.json")
        )
    elif row.kind == "file_ids":
        backend, dataset_hash = row.ident
        insert = "INSERT OR REPLACE INTO dataset_files VALUES (?, ?, ?)"
        connection.execute(insert, (dataset_hash, backend, row.labels["file"]))
    elif row.kind == "model_ids":
        insert = "INSERT OR REPLACE INTO trained_models VALUES (?, ?, ?)"
        connection.execute(insert, (row.ident[0], row.labels["model"], row.labels["backend"]))


def delete(connection: sqlite3.Connection, path: str) -> None:
    row = connection.execute("SELECT kind, ident FROM entries WHERE path = ?", (path,)).fetchone()
    if row is None:
        return
    ident = json.loads(row[1])
    mirrors: dict[str, tuple[str, Iterable[str]]] = {
        "evals": ("DELETE FROM eval_results WHERE cache_key = ?", ident[1:]),
        "file_ids": ("DELETE FROM dataset_files WHERE backend = ? AND dataset_hash = ?", ident),
        "model_ids": ("DELETE FROM trained_models WHERE cache_key = ?", ident),
    }
    if row[0] in mirrors:
        statement, values = mirrors[row[0]]
        connection.execute(statement, tuple(values))
    connection.execute("DELETE FROM entries WHERE path = ?", (path,))
    connection.execute("DELETE FROM verified_files WHERE substr(path, 1, ?) = ?", (len(path) + 1, f"{path}/"))


def insert_failure(connection: sqlite3.Connection, row: FailureRow) -> None:
    insert = "INSERT INTO failures (kind, ident, failed_at, error) VALUES (?, ?, ?, ?)"
    connection.execute(insert, (row.kind, json.dumps(row.ident), row.failed_at, row.error))
