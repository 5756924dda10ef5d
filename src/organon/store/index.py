"""The index: one SQLite file that answers "what is there, how big, when last used" without a walk.

It is a cache of the manifests and can be deleted at any time. Each operation opens its own
connection (none is ever shared between threads or over a fork) and passes a turnstile: SQLite
before 3.51.3 starves writers and, in WAL mode, can lose a commit that meets a checkpoint
(sqlite.org/wal.html), so the journal mode is TRUNCATE.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from organon.errors import StoreError
from organon.store import rows
from organon.store.files import TEMPORARY, disk_error, report_disk_errors, sync_file, sync_folder
from organon.store.layout import SHAPES, places
from organon.store.locks import turnstile
from organon.store.manifest import STORE_SCHEMA, FileStamp, newer_schema
from organon.store.rows import EntryRow, FailureRow

INDEX = "store.db"
WAIT_SECONDS = 30.0  # for another program that has the index open in a transaction
TOUCH_SECONDS = 60.0  # a use within this time of the last one is not written down
T = TypeVar("T")


class Index:
    """The index of the store in ``root``; makes and repairs itself, see the module's docstring."""

    def __init__(self, root: Path) -> None:
        self.root, self.path = root, root / INDEX

    def check_version(self) -> None:
        """Refuse an index that a newer organon wrote, without opening it: opening could write to it.

        Raises:
            StoreError: CACHE-080.
        """
        try:
            with self.path.open("rb") as file:
                header = file.read(64)
        except OSError:
            return
        version = int.from_bytes(header[60:64], "big")  # user_version, sqlite.org/fileformat.html
        if header.startswith(b"SQLite format 3\0") and version > STORE_SCHEMA:
            raise newer_schema(self.path, version)

    def ensure(self) -> None:
        """Make the index if there is none, from the manifests if there are any."""
        self.check_version()
        if not self.path.exists():
            self._rebuild()

    def write(self, work: Callable[[sqlite3.Connection], T], *, wait_seconds: float = WAIT_SECONDS) -> T:
        """Run ``work`` in one write transaction; a damaged index is first rebuilt.

        Raises:
            StoreError: the index is newer, locked by another program, or cannot be written.
        """
        self.ensure()
        try:
            return self._write_once(work, wait_seconds)
        except sqlite3.DatabaseError as error:
            if self.path.exists() and not _is_damage(error):
                raise self._as_store_error(error) from error
            self._rebuild(damage=error)
        try:
            return self._write_once(work, wait_seconds)
        except sqlite3.DatabaseError as error:
            raise self._as_store_error(error) from error

    def read(self, work: Callable[[sqlite3.Connection], T], default: T) -> T:
        """Run ``work``, which only reads; ``default`` where there is no readable index."""
        self.check_version()
        if not self.path.exists():
            return default
        try:
            with self._turnstile(shared=True), self._connection(WAIT_SECONDS) as connection:
                return work(connection)
        except (sqlite3.DatabaseError, OSError) as error:
            _log_unreadable(self.path, error)
            return default

    def add(self, row: EntryRow) -> None:
        """Insert or replace an entry's row."""
        self.write(lambda connection: rows.insert(connection, row))

    def touch(self, row: EntryRow, now: float) -> None:
        """Note a use of an entry at ``now``; adds the row if the index lacks it.

        A store that cannot be written is still good to read from, so no error comes out of here
        but that of a newer index.
        """
        known = self.row(row.path)
        if known and abs(now - known.last_used_at) < TOUCH_SECONDS:
            return

        def work(connection: sqlite3.Connection) -> None:
            update = "UPDATE entries SET last_used_at = ? WHERE path = ?"
            if connection.execute(update, (now, row.path)).rowcount == 0:
                rows.insert(connection, replace(row, last_used_at=now))

        self._attempt(work)

    def forget(self, path: str) -> None:
        """Delete an entry's row, if there is one.

        On a full disk the row stays, and the files can still go: a row without files is a miss.
        """
        if self.row(path):
            self._attempt(lambda connection: rows.delete(connection, path))

    def row(self, path: str) -> EntryRow | None:
        """The row of one entry; ``path`` as in ``EntryRow``."""
        found: Any = self.read(lambda c: c.execute(f"{rows.SELECT} WHERE path = ?", (path,)).fetchone(), None)
        return None if found is None else rows.revive(found)

    def entries(self) -> list[EntryRow]:
        """All rows, oldest use first; first brought in line with what is on the disk."""
        self._reconcile()
        query = f"{rows.SELECT} ORDER BY last_used_at, path"
        found: list[Any] = self.read(lambda c: c.execute(query).fetchall(), [])
        return [rows.revive(values) for values in found]

    def verified(self, path: str) -> dict[str, tuple[FileStamp, str]]:
        """The large files of an entry that were hashed before: ``{relative path: (stamp, sha256)}``."""
        query = "SELECT path, inode, mtime_ns, bytes, sha256 FROM verified_files WHERE substr(path, 1, ?) = ?"
        prefix = f"{path}/"
        found: list[Any] = self.read(lambda c: c.execute(query, (len(prefix), prefix)).fetchall(), [])
        return {r[0][len(prefix) :]: (FileStamp(*r[1:4]), r[4]) for r in found}

    def set_verified(self, path: str, files: dict[str, tuple[FileStamp, str]]) -> None:
        """Note that files of an entry were hashed; lost without harm if the store cannot be written."""
        values = [(f"{path}/{n}", s.inode, s.mtime_ns, s.bytes, sha256) for n, (s, sha256) in files.items()]
        insert = "INSERT OR REPLACE INTO verified_files VALUES (?, ?, ?, ?, ?)"
        self._attempt(lambda connection: connection.executemany(insert, values))

    def memo(self, namespace: str, key: str) -> str | None:
        """A value noted by ``set_memo``."""
        query = "SELECT value FROM memo WHERE namespace = ? AND key = ?"
        row = self.read(lambda c: c.execute(query, (namespace, key)).fetchone(), None)
        return None if row is None else str(row[0])

    def set_memo(self, namespace: str, key: str, value: str) -> None:
        """Note a value that can be computed again: the index may be rebuilt without it."""
        self.write(lambda c: c.execute("INSERT OR REPLACE INTO memo VALUES (?, ?, ?)", (namespace, key, value)))

    def add_failure(self, row: FailureRow) -> None:
        """Add a failed attempt."""
        self.write(lambda connection: rows.insert_failure(connection, row))

    def failures(self, kind: str, ident: tuple[str, ...]) -> list[FailureRow]:
        """The failed attempts at an entry, oldest first."""
        query = "SELECT failed_at, error FROM failures WHERE kind = ? AND ident = ? ORDER BY failed_at, id"
        found: list[Any] = self.read(lambda c: c.execute(query, (kind, json.dumps(ident))).fetchall(), [])
        return [FailureRow(kind, ident, at, error) for at, error in found]

    def check(self) -> list[str]:
        """What SQLite's own integrity check finds; empty when the index is sound or absent."""
        if not self.path.exists():
            return []
        found = self.read(lambda c: c.execute("PRAGMA integrity_check").fetchall(), [("unreadable",)])
        return [r[0] for r in found if r[0] != "ok"]

    def rebuild(self) -> int:
        """Make the index anew from the manifests; how many entries it has then."""
        self.check_version()
        return self._rebuild(wanted=True)

    # -- how it is done ---------------------------------------------------------------------------

    def _attempt(self, work: Callable[[sqlite3.Connection], Any]) -> None:
        try:
            self.write(work, wait_seconds=1.0)
        except StoreError as error:
            if error.code == "CACHE-080":
                raise
            _log_unreadable(self.path, error)

    def _write_once(self, work: Callable[[sqlite3.Connection], T], wait_seconds: float) -> T:
        with self._turnstile(), self._connection(wait_seconds) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return result

    @contextlib.contextmanager
    def _turnstile(self, *, shared: bool = False) -> Iterator[None]:
        path = self.root / "locks" / "index.lock"
        if shared and not path.exists():  # a store that was copied, and perhaps cannot be written
            yield
            return
        with contextlib.ExitStack() as stack:
            with report_disk_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(turnstile(path, shared=shared))
            yield

    @contextlib.contextmanager
    def _connection(self, wait_seconds: float) -> Iterator[sqlite3.Connection]:
        place = f"{self.path.absolute().as_uri()}?mode=rw"  # never creates
        opened = sqlite3.connect(place, timeout=wait_seconds, isolation_level=None, uri=True)
        with contextlib.closing(opened) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > STORE_SCHEMA:
                raise newer_schema(self.path, version)
            if version < STORE_SCHEMA:
                raise _Outdated(f"schema version {version}")
            connection.execute("PRAGMA journal_mode = TRUNCATE")
            yield connection

    def _rebuild(self, *, damage: Exception | None = None, wanted: bool = False) -> int:
        """Write a new index file and put it in place, unless another process was faster."""
        started = time.monotonic()
        with self._turnstile():
            if not wanted and self._is_sound():
                return 0
            fresh = self.root / f"{TEMPORARY}{secrets.token_hex(8)}"
            try:
                count = self._fill(fresh)
                existed = self._put_in_place(fresh)
            finally:
                fresh.unlink(missing_ok=True)
        if existed or count:
            _log_rebuilt(self.path, count, time.monotonic() - started, damage)
        return count

    def _is_sound(self) -> bool:
        try:
            with self._connection(WAIT_SECONDS) as connection:
                tables = {r[0] for r in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
                whole = tables >= rows.TABLE_NAMES
                return whole and connection.execute("PRAGMA quick_check").fetchone()[0] == "ok"
        except sqlite3.DatabaseError as error:
            if _is_damage(error) or not self.path.exists():
                return False
            raise self._as_store_error(error) from error

    def _fill(self, path: Path) -> int:
        """A new index file at ``path`` with a row for every readable manifest."""
        try:
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = MEMORY")  # nobody else sees this file yet
                connection.executescript(f"BEGIN; {rows.TABLES} PRAGMA user_version = {STORE_SCHEMA};")
                connection.execute("INSERT INTO meta VALUES ('schema_version', ?)", (str(STORE_SCHEMA),))
                count = 0
                for row in rows.scan(self.root):
                    rows.insert(connection, row)
                    count += 1
                for failure in rows.scan_failures(self.root):
                    rows.insert_failure(connection, failure)
                connection.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise self._as_store_error(error) from error
        with report_disk_errors(path):
            sync_file(path)
        return count

    def _put_in_place(self, fresh: Path) -> bool:
        """Rename ``fresh`` to the index; whether there was one before (kept in quarantine)."""
        existed = self.path.exists()
        with report_disk_errors(self.path):
            if existed:
                aside = self.root / "quarantine" / f"{INDEX}-{secrets.token_hex(4)}"
                aside.parent.mkdir(exist_ok=True)
                self.path.rename(aside)
            # A journal of the old file would be played back into the new one.
            for suffix in ("-journal", "-wal", "-shm"):
                self.path.with_name(INDEX + suffix).unlink(missing_ok=True)
            # A link never replaces what another process made meanwhile, where locks do not work.
            try:
                os.link(fresh, self.path)
            except FileExistsError:
                pass
            except OSError:  # a file system without hard links
                fresh.rename(self.path)
            sync_folder(self.root)
        return existed

    def _reconcile(self) -> None:
        """Add entries that are on the disk only, drop rows whose entry is gone."""
        if not self.root.is_dir():
            return
        listed: list[str] = self.read(lambda c: [r[0] for r in c.execute("SELECT path FROM entries")], [])
        known = set(listed)
        there = {str(place.relative_to(self.root)) for kind in SHAPES for place in places(self.root, kind)}
        missing = [row for row in (rows.read_row(self.root, path) for path in there - known) if row]
        if missing or known - there:

            def work(connection: sqlite3.Connection) -> None:
                for row in missing:
                    rows.insert(connection, row)
                for path in known - there:
                    rows.delete(connection, path)

            self._attempt(work)

    def _as_store_error(self, error: sqlite3.DatabaseError) -> StoreError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return StoreError(
                f"{error}: another program keeps a transaction open",
                code="CACHE-082",
                where=str(self.path),
                fix="close the program that has the file open, then run the same command again",
            )
        return disk_error(OSError(None, f"SQLite: {error}"), self.path)


class _Outdated(sqlite3.DatabaseError):
    """The index has no tables or those of an older organon."""


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    damage = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_SCHEMA)
    return isinstance(error, _Outdated) or code in damage


def _log_unreadable(path: Path, error: Exception) -> None:
    from loguru import logger

    logger.debug("the index {} is left as it is: {}", path, error)


def _log_rebuilt(path: Path, count: int, elapsed: float, damage: Exception | None) -> None:
    from loguru import logger

    reason = f"it was damaged: {damage}" if damage else "there was none"
    logger.warning("CACHE-079 index {} rebuilt from {} manifests in {:.1f} s ({})", path, count, elapsed, reason)
