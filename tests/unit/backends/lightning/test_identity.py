"""The key of a training and what its checkpoints belong to say the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from organon.backends.lightning.backend import LightningBackend
from organon.backends.lightning.training import training_identity
from organon.config.schema import AdapterConfig
from organon.config.spec import TrainSpec


def with_adapter(spec: TrainSpec, **fields: Any) -> TrainSpec:
    return replace(spec, adapter=AdapterConfig(**fields))


@pytest.mark.parametrize("kind", ["full", "lora"])
@pytest.mark.parametrize("change", [{"rank": 16}, {"alpha": 4}, {"dropout": 0.5}, {"target_modules": ["q_proj"]}])
def test_one_key_means_one_training_to_go_on_with(spec: TrainSpec, kind: str, change: dict[str, Any]) -> None:
    """Else the same key would find a checkpoint that it must refuse (CKPT-072)."""
    one, other = (with_adapter(spec, kind=kind, quantization="none", **fields) for fields in ({}, change))
    backend, compute = LightningBackend(), {"device": "cpu"}
    same_key = backend.identity(one) == backend.identity(other)
    assert same_key == (kind == "full")
    assert (training_identity(one, compute) == training_identity(other, compute)) == same_key
