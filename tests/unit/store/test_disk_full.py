"""C5, case 80: a disk that is full or fails. The message says where and how much; nothing old is harmed."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from organon.errors import StoreError
from organon.store.files import write_atomic
from organon.store.store import Store

OLD, NEW = "a" * 64, "b" * 64


def _names(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def test_write_atomic_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, "é")
    assert path.read_bytes() == "é".encode()
    write_atomic(path, b"x", read_only=True)
    write_atomic(path, b"y", read_only=True)
    assert path.read_bytes() == b"y"
    assert path.stat().st_mode & 0o777 == 0o444
    assert _names(tmp_path) == {"file"}


CODES = [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES]


@pytest.mark.parametrize("code", CODES, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
def test_a_failing_write_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    """C5: path, free and needed bytes, and what to do."""
    path = tmp_path / "file"
    write_atomic(path, "old")
    _break(monkeypatch, call, code)
    with pytest.raises(StoreError) as caught:
        write_atomic(path, "x" * 12_345)
    monkeypatch.undo()
    error = caught.value
    assert error.code == "CACHE-081"
    assert error.where == str(path)
    assert os.strerror(code) in error.cause
    assert "bytes free, 12,345 bytes needed" in error.cause
    assert "run the same command again" in error.fix
    assert error.exit_code != 0
    assert path.read_text() == "old"
    assert _names(tmp_path) == {"file"}


def test_an_interrupt_leaves_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "file", "x")
    assert _names(tmp_path) == set()


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A nearly full disk takes a part without an error."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:7]))
    write_atomic(tmp_path / "file", "0123456789" * 5)
    assert (tmp_path / "file").read_text() == "0123456789" * 5


OPERATIONS: dict[str, Callable[[Store], Any]] = {
    "put_dataset": lambda s: s.put_dataset([{"a": i} for i in range(1000)]),
    "publish": lambda s: s.publish("runs", NEW, s.root / "staging" / "runs" / NEW),
    "set_link": lambda s: s.set_link("model_ids", OLD, "m", backend="b"),
    "record_failure": lambda s: s.record_failure("runs", "c" * 64, "x"),
}


@pytest.mark.parametrize("call", ["write", "fsync", "rename", "replace"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_write_of_the_store_fails_cleanly_and_succeeds_later(
    store: Store, publish: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str, call: str
) -> None:
    """C5: at each write, fsync and rename of each operation, one after the other, until it succeeds."""
    publish("runs", OLD, {"a": "old"})
    (store.staging("runs", NEW) / "a").write_text("new")
    failed = 0
    while True:
        _break(monkeypatch, call, errno.ENOSPC, after=failed)
        try:
            OPERATIONS[name](store)
            break
        except StoreError as error:
            assert error.code == "CACHE-081"  # noqa: PT017
            assert "No space left on device" in str(error)  # noqa: PT017
            failed += 1
        finally:
            monkeypatch.undo()
        old = store.find("runs", OLD)
        assert old is not None
        assert (old.path / "a").read_text() == "old"
        if name == "publish" and store.find("runs", NEW):
            break  # it failed after the rename: done
    assert failed < 30
    OPERATIONS[name](store)
    assert list(store.root.rglob(".tmp-*")) == []
    assert store.index.check() == []


def _break(monkeypatch: pytest.MonkeyPatch, call: str, code: int, after: int = 0) -> None:
    real, count = getattr(os, call), 0

    def fail(*arguments: Any, **named: Any) -> Any:
        nonlocal count
        writes = call != "open" or bool(arguments[1] & os.O_CREAT)
        count += writes
        if writes and count == after + 1:
            raise OSError(code, os.strerror(code))
        return real(*arguments, **named)

    monkeypatch.setattr(os, call, fail)


def _fill_up(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 1 MiB, where this user may mount one."""
    place = Path(tempfile.mkdtemp())
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode != 0:
        place.rmdir()
        pytest.skip("this user may not mount a tmpfs; the RLIMIT_FSIZE test does the same")
    yield place
    subprocess.run(["umount", str(place)], check=True)
    place.rmdir()


def test_a_really_full_disk(small_disk: Path) -> None:
    """C5: the old entry stays readable; after space is freed the same call succeeds."""
    store = Store(small_disk / "store")
    (store.staging("runs", OLD) / "a").write_text("old")
    store.publish("runs", OLD, store.staging("runs", OLD))
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 600_000)
    rows = [{"text": "x" * 1000}] * 600
    with pytest.raises(StoreError, match="No space left on device") as caught:
        store.put_dataset(rows)
    assert "bytes free" in str(caught.value)
    assert "organon cache prune" in caught.value.fix
    assert _names(store.root / "datasets") == set()
    ballast.write_bytes(b"")
    fill = small_disk / "fill"
    _fill_up(fill)
    store.set_memo("a", "b" * 100_000, "c")  # a note is not worth an error
    with pytest.raises(StoreError, match=r"bytes free"):
        store.record_failure("runs", NEW, "x" * 100_000)
    with pytest.raises(StoreError, match=r"bytes free"):
        store.set_link("model_ids", NEW, "m" * 10_000, backend="b")
    old = store.find("runs", OLD)
    assert old is not None
    assert (old.path / "a").read_text() == "old"
    store.discard("runs", OLD)  # makes room: has to work on a full disk
    assert store.find("runs", OLD) is None
    fill.unlink()
    digest, _ = store.put_dataset(rows)
    assert store.dataset_path(digest)
    assert store.index.check() == []


LIMITED = """
import resource, sys
from pathlib import Path
from organon.errors import StoreError
from organon.store.store import Store
store = Store(Path(sys.argv[1]))
store.put_dataset([{"a": 1}])
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
try:
    store.put_dataset([{"text": "x" * 1000}] * 1000)
except StoreError as error:
    assert error.code == "CACHE-081" and "File too large" in error.cause and "bytes needed" in error.cause, error
else:
    raise SystemExit("no error")
assert len(list((store.root / "datasets").iterdir())) == 1
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert store.dataset_path(store.put_dataset([{"text": "x" * 1000}] * 1000)[0])
"""


def test_a_limit_on_file_size(tmp_path: Path, python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """C5: RLIMIT_FSIZE, without any privilege."""
    done = python(LIMITED, str(tmp_path / "store"))
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.parametrize("make", [lambda p: p.write_text("a file"), lambda p: p.symlink_to("/nowhere/at/all")])
def test_a_root_that_is_no_folder_is_refused(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    """Case 80."""
    make(tmp_path / "store")
    with pytest.raises(StoreError) as caught:
        Store(tmp_path / "store").put_dataset([{"a": 1}])
    assert caught.value.code == "CACHE-081"
    assert str(tmp_path / "store") in str(caught.value)
