"""A store in a temporary folder, a way to fill it, and what it logged."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from organon.store.store import Entry, Store

Publish = Callable[..., Entry]
SOURCE = Path(__file__).parents[3] / "src"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def publish(store: Store) -> Publish:
    def make(
        kind: Any, ident: Any, files: dict[str, bytes | str] | None = None, labels: dict[str, str] | None = None
    ) -> Entry:
        folder = store.staging(kind, ident)
        for name, content in (files or {"results.json": "{}"}).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return store.publish(kind, ident, folder, labels=labels)

    return make


@pytest.fixture
def log() -> Iterator[list[dict[str, Any]]]:
    """The records that loguru got during the test: ``message``, ``level``, ``extra``."""
    records: list[dict[str, Any]] = []
    sink = logger.add(lambda m: records.append(dict(m.record)), level="DEBUG", format="{message}")
    yield records
    logger.remove(sink)


@pytest.fixture
def warnings_in(log: list[dict[str, Any]]) -> Callable[[], list[str]]:
    return lambda: [record["message"] for record in log if record["level"].name == "WARNING"]


@pytest.fixture
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python code in a process of its own, where it may fork, kill itself, or change its limits."""

    def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(SOURCE), "LOGURU_LEVEL": "WARNING"}
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    return run
