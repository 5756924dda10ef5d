from __future__ import annotations

import math
from typing import Any

import pytest

from organon.report.record import RunRecord


def cell(
    base: float | None, tuned: float | None, low: float | None, high: float | None, samples: int
) -> dict[str, Any]:
    difference = None if base is None or tuned is None else tuned - base
    return {"base": base, "tuned": tuned, "difference": difference, "low": low, "high": high, "samples": samples}


@pytest.fixture
def metrics() -> dict[str, Any]:
    """What a run of the capitalization experiment measures."""
    return {
        "capitalize_5": {"accuracy": cell(0.03, 0.96, 0.88, 0.97, 200)},
        "capitalize_8": {"accuracy": cell(0.0, 0.07, -0.02, 0.12, 1500)},
        "perplexity": {"mean": cell(1234.5, 12.25, -1300.0, -1100.0, 50)},
        "only_tuned": {"accuracy": cell(None, 0.5, None, None, 10)},
        "nothing_scored": {"accuracy": cell(math.nan, math.nan, math.nan, math.nan, 0)},
    }


@pytest.fixture
def record(metrics: dict[str, Any]) -> RunRecord:
    return RunRecord(
        key="3f9a" * 16,
        name="happy-narwhal",
        state="succeeded",
        metrics=metrics,
        experiment="capitalization",
        timings={"train": 74.2, "evaluate": 31.9},
        train={"loss_first": 3.05, "loss_last": 0.0532, "steps": 150, "epochs": 3, "tokens": 81230},
        dataset_hash="ab12" * 16,
    )


@pytest.fixture
def metrics_rows() -> list[dict[str, float]]:
    """150 steps, with a validation every 30."""
    rows: list[dict[str, float]] = []
    for step in range(1, 151):
        rows.append(
            {"step": step, "train/loss": 3 * math.exp(-step / 22), "train/learning_rate": 1e-3 * (1 - step / 150)}
        )
        if step % 30 == 0:
            rows.append({"step": step, "val/loss": 3 * math.exp(-step / 22) + 0.05})
    return rows
