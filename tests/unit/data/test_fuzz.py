"""Mutated files: a DataError or rows, never another exception, never a hang (D3)."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from organon.data import read_rows
from organon.errors import DataError

CHAT = json.dumps(
    {"messages": [{"role": "user", "content": "é 😀\n"}, {"role": "assistant", "content": "b", "weight": 1}]}
)
SEEDS = {
    "messages": (f"{CHAT}\n" * 4).encode(),
    "instruct": json.dumps({"train": [{"input": "a", "output": "é"}] * 3, "test": []}, indent=1).encode(),
    "instruct lines": b'{"prompt": "a", "completion": "b"}\n' * 4,
}
SNIPPETS = [
    b"\xff", b"\0", b"\xef\xbb\xbf", b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b"\n", b"NaN", b"1e999", b"null",
    b"\\ud800", b"\\u0000", b"-", b"9" * 5000, b"[" * 2000, b'{"a":' * 500, b"\r", b"true", b"{}", b"\xed\xa0\x80",
    b"\xff\xfe", b" " * 1000, b'"weight": 2,', b'"role": 5,', b"messages", b"role", b"content", b"\x1b[0m",
]  # fmt: skip


def mutate(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        to = min(len(data), at + rng.choice([0, 1, 1, 3, 30]))
        kind = rng.randrange(5)
        if kind == 0:
            data = data[:at]
        elif kind == 1:
            data = data[:at] + rng.choice(SNIPPETS) + data[to:]
        elif kind == 2:
            data = data[:at] + data[to:]
        elif kind == 3:
            data = data[:at] + bytes(rng.randrange(256) for _ in range(to - at)) + data[to:]
        else:
            data = data[:at] + data[at:to] * 3 + data[to:]
    return data


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", SEEDS)
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_only_data_errors_come_out(write: Callable[..., Path], name: str, on_error: str) -> None:
    rng = random.Random(f"{name} {on_error}")
    options = {"on_error": on_error, "max_skipped_fraction": 0.9}
    errors = []
    for _ in range(150):
        path = write(mutate(SEEDS[name], rng), rng.choice(["f.jsonl", "f.json"]))
        try:
            for row in read_rows(path, name.split()[0], **options):
                json.dumps(row).encode("ascii")
        except DataError as error:
            errors.append(error)
    assert 20 < len(errors) < 150
    for error in errors:
        assert error.code.startswith("DATA-")
        assert error.where.startswith("f.json")
        assert error.fix
        assert str(error).replace("\n", "").isprintable()
        assert len(str(error)) < 1000
