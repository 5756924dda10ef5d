from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WriteFile = Callable[..., Path]


def chat(*turns: str, **extra: Any) -> dict[str, Any]:
    """A row with user and assistant taking turns."""
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)], **extra}


@pytest.fixture
def make_row() -> Callable[..., dict[str, Any]]:
    return chat


@pytest.fixture
def good_line() -> str:
    return json.dumps(chat("hi", "hello"))


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WriteFile:
    """Write a file in the current folder, so that errors show its bare name."""
    monkeypatch.chdir(tmp_path)

    def make(content: str | bytes | list[Any], name: str = "train.jsonl") -> Path:
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
        return Path(name)

    return make
