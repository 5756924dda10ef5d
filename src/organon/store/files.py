"""Writing files so that a crash, a full disk or a second writer never leaves half a file.

Every write goes to a uniquely named temporary file in the target folder, is fsynced and then
renamed. Readers therefore see the old content or the new, never a part of either.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from organon.errors import StoreError

TEMPORARY = ".tmp-"  # prefix of unfinished files; whoever finds one may delete it
READ_ONLY = 0o444
CHUNK_BYTES = 2**20  # lines are written in pieces of this size
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_PERMISSION = (errno.EROFS, errno.EACCES, errno.EPERM)


def write_atomic(path: Path, data: bytes | str, *, read_only: bool = False) -> None:
    """Make ``path`` hold exactly ``data`` (text as UTF-8), or leave it as it was.

    The folder must exist. With ``read_only`` the file gets mode 0444.

    Raises:
        StoreError: the file cannot be written; names the path, the free and the needed bytes.
    """
    content = data.encode() if isinstance(data, str) else data
    with report_disk_errors(path, len(content)):
        replace_file(path, content, read_only=read_only)


def replace_file(path: Path, content: bytes, *, read_only: bool = False) -> None:
    """``write_atomic`` with the bare OSError."""
    with temporary(path.parent) as (file, name):
        write_all(file, content)
        seal(file, read_only=read_only)
        name.replace(path)
        sync_folder(path.parent)


@contextlib.contextmanager
def temporary(folder: Path) -> Iterator[tuple[int, Path]]:
    """A new empty file in ``folder``: its descriptor and path. Removed at the end unless renamed."""
    path = folder / f"{TEMPORARY}{secrets.token_hex(8)}"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        yield file, path
    finally:
        os.close(file)
        path.unlink(missing_ok=True)


def write_all(file: int, data: bytes) -> None:
    """Write all of ``data``: a nearly full disk takes less than it was given, without an error."""
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]


def seal(file: int, *, read_only: bool = True) -> None:
    """Force a descriptor's content to the disk, optionally forbidding later writes."""
    if read_only:
        os.fchmod(file, READ_ONLY)
    os.fsync(file)


def sync_file(path: Path) -> None:
    """Force a file's content to the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def sync_folder(folder: Path) -> None:
    """Force a folder's names to the disk, so that a rename in it survives a power cut."""
    sync_file(folder)


def remove_tree(folder: Path) -> None:
    """Delete a folder of the store and all below it, if it is there."""
    import shutil  # brings four compression libraries along

    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def free_bytes(path: Path) -> int | None:
    """Free bytes on the disk of ``path`` or of its nearest existing parent."""
    for place in (path, *path.parents):
        with contextlib.suppress(OSError):
            found = os.statvfs(place)
            return found.f_bavail * found.f_frsize
    return None


@contextlib.contextmanager
def report_disk_errors(path: Path, needed_bytes: int | None = None, *, action: str = "write") -> Iterator[None]:
    """Turn an OSError inside the block into a StoreError that tells where, why and how to go on."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, path, needed_bytes, action=action) from error


def disk_error(error: OSError, path: Path, needed_bytes: int | None = None, *, action: str = "write") -> StoreError:
    """The StoreError for a failed ``action`` on ``path``."""
    free = free_bytes(path.parent)
    room = "" if free is None else f"; {free:,} bytes free"
    room += "" if needed_bytes is None else f", {needed_bytes:,} bytes needed"
    return StoreError(
        f"cannot {action}: {error.strerror or error}{room}", code="CACHE-081", where=str(path), fix=_fix(error.errno)
    )


def _fix(code: int | None) -> str:
    again = "or set ORGANON_STORE to another folder; then run the same command again"
    if code in NO_ROOM:
        return f"free space (`organon cache prune --max-bytes ...`) {again}"
    if code in NO_PERMISSION:
        return f"give this user access to the folder {again}"
    return f"check the disk and the folder {again}"


def write_lines(file: int, lines: Iterable[bytes], path: Path) -> tuple[str, int]:
    """Write lines in large pieces; their sha256 and size in bytes."""
    digest, size, piece = hashlib.sha256(), 0, bytearray()

    def flush() -> None:
        nonlocal size
        digest.update(piece)
        size += len(piece)
        try:
            write_all(file, bytes(piece))
        except OSError as error:
            raise disk_error(error, path, size) from error
        piece.clear()

    for line in lines:
        piece += line
        if len(piece) >= CHUNK_BYTES:
            flush()
    flush()
    return digest.hexdigest(), size


def append_line(path: Path, line: bytes) -> None:
    """Add one line, durably; after a line that a crash cut off, on a line of its own."""
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        end = os.fstat(file).st_size
        torn = end > 0 and os.pread(file, 1, end - 1) != b"\n"  # a crash cut the last line off
        write_all(file, (b"\n" if torn else b"") + line + b"\n")
        seal(file, read_only=False)
    finally:
        os.close(file)
