from __future__ import annotations

from pathlib import Path

import pytest

from organon.config.schema import ModelConfig
from organon.config.spec import BaseModel, TrainSpec
from organon.store.store import Store


@pytest.fixture
def spec() -> TrainSpec:
    return TrainSpec(
        base=BaseModel(name="tiny", digest="d" * 64),
        dataset_hash="a" * 64,
        validation_hash=None,
        model=ModelConfig(name="tiny"),
        hyperparameters={"n_epochs": 2},
        name="bright-otter",
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")
