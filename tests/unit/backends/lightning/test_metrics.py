"""metrics.jsonl, metrics.csv, and wandb as a mirror that may break."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from organon.backends.lightning.metrics import MetricsLog, WandbMirror, public_config, read_rows, wandb_mode
from organon.backends.lightning.workdir import Workdir
from organon.config.schema import DatasetConfig, LoggerConfig, ModelConfig
from organon.config.spec import BaseModel, TrainSpec


def row(step: int) -> dict[str, Any]:
    return {"step": step, "epoch": step / 2, "train/loss": 1 / step}


def spec(**logger: Any) -> TrainSpec:
    return TrainSpec(
        base=BaseModel(name="tiny", digest="d" * 64, folder="/home/someone/models/tiny"),
        dataset_hash="a" * 64,
        validation_hash=None,
        model=ModelConfig(name="tiny", path="/home/someone/models/tiny"),
        dataset=DatasetConfig(name="words", source="/home/someone/words.jsonl"),
        logger=LoggerConfig(wandb=True, **logger),
        dataset_path="/home/someone/store/a.jsonl",
        extra={"secret": "s3cret"},
    )


def test_rows_behind_the_resumed_step_are_dropped(tmp_path: Path) -> None:
    """K5: and a line that the crash cut short."""
    log = MetricsLog(Workdir(tmp_path), resumed_step=0, with_csv=True)
    for step in range(1, 6):
        log.write(row(step))
    with log.lines.open("a") as file:
        file.write('{"step": 6, "tr')
    resumed = MetricsLog(Workdir(tmp_path), resumed_step=3, with_csv=True)
    assert read_rows(log.lines) == [row(1), row(2), row(3)]
    resumed.write(row(4))
    assert [r["step"] for r in read_rows(log.lines)] == [1, 2, 3, 4]
    table = (tmp_path / "metrics.csv").read_text().splitlines()
    assert table[0].startswith("step,epoch,train/loss,learning_rate")
    assert [line.split(",")[0] for line in table[1:]] == ["1", "2", "3", "4"]


def test_new_names_get_columns_of_their_own(tmp_path: Path) -> None:
    """CK-14: metrics of the user's come when they come; a resumed table has the same columns."""
    log = MetricsLog(Workdir(tmp_path), resumed_step=0, with_csv=True)
    log.write(row(1))
    log.write({**row(2), "val/mine": 0.5, "mine": 7.0})
    log.write(row(3))
    log.write({**row(4), "late": -1.0})

    def table() -> list[dict[str, str]]:
        with log.table.open() as file:
            return list(csv.DictReader(file))

    assert list(table()[0])[-3:] == ["val/mine", "mine", "late"]
    assert [r["mine"] for r in table()] == ["", "7.0", "", ""]
    assert [r["step"] for r in table()] == ["1", "2", "3", "4"]
    before = log.table.read_text()
    resumed = MetricsLog(Workdir(tmp_path), resumed_step=3, with_csv=True)
    resumed.write({**row(4), "late": -1.0})
    assert log.table.read_text() == before


def test_csv_is_optional(tmp_path: Path) -> None:
    MetricsLog(Workdir(tmp_path), resumed_step=0, with_csv=False).write(row(1))
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_wandb_gets_named_fields_only() -> None:
    """Rule 49: no path, no vendor argument."""
    told = json.dumps(public_config(spec(), "k" * 64))
    assert "someone" not in told
    assert "s3cret" not in told
    assert json.loads(told)["adapter.rank"] == 8


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return monkeypatch


def test_wandb_is_offline_without_a_login(nobody: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """CK-33."""
    assert wandb_mode("auto") == wandb_mode("online") == "offline"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password x")
    assert wandb_mode("auto") == wandb_mode("online") == "online"
    (tmp_path / "netrc").unlink()
    nobody.setenv("WANDB_API_KEY", "k")
    assert wandb_mode("auto") == "online"
    assert wandb_mode("offline") == "offline"
    nobody.setenv("WANDB_MODE", "disabled")
    assert wandb_mode("auto") == "disabled"
    assert wandb_mode("online") == "online"


def fake_wandb(monkeypatch: pytest.MonkeyPatch, run: Any) -> dict[str, Any]:
    given: dict[str, Any] = {}

    def init(**options: Any) -> Any:
        given.update(options)
        return run

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Settings=lambda **options: options))
    return given


def test_wandb_mirrors_rows_under_the_keys_run(nobody: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sent: list[Any] = []
    run = SimpleNamespace(
        log=lambda values, step: sent.append((step, values)), finish=lambda exit_code: sent.append(exit_code)
    )
    given = fake_wandb(nobody, run)
    mirror = WandbMirror(spec(group="sweep", tags=["a"]), "k" * 64, Workdir(tmp_path))
    assert (tmp_path / "logs" / "wandb").is_dir()
    assert (given["id"], given["resume"], given["group"], given["tags"]) == ("k" * 16, "allow", "sweep", ["a"])
    assert given["dir"] == str(tmp_path / "logs")
    mirror.write({**row(2), "time": 5.0})
    mirror.finish()
    assert sent == [(2, {"epoch": 1.0, "train/loss": 0.5}), 0]


def test_a_broken_wandb_does_not_end_the_training(nobody: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("service gone")

    fake_wandb(nobody, SimpleNamespace(log=broken, finish=broken))
    mirror = WandbMirror(spec(), "k" * 64, Workdir(tmp_path))
    mirror.write(row(1))
    mirror.write(row(2))
    mirror.finish()
    nobody.setitem(sys.modules, "wandb", SimpleNamespace(init=broken, Settings=lambda **options: options))
    WandbMirror(spec(), "k" * 64, Workdir(tmp_path)).write(row(1))
