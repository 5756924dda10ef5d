"""Rows that are cut or left out: told by the command that trains on the others, also when the store answers."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.training.conftest import Lab

from organon.cli.main import main

BASICS = ("model=tiny", "dataset=messages", "dataset.source=rows.jsonl", "dataset.validation_fraction=0",
          "logger=none", "trainer=cpu", "trainer.threads=1", "adapter=lora", "trainer.max_steps=1",
          "dataset.max_length=32")  # fmt: skip
WORDS = ["a"] * 5 + ["word " * 40] * 3


@pytest.fixture(scope="module")
def spawn(tmp_path_factory: pytest.TempPathFactory) -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["organon.backends.lightning.training", "peft", "transformers", "bitsandbytes"])
    return Lab(Path(), tmp_path_factory.mktemp("data"), context).spawn


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spawn: Any) -> Callable[..., int]:
    """A verb on eight rows, three of them with an answer that is too long."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ORGANON_STORE", raising=False)
    monkeypatch.setattr("organon.backends.lightning.backend._spawn", spawn)
    rows = [
        {"messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": word.strip()}]}
        for i, word in enumerate(WORDS)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return lambda verb, *overrides: main([verb, *BASICS, *overrides])


def test_rows_that_are_cut_or_left_out_are_told(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """A line on stderr and the counts in the result: while it trains, and from the store."""
    longer = "3 of 8 rows are longer than dataset.max_length=32 and"
    cut = ("train", "dataset.on_too_long=truncate", "--json")
    for cached in (False, True):
        assert command(*cut) == 0
        said = capsys.readouterr()
        result = json.loads(said.out)
        assert result["cached"] is cached
        counts = result["dataset"]
        assert (counts["rows_read"], counts["rows"], counts["truncated_rows"], counts["dropped_rows"]) == (8, 8, 3, 0)
        assert said.err.count(f"warning: {longer} cut: {counts['cut_tokens']:,} tokens less\n") == 1
    assert command("run", "eval=none", "dataset.on_too_long=drop", "--json") == 0
    said = capsys.readouterr()
    counts = json.loads(said.out)["train"]["dataset"]
    assert (counts["rows_read"], counts["rows"], counts["dropped_rows"]) == (8, 5, 3)
    assert said.err.count(f"warning: {longer} left out\n") == 1


def test_nothing_is_said_where_nothing_is_lost(command: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert command("train", "dataset.max_length=256", "trainer.threads=1") == 0
    said = capsys.readouterr()
    assert "warning" not in said.err
    assert "dataset" not in said.out
