"""Every notebook's code runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from organon.report.record import RunRecord

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = {"base": 0.0, "tuned": 1.0, "difference": 1.0, "low": 0.9, "high": 1.0, "samples": 10}
    for name in ("merry-otter", "bright-fern"):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        RunRecord(name, name, "succeeded", metrics={"task": {"accuracy": cell}}).save(folder)
    monkeypatch.setenv("ORGANON_OUTPUTS", str(tmp_path))
    scope: dict[str, object] = {}
    for part in json.loads(path.read_text())["cells"]:
        if part["cell_type"] == "code":
            exec("".join(part["source"]), scope)
    assert len(scope["table"]) == 2  # type: ignore[arg-type]
