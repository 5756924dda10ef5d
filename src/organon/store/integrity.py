"""Is an entry what it was when it was published? What is not goes to quarantine, never away."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any

from organon.store.files import report_disk_errors
from organon.store.index import Index
from organon.store.manifest import Damaged, FileStamp, check_files, read_entry

LARGE_BYTES = 64 * 2**20  # above this, an unchanged file is not hashed again
SETTLED_SECONDS = 2.0  # a file younger than this may change again within the same tick of its clock


def intact_record(index: Index, path: str, *, trust_stamps: bool = True) -> dict[str, Any] | None:
    """The record of the entry at ``path`` once every file was compared with its sha256; None if there is none.

    A damaged one is moved to ``quarantine/``. Without ``trust_stamps`` unchanged large files are hashed too.

    Raises:
        StoreError: it was made by a newer organon (CACHE-080), or this user may not read it (CACHE-081).
    """
    place = index.root / path
    index.check_version()
    with report_disk_errors(place, action="read"):
        try:
            inode = place.stat().st_ino
        except (FileNotFoundError, NotADirectoryError):
            index.forget(path)
            return None
        try:
            record = read_entry(index.root, path)
            _hash(index, path, record.get("files", {}), trust_stamps)
        except Damaged as damage:
            quarantine(index, path, inode, damage)
            return None
        except FileNotFoundError:  # deleted while we looked at it
            return None
    return record


def quarantine(index: Index, path: str, inode: int, damage: Damaged) -> None:
    """Move a damaged entry aside and say so; not if another process has built it anew (``inode``)."""
    from loguru import logger

    place = index.root / path
    aside = index.root / "quarantine" / f"{Path(path).parts[0]}-{place.name}-{secrets.token_hex(4)}"
    fate = f"moved to {aside}"
    try:
        if place.stat().st_ino != inode:
            return
        aside.parent.mkdir(exist_ok=True)
        place.rename(aside)
    except FileNotFoundError:
        return
    except OSError as error:
        fate = f"cannot be moved away ({error.strerror})"
    else:
        index.forget(path)
    logger.warning(
        "CACHE-078 {} is damaged: expected {}, found {}; {}, it counts as not there",
        damage.path,
        damage.expected,
        damage.found,
        fate,
    )


def _hash(index: Index, path: str, files: dict[str, Any], trust_stamps: bool) -> None:
    """Compare files with their sha256; a large one only if it changed since the last time."""
    earlier: dict[str, tuple[FileStamp, str]] | None = None

    def known(name: str, stamp: FileStamp) -> str | None:
        nonlocal earlier
        if stamp.bytes <= LARGE_BYTES or not trust_stamps:
            return None
        earlier = index.verified(path) if earlier is None else earlier
        before, sha256 = earlier.get(name, (None, None))
        return sha256 if before == stamp else None

    found = check_files(index.root / path, files, known)
    settled_ns = (time.time() - SETTLED_SECONDS) * 1e9
    new = {
        name: (stamp, sha256)
        for name, (stamp, sha256) in found.items()
        if stamp.bytes > LARGE_BYTES and stamp.mtime_ns < settled_ns and known(name, stamp) is None
    }
    if new:
        index.set_verified(path, new)
