"""Keys: what identifies a dataset, a training and an evaluation, as sha256 of canonical text.

Only content takes part in a key, never a path: two specs that mean the same get the same key
on every machine, and any change that can alter the result gets another one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from organon.errors import DataError, UserError

KEY_SCHEMA = 1  # raised when the meaning of a key changes: older results are then never served


def canonical(value: Any) -> str:
    """``value`` as the one JSON text that stands for its meaning.

    Keys sorted, no spaces, ASCII only, finite numbers only, ``-0.0`` written as ``0.0`` and tuples as
    lists. Integers and floats stay apart (``1`` is not ``1.0``).

    Raises:
        UserError: for NaN, infinity, a key that is not text, or a type that JSON does not know.
    """
    return json.dumps(_plain(value, "value"), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _not_hashable(where, f"{value} is not a finite number")
        return 0.0 if value == 0 else value
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                raise _not_hashable(where, f"its key {name!r} is {type(name).__name__}, not text")
        return {name: _plain(item, f"{where}.{name}") for name, item in value.items()}
    raise _not_hashable(where, f"{type(value).__name__} has no canonical form")


def _not_hashable(where: str, cause: str) -> UserError:
    return UserError(
        f"{cause}, so it cannot be part of a cache key",
        code="CACHE-084",
        where=where,
        fix="use text, numbers, true/false, null, lists and mappings with text keys",
    )


def sha256_text(text: str) -> str:
    """Hex sha256 of ``text`` in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes, read in constant memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_sha256(text: str) -> bool:
    """Whether ``text`` is a lower-case hex sha256."""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def train_key(spec_identity: dict[str, Any], backend: str) -> str:
    """Key of a training: the identity fields of its spec, on the backend named ``backend``.

    ``spec_identity`` is ``organon.config.spec.identity(spec)`` or what the backend's own
    ``identity(spec)`` makes of it.
    """
    return sha256_text(canonical({"schema": KEY_SCHEMA, "backend": backend, "spec": spec_identity}))


def suite_key(model: str, suite_identity: dict[str, Any], backend: str) -> str:
    """Key of an evaluation: ``model`` (key or digest) on a suite, by the evaluation backend ``backend``.

    The order of the suite's ``tasks`` does not change any score, so it does not change the key.
    """
    suite = dict(suite_identity)
    if isinstance(suite.get("tasks"), (list, tuple)):
        suite["tasks"] = sorted(suite["tasks"], key=canonical)
    return sha256_text(canonical({"schema": KEY_SCHEMA, "backend": backend, "model": model, "suite": suite}))


def jsonl_lines(rows: Iterable[Any]) -> Iterator[bytes]:
    """Each row as one line of canonical JSONL: ``json.dumps(row)`` and a newline, ASCII only.

    Default separators and the row's own key order: MOTools' rule, so that its hashes stay valid.

    Raises:
        DataError: for a row with NaN or infinity, or one that JSON cannot hold.
    """
    for number, row in enumerate(rows, start=1):
        try:
            yield json.dumps(row, allow_nan=False).encode("ascii") + b"\n"
        except (TypeError, ValueError) as error:
            raise DataError(
                f"cannot be written as JSON: {error}",
                code="CACHE-085",
                where=f"row {number}",
                fix="keep rows to text, finite numbers, true/false, null, lists and mappings",
            ) from error


def dataset_hash(rows: Iterable[Any]) -> str:
    """Hash of a dataset: sha256 of its canonical JSONL bytes (see ``jsonl_lines``)."""
    digest = hashlib.sha256()
    for line in jsonl_lines(rows):
        digest.update(line)
    return digest.hexdigest()
