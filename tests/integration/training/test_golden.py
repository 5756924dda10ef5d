"""B2: 20 steps on the embedded model give the losses that they gave before, in float32 on one thread.

A change of them is a change of the numbers that users get: it needs a line in the changelog and, since a
cached result would not be what a new one is, another ``SPEC_SCHEMA``. Then write the file anew:

    ORGANON_WRITE_GOLDEN=1 .venv/bin/python -m pytest tests/integration/training/test_golden.py

Other instruction sets (AVX2 and none, for AVX-512) change a loss by at most 9e-7, as measured.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from organon.config.compose import compose
from organon.config.spec import TrainSpec
from organon.pipeline.train import prepare

FILE = Path(__file__).with_name("golden_losses.json")
BASICS = ("experiment=capitalization", "logger=none", "trainer=cpu", "trainer.threads=1", "trainer.precision=32",
          "trainer.max_steps=20", "trainer.deterministic=true", "callbacks.run_val_every_n_steps=10")  # fmt: skip
RECIPES = {
    "lora": ("adapter=lora",),
    "qlora": ("adapter=qlora", "adapter.dropout=0.1"),
    "full": ("adapter=full", "adapter.quantization=none", "optim.learning_rate=3e-4", "trainer.micro_batch_size=4"),
    "padded": ("adapter=lora", "trainer.batching=padded"),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_losses_are_what_they_were(lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ORGANON_STORE", raising=False)
    spec: TrainSpec = prepare(compose("train", [*BASICS, *RECIPES[recipe]])).spec
    lab.train(spec, tmp_path / "work")
    rows = lab.metrics(tmp_path / "work")
    found = {
        "train/loss": [row["train/loss"] for row in rows],
        "val/loss": [row["val/loss"] for row in rows if "val/loss" in row],
    }
    assert (len(found["train/loss"]), len(found["val/loss"])) == (20, 2)
    golden = json.loads(FILE.read_text()) if FILE.exists() else {}
    if os.environ.get("ORGANON_WRITE_GOLDEN"):
        FILE.write_text(json.dumps({**golden, recipe: found}, indent=1) + "\n")
        return
    for name, values in golden[recipe].items():
        assert found[name] == pytest.approx(values, rel=1e-6, abs=1e-6), (
            f"{name} has changed; see this file's first lines"
        )


def test_packing_is_no_other_training() -> None:
    """The two recipes differ in nothing but the order of float sums."""
    golden = json.loads(FILE.read_text())
    assert golden["padded"]["train/loss"] == pytest.approx(golden["lora"]["train/loss"], rel=1e-5, abs=1e-5)
