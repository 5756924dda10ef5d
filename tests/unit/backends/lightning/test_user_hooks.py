"""Callbacks of the user's own from a file beside the command."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from organon.backends.fake import FakeBackend
from organon.backends.lightning.identity import spec_identity
from organon.backends.lightning.user_hooks import user_callbacks
from organon.config.compose import compose
from organon.config.spec import TrainSpec
from organon.errors import ConfigError, SecurityError
from organon.pipeline.resolve import resolve
from organon.store.store import Store

SOURCE = """
from lightning.pytorch import Callback

class Hello(Callback):
    def __init__(self, n: int = 1):
        self.n = n
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "a"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def resolved(*overrides: str) -> TrainSpec:
    Path("cb.py").write_text(SOURCE)
    rows = [{"messages": [{"role": "user", "content": w}, {"role": "assistant", "content": w}]} for w in "abc"]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("dataset=messages", "dataset.source=rows.jsonl", "dataset.validation_fraction=0")
    config = compose("train", ["backend=fake", "logger=none", *words, *overrides])
    return resolve(config, Store.open("store"), FakeBackend())


BY_FILE = ("callbacks.extra=[{_target_: cb.py:Hello, n: 3}]", "allow_targets=[cb.py:Hello]")


def test_a_callback_by_its_file(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As metrics are: made in the worker's folder, of the source that was hashed, wherever the file lies."""
    spec = resolved(*BY_FILE)
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "b")
    [callback] = user_callbacks(spec)
    assert (type(callback).__name__, callback.n) == ("Hello", 3)
    assert spec_identity(resolved(*BY_FILE)) == spec_identity(spec)
    with pytest.raises(SecurityError):
        user_callbacks(dataclasses.replace(spec, allow_targets=["cb.py:Hello"]))
    (here / "cb.py").write_text(SOURCE + "\n")
    with pytest.raises(ConfigError, match="has changed since"):
        user_callbacks(spec)


def test_a_dotted_name_that_cannot_be_imported_says_how() -> None:
    with pytest.raises(ConfigError, match="no module 'cb'") as caught:
        resolved("callbacks.extra=[{_target_: cb.Hello}]", "allow_targets=[cb.Hello]")
    assert caught.value.fix == "install it, put its folder on PYTHONPATH, or name the file: cb.py:Hello"
    with pytest.raises(SecurityError, match="Allowed: none") as refused:
        resolved("callbacks.extra=[{_target_: cb.Hello}]")
    assert "'allow_targets=[cb.Hello]'" in refused.value.fix
