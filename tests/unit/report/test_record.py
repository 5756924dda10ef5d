from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from organon.errors import StoreError
from organon.report.record import RunRecord


def bare(**changes: Any) -> RunRecord:
    return RunRecord(**{"key": "ab" * 32, "name": "happy-narwhal", "state": "succeeded", **changes})


def test_a_bare_record_has_exactly_the_promised_keys(tmp_path: Path) -> None:
    """Issue 2, item 8."""
    bare(metrics={"t": {"accuracy": {"tuned": 0.5}}}).save(tmp_path)
    data = json.loads((tmp_path / "result.json").read_text())
    assert list(data) == ["key", "name", "state", "cached", "metrics", "paths"]
    assert data["metrics"] == {
        "t": {"accuracy": {"base": None, "tuned": 0.5, "difference": None, "low": None, "high": None, "samples": None}}
    }


def test_a_full_record_survives_the_round_trip(tmp_path: Path, record: RunRecord) -> None:
    record.extra = {"sweep": {"group": "g", "points": [1, 2]}}
    record.cached = True
    record.save(tmp_path)
    again = RunRecord.load(tmp_path)
    nan = again.metrics["nothing_scored"]["accuracy"]
    assert all(math.isnan(nan[name]) for name in ("base", "tuned", "difference", "low", "high"))
    del again.metrics["nothing_scored"], record.metrics["nothing_scored"]  # type: ignore[attr-defined]  # NaN != NaN
    assert again == record
    assert RunRecord.load(tmp_path / "result.json").key == record.key


def test_the_file_is_strict_json(tmp_path: Path, record: RunRecord) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    record.train["loss_last"] = -math.inf
    record.save(tmp_path)
    data = json.loads((tmp_path / "result.json").read_text(), parse_constant=refuse)
    assert data["metrics"]["nothing_scored"]["accuracy"]["tuned"] == "NaN"
    assert data["train"]["loss_last"] == "-Infinity"
    assert RunRecord.load(tmp_path).train["loss_last"] == -math.inf


def test_paths_are_relative_to_the_run_folder(tmp_path: Path) -> None:
    run = tmp_path / "outputs" / "run"
    run.mkdir(parents=True)
    paths = {
        "report": run / "report.html",
        "adapter": str(tmp_path / "outputs" / "store" / "runs" / "k" / "epoch_1"),
        "logs": {"base": str(run / "logs" / "a.eval")},
        "kept": "plots/loss.png",
    }
    bare(paths=paths).save(run)
    saved = RunRecord.load(run).paths
    assert saved == {
        "report": "report.html",
        "adapter": "../store/runs/k/epoch_1",
        "logs": {"base": "logs/a.eval"},
        "kept": "plots/loss.png",
    }
    assert str(tmp_path) not in (run / "result.json").read_text()


def test_secrets_do_not_get_into_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S1."""
    monkeypatch.setenv("PLANTED_TOKEN", "rosebud-4711")
    bare(state="failed", error="401 for rosebud-4711 and sk-abcdefghijklmnop1234").save(tmp_path)
    text = (tmp_path / "result.json").read_text()
    assert "401 for [redacted] and [redacted]" in text


def test_an_unknown_key_in_a_cell_is_refused() -> None:
    with pytest.raises(TypeError, match=r"unknown keys \['mean'\]; allowed: base, tuned"):
        bare(metrics={"t": {"accuracy": {"mean": 1.0}}}).to_dict()


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (None, "cannot be read"),
        ("{", "is no JSON"),
        ("[]", "must hold an object; got list"),
        ('{"key": "a", "name": "b", "state": "c", "cached": false, "paths": {}}', "`metrics` must be a dict; got None"),
        ('{"key": 7}', "`key` must be a str; got 7"),
    ],
)
def test_a_damaged_record_is_reported(tmp_path: Path, content: str | None, cause: str) -> None:
    if content is not None:
        (tmp_path / "result.json").write_text(content)
    with pytest.raises(StoreError, match=r"result\.json") as caught:
        RunRecord.load(tmp_path / "result.json")
    assert cause in caught.value.cause
    assert caught.value.fix


def test_the_cache_hit_path_is_light(tmp_path: Path, record: RunRecord) -> None:
    """Reading a record and showing its table loads none of the heavy packages."""
    record.save(tmp_path)
    code = """
import sys
from pathlib import Path
from organon.report import names, record, table
names.run_name()
table.render(record.RunRecord.load(Path(sys.argv[1])).metrics)
heavy = ["torch", "numpy", "pandas", "matplotlib", "jinja2", "inspect_ai", "wandb"]
print("heavy:", [name for name in heavy if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "capitalize_5" in done.stdout
    assert "heavy: []" in done.stdout
