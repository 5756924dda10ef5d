"""CK-04, CK-12: when the validation loss is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("every", "steps"), [(10, [10, 12, 20, 24, 26]), (0, [12, 24, 26]), (4, [4, 8, 12, 16, 20, 24, 26])]
)
def test_every_so_many_steps_and_at_each_epochs_end(lab: Any, tmp_path: Path, every: int, steps: list[int]) -> None:
    """Twelve steps an epoch; the third epoch is cut short after two."""
    size = {"global_batch_size": 2, "micro_batch_size": 2, "epochs": 3, "max_steps": 26}
    lab.train(lab.spec(**size, run_val_every_n_steps=every), tmp_path)
    rows = lab.metrics(tmp_path)
    assert [row["step"] for row in rows if "val/loss" in row] == steps
    assert len(rows) == 26
    assert rows[-1]["val/loss"] < rows[steps[0] - 1]["val/loss"]
