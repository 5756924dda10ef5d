"""The content-addressed store: what is in it is complete, unchanged and found by its key.

Work in progress lies in a staging folder of its own. Publishing hashes and fsyncs it, renames it to
its final place and only then writes the index row, so that a folder that exists is complete. Every
read compares all files with their sha256; what is damaged goes to ``quarantine/`` and counts as
not there. See docs/architecture.md, section 4.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from organon.errors import StoreError, UserError
from organon.store import locks
from organon.store.files import (
    READ_ONLY,
    TEMPORARY,
    append_line,
    disk_error,
    remove_tree,
    replace_file,
    report_disk_errors,
    seal,
    sync_file,
    sync_folder,
    temporary,
    write_atomic,
    write_lines,
)
from organon.store.index import Index
from organon.store.integrity import intact_record
from organon.store.keys import is_sha256, jsonl_lines
from organon.store.layout import FolderKind, Ident, lock_file, parts, relative
from organon.store.links import LinkKind, read_link, write_link
from organon.store.locks import LockBusy, LockInfo
from organon.store.manifest import MANIFEST, STORE_SCHEMA, describe_files, seal_record, timestamp
from organon.store.rows import EntryRow, FailureRow, row_of

__all__ = ["Entry", "LockBusy", "LockInfo", "Store", "write_atomic"]

LEVELS = {
    "datasets": "dataset",
    "file_ids": "dataset",
    "tokens": "tokens",
    "runs": "train",
    "model_ids": "train",
    "evals": "eval",
}


@dataclass(frozen=True)
class Entry:
    """A published folder whose files were found intact."""

    kind: str
    ident: tuple[str, ...]
    path: Path
    manifest: dict[str, Any]

    @property
    def key(self) -> str:
        """The last part of the id: the key of a run or of a suite."""
        return self.ident[-1]

    @property
    def labels(self) -> dict[str, str]:
        """What ``publish`` was told for people to find the entry by: model, name ..."""
        return dict(self.manifest["labels"])

    def read_json(self, name: str) -> Any:
        """The content of one of its JSON files. Raises FileNotFoundError for a name it does not have."""
        return json.loads((self.path / name).read_text())


class Store:
    """The store in the folder ``root``, made on the first write. Safe to share between threads and processes."""

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.root = root.expanduser().absolute()
        self.clock = clock  # seconds since the epoch
        self.index = Index(self.root)
        self._handed_out: dict[Path, int] = {}  # staging folder -> its inode

    @classmethod
    def open(cls, root: str | Path | None = None) -> Store:
        """The store in ``root``, else in ``$ORGANON_STORE``, else in ``./outputs/store``.

        Raises:
            UserError: ``root`` is a URL.
            StoreError: a newer organon made it (CACHE-080).
        """
        place = str(root or os.environ.get("ORGANON_STORE") or Path("outputs", "store"))
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", place):
            raise UserError(
                f"the store must be a local folder, got the URL '{place}'",
                code="CACHE-083",
                where="store",
                fix="give a path, such as outputs/store; mount or sync remote storage to a folder",
            )
        store = cls(Path(place))
        store.index.check_version()
        return store

    def place(self, kind: str, ident: Ident) -> Path:
        """Where an entry lies once it is published."""
        return self.root / relative(kind, ident)

    # -- datasets ---------------------------------------------------------------------------------

    def put_dataset(self, rows: Iterable[Any]) -> tuple[str, Path]:
        """Store rows as canonical JSONL, in constant memory; their hash and the file.

        Raises:
            DataError: a row cannot be written as JSON.
            StoreError: the disk is full or not writable.
        """
        self._prepare()
        folder = self.root / "datasets"
        with contextlib.ExitStack() as stack:
            with report_disk_errors(folder):
                folder.mkdir(exist_ok=True)
                file, path = stack.enter_context(temporary(folder))
            digest, size = write_lines(file, jsonl_lines(rows), folder)
            place = self.place("datasets", digest)
            if self._dataset_row(digest) is None:
                with report_disk_errors(place, size):
                    seal(file)
                    path.replace(place)
                    sync_folder(folder)
        now = self.clock()
        self.index.touch(EntryRow(f"datasets/{place.name}", "datasets", (digest,), size, 1, now, now), now)
        return digest, place

    def dataset_path(self, dataset_hash: str) -> Path | None:
        """The file of a dataset whose content was found to have this hash; None if there is none."""
        row = self._dataset_row(dataset_hash)
        _log_lookup("datasets", dataset_hash, row is not None)
        if row is None:
            return None
        self.index.touch(row, self.clock())
        return self.root / row.path

    def _dataset_row(self, dataset_hash: str) -> EntryRow | None:
        """The row of a dataset that is there and intact."""
        if not is_sha256(dataset_hash):
            raise ValueError(f"a dataset hash is 64 lower-case hex digits, got {dataset_hash!r}")
        path = str(relative("datasets", dataset_hash))
        record = intact_record(self.index, path)
        return None if record is None else row_of(self.root, path, record)

    # -- folders: runs, evals and tokens --------------------------------------------------------------------

    def staging(self, kind: FolderKind, ident: Ident) -> Path:
        """The entry's own folder for work in progress. It survives crashes: what is in it can be resumed."""
        self._prepare()
        folder = self.root / "staging" / relative(kind, ident)
        with report_disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if (folder / MANIFEST).exists():  # an attempt that died while it published
                _reopen(folder)
            self._handed_out[folder] = folder.stat().st_ino
        return folder

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A staging folder that nobody else has; deleted at the end unless published."""
        self._prepare()
        folder = self.root / "staging" / f"{TEMPORARY}{secrets.token_hex(8)}"
        with report_disk_errors(folder):
            folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            remove_tree(folder)

    def publish(
        self, kind: FolderKind, ident: Ident, staging_folder: Path, *, labels: dict[str, str] | None = None
    ) -> Entry:
        """Make a finished staging folder the entry ``ident``; its files become read-only.

        Close all its files first. If the entry exists already, that one stays and ours is dropped.
        ``labels`` (``model``, ``name`` ...) are for people to find it by; an entry with the label
        ``keep`` is never pruned.

        Raises:
            StoreError: the disk is full or not writable, or the folder holds a link. The staging
                folder is then still there, and the same call can be made again.
        """
        identity, place = parts(kind, ident), self.place(kind, ident)
        self._prepare()
        for _ in range(3):
            existing = self._intact(kind, identity)
            if existing:
                self._throw_away(staging_folder)
                return existing
            if not self._is_ours(staging_folder):
                continue
            manifest = self._move(kind, identity, staging_folder, place, labels or {})
            if manifest:
                self._handed_out.pop(staging_folder, None)
                self.index.add(row_of(self.root, str(relative(kind, ident)), manifest))
                return Entry(kind, identity, place, manifest)
        raise StoreError(
            "the staging folder is empty or gone, or another process has made it anew",
            code="CACHE-088",
            where=str(staging_folder),
            fix="run the same command again; do not delete the staging folder of a running command",
        )

    def find(self, kind: FolderKind, ident: Ident) -> Entry | None:
        """The entry, after every file was compared with its sha256; None if there is none.

        A damaged entry is moved to ``quarantine/`` with a warning and counts as not there.

        Raises:
            StoreError: made by a newer organon (CACHE-080), or not readable for this user (CACHE-081).
        """
        identity = parts(kind, ident)
        entry = self._intact(kind, identity)
        _log_lookup(kind, identity[-1], entry is not None)
        return entry

    def discard(self, kind: str, ident: Ident) -> None:
        """Delete an entry: first its index row, then its files, which vanish at once for readers."""
        place, path = self.place(kind, ident), str(relative(kind, ident))
        self.index.check_version()
        self.index.forget(path)
        with report_disk_errors(place, action="delete"):
            self._throw_away(place)

    def _throw_away(self, path: Path) -> None:
        """Delete a file or folder by renaming it first: nobody sees, or publishes, a part of it."""
        trash = self.root / "staging" / f"{TEMPORARY}{secrets.token_hex(8)}"
        with contextlib.suppress(FileNotFoundError):
            trash.parent.mkdir(parents=True, exist_ok=True)
            path.rename(trash)
            sync_folder(path.parent)
            trash.unlink() if trash.is_file() else remove_tree(trash)

    def _is_ours(self, staging: Path) -> bool:
        """Whether it is still the folder that ``staging`` gave us, which matters where locks do not work."""
        expected = self._handed_out.get(staging)
        try:
            return expected is None or staging.stat().st_ino == expected
        except FileNotFoundError:
            return False

    def _move(
        self, kind: str, ident: tuple[str, ...], staging: Path, place: Path, labels: dict[str, str]
    ) -> dict[str, Any] | None:
        """Seal ``staging`` and rename it to ``place``; None when another process was faster."""
        needed = None
        try:
            files = describe_files(staging)
            if not files:
                return None
            body = {"kind": kind, "ident": list(ident), "labels": labels, "created_at": timestamp(self.clock())}
            manifest = {**body, "files": files, "schema_version": STORE_SCHEMA}
            sealed = seal_record(manifest)
            needed = len(sealed)
            for name in files:
                sync_file(staging / name)
            replace_file(staging / MANIFEST, sealed)
            for parent, _, names in os.walk(staging, topdown=False):
                for name in names:
                    Path(parent, name).chmod(READ_ONLY)
                sync_folder(Path(parent))
            place.parent.mkdir(parents=True, exist_ok=True)
            staging.rename(place)
            sync_folder(place.parent)
            sync_folder(place.parent.parent)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                return None
            raise disk_error(error, place, needed) from error
        return manifest

    def _intact(self, kind: str, ident: tuple[str, ...]) -> Entry | None:
        path = str(relative(kind, ident))
        manifest = intact_record(self.index, path)
        if manifest is None:
            return None
        self.index.touch(row_of(self.root, path, manifest), self.clock())
        return Entry(kind, ident, self.root / path, manifest)

    # -- links: ids that a vendor gave ----------------------------------------------------------------

    def link(self, kind: LinkKind, ident: Ident) -> str | None:
        """The id noted by ``set_link``; None if there is none.

        Raises:
            StoreError: the note on a trained model is damaged and the index does not know it either. It
                is never taken for "not trained yet", which would pay for the training again.
        """
        target = read_link(self.index, kind, ident, now=self.clock())
        _log_lookup(kind, parts(kind, ident)[-1], target is not None)
        return target

    def set_link(self, kind: LinkKind, ident: Ident, target: str, *, backend: str) -> None:
        """Note the id that ``backend`` gave to a dataset's file or a trained model; replaces an earlier one."""
        self._prepare()
        write_link(self.index, kind, ident, target, backend=backend, now=self.clock())

    # -- locks, failures, notes ------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(
        self,
        kind: str,
        ident: Ident,
        *,
        blocking: bool = True,
        timeout_seconds: float | None = None,
        on_wait: Callable[[LockInfo | None], None] | None = None,
    ) -> Iterator[LockInfo]:
        """Hold the entry's lock during the block, to do its work once; see ``locks.hold``.

        Raises:
            LockBusy: it is held, and ``blocking`` is false or ``timeout_seconds`` have passed.
        """
        self._prepare()
        path = lock_file(self.root, kind, ident)
        with locks.hold(path, blocking=blocking, timeout_seconds=timeout_seconds, on_wait=on_wait) as info:
            yield info

    def holder(self, kind: str, ident: Ident) -> LockInfo | None:
        """Who works on an entry now; None when nobody does."""
        return locks.holder(lock_file(self.root, kind, ident))

    def record_failure(self, kind: FolderKind, ident: Ident, error: BaseException | str) -> None:
        """Write down a failed or cancelled attempt: in its staging folder and in the index. Never a result."""
        text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        row = FailureRow(kind, parts(kind, ident), self.clock(), text)
        record = {"kind": kind, "ident": row.ident, "failed_at": timestamp(row.failed_at), "error": text}
        path = self.staging(kind, ident) / "failures.jsonl"
        with report_disk_errors(path):
            append_line(path, json.dumps(record).encode())
        self.index.add_failure(row)

    def failures(self, kind: FolderKind, ident: Ident) -> list[FailureRow]:
        """The failed attempts at an entry, oldest first."""
        return self.index.failures(kind, parts(kind, ident))

    def memo(self, namespace: str, key: str) -> str | None:
        """A value noted by ``set_memo``."""
        return self.index.memo(namespace, key)

    def set_memo(self, namespace: str, key: str, value: str) -> None:
        """Note a value that is slow to compute, such as a model folder's digest.

        Notes are lost when the index is rebuilt, and not taken in a store that cannot be written.
        """
        try:
            self.index.set_memo(namespace, key, value)
        except StoreError as error:
            if error.code != "CACHE-081":
                raise
            _log_not_noted(namespace, key, error)

    # -- how it is done --------------------------------------------------------------------------------

    def _prepare(self) -> None:
        self.index.check_version()
        with report_disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        self.index.ensure()


def _log_lookup(kind: str, key: str, hit: bool) -> None:
    from loguru import logger

    level = LEVELS[kind]
    logger.bind(key=key, level=level, hit=hit).info("cache {} ({}) {}", "hit" if hit else "miss", level, key[:12])


def _log_not_noted(namespace: str, key: str, error: StoreError) -> None:
    from loguru import logger

    logger.debug("not noted: {} of {}: {}", namespace, key, error.cause)


def _reopen(folder: Path) -> None:
    """Make a sealed staging folder writable again. Its manifest stays: it may just be published elsewhere."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            path.chmod(path.stat().st_mode | 0o200)
