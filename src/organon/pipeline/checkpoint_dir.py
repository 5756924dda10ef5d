"""``checkpoint_dir``: a training's folders of weights where the user wants them, as plain copies.

Copies and not links: the store's files are read-only and stand for a key, these are the user's to change.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import glob
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from organon.backends.base import Backend
from organon.backends.lightning.workdir import Workdir
from organon.config.paths import expand, why_not
from organon.errors import ConfigError, StoreError
from organon.store.files import disk_error, sync_file, sync_folder


def check_backend(pattern: str | None, backend: Backend) -> None:
    """Refuse ``checkpoint_dir`` with a backend that keeps the weights itself. Raises ConfigError."""
    if pattern is not None and not backend.local:
        raise ConfigError(
            f"backend {backend.name} yields no weights on this machine",
            code="CFG-058",
            where="checkpoint_dir",
            fix="checkpoint_dir=null, or backend=lightning",
        )


def checkpoint_place(pattern: str | None, name: str) -> Path | None:
    """The folder that ``pattern`` means for the run ``name``."""
    return None if pattern is None else expand(pattern.replace("{name}", name), "checkpoint_dir")


def check_place(place: Path, run_folder: Path, *, copied_before: bool = False) -> bool:
    """Whether ``place`` holds the files of the training in ``run_folder``, which need not be there yet: all or none.

    Where it does not, they can be put there: its parent takes new folders, or can be made.

    ``copied_before``: this training's files were put there once. Where they have left ``run_folder`` since (a
    pruned store), they can be compared again only after the training.

    Raises:
        ConfigError: CFG-058, it holds others, or no folder can be made there.
    """
    if _holds(place, run_folder, copied_before=copied_before):
        return True
    if reason := why_not(place):  # beside it, where the copy begins
        raise ConfigError(
            f"{place} cannot be made: {reason}",
            code="CFG-058",
            where="checkpoint_dir",
            fix="name a folder that you may write to: checkpoint_dir='outputs/ck-out-{name}'",
        )
    return False


def _holds(place: Path, run_folder: Path, *, copied_before: bool = False) -> bool:
    if not place.is_dir():
        if not os.path.lexists(place):
            return False
        raise _taken(place, "is no folder")
    there, ours = _files(place), _weights(run_folder)
    if copied_before and not run_folder.exists():
        return False
    other = [n for n in there if n not in ours or not filecmp.cmp(there[n], ours[n], shallow=False)]
    if other:
        raise _taken(place, f"holds files that are not of this training, such as {other[0]}")
    if there and len(there) < len(ours):
        raise _taken(place, f"holds a part of this training's files; {min(ours.keys() - there.keys())} is missing")
    return bool(there)


def copy_checkpoints(run_folder: Path, place: Path) -> None:
    """Put the folders of weights in ``run_folder`` into ``place``, all of them or none.

    Raises:
        ConfigError: CFG-058, ``place`` holds other files by now.
        StoreError: the disk does not take them; the training is kept.
    """
    _remove_leftovers(place)
    if _holds(place, run_folder):
        return
    weights = _weights(run_folder)
    unfinished = place.with_name(f"{_unfinished(place)}{os.getpid()}.new")
    with _report(place, sum(file.stat().st_size for file in weights.values())):
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.mkdir()
            for name, file in weights.items():
                copy = unfinished / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)  # without the store's read-only mode
                sync_file(copy)
            _rename(unfinished, place)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    _holds(place, run_folder)


@contextlib.contextmanager
def _report(place: Path, needed_bytes: int) -> Iterator[None]:
    """Turn an OSError of the copying into a StoreError that says what is lost: nothing."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{place}: {disk_error(error, place, needed_bytes).cause}; the training is done and kept in the store",
            code="CACHE-081",
            where="checkpoint_dir",
            fix="free space there or name another checkpoint_dir; the same command then only copies",
        ) from error


def _unfinished(place: Path) -> str:
    """How the names of unfinished copies begin; the process's number follows, which means nothing on other machines."""
    return f".{place.name}.{socket.gethostname()}."


def _remove_leftovers(place: Path) -> None:
    """Remove the unfinished copies of processes that were killed."""
    head = _unfinished(place)
    for folder in place.parent.glob(f"{glob.escape(head)}*.new"):
        number = folder.name.removeprefix(head).removesuffix(".new")
        if number.isdecimal() and not _is_alive(int(number)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _rename(unfinished: Path, place: Path) -> None:
    """Over an empty folder at most; what else stands there is looked at by ``_holds``."""
    try:
        unfinished.rename(place)
        sync_folder(place.parent)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise


def _taken(place: Path, cause: str) -> ConfigError:
    return ConfigError(
        f"{place} {cause}",
        code="CFG-058",
        where="checkpoint_dir",
        fix="name a new folder; with {name} in it each run has its own: checkpoint_dir='outputs/ck-out-{name}'",
    )


def _weights(run_folder: Path) -> dict[str, Path]:
    """The files of all folders of weights, by their paths relative to ``run_folder``."""
    return {f"{w.name}/{n}": file for w in Workdir(run_folder).weights() for n, file in _files(w).items()}


def _files(folder: Path) -> dict[str, Path]:
    return {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*")) if not file.is_dir()}
