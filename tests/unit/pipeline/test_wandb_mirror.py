"""The evaluation's half of a wandb run goes where the training's half went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from organon.config.compose import compose
from organon.config.spec import BaseModel, TrainSpec
from organon.pipeline.wandb_mirror import flat, mirror_metrics

METRICS = {
    "words": {"accuracy": {"base": 0.1, "tuned": 0.9, "difference": 0.8, "low": 0.7, "high": 0.9, "samples": 10}}
}


class FakeWandb:
    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.given, self.logged = error, {}, []  # type: ignore[var-annotated]

    def Settings(self, **settings: Any) -> dict[str, Any]:
        return settings

    def init(self, **given: Any) -> FakeWandb:
        if self.error:
            raise self.error
        self.given = given
        return self

    def log(self, values: dict[str, float]) -> None:
        self.logged.append(values)

    def finish(self) -> None:
        pass


@pytest.fixture
def spec() -> TrainSpec:
    config = compose("run", ["logger.group=sweep", "logger.tags=[a]"])
    base = BaseModel(name="tiny", digest="d")
    return TrainSpec(base=base, dataset_hash="x", validation_hash=None, model=config.model, logger=config.logger)


def test_same_run_same_group_no_host(spec: TrainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CK-33, MF-42."""
    import sys

    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    mirror_metrics(spec, "k" * 64, METRICS, tmp_path)
    assert (fake.given["id"], fake.given["group"], fake.given["mode"]) == ("k" * 16, "sweep", "disabled")
    assert fake.given["settings"]["x_disable_meta"] is True
    assert fake.logged == [
        {"eval/words/accuracy": 0.9, "eval/words/accuracy/base": 0.1, "eval/words/accuracy/difference": 0.8}
    ]
    assert (tmp_path / "logs" / "wandb").is_dir()


def test_a_mirror_that_fails_is_a_warning(spec: TrainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "wandb", FakeWandb(RuntimeError("no network")))
    mirror_metrics(spec, "k" * 64, METRICS, tmp_path)


def test_missing_cells_are_left_out() -> None:
    assert flat({"t": {"m": {"tuned": 1.0, "base": None}}}) == {"eval/t/m": 1.0}
