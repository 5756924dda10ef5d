"""Specs survive JSON and say which fields decide the result."""

from __future__ import annotations

import dataclasses
import json

import pytest

from organon.config.compose import compose
from organon.config.paths import expand
from organon.config.spec import BaseModel, TrainSpec, from_dict, identity, to_dict
from organon.errors import ConfigError


def make_spec() -> TrainSpec:
    config = compose("train", ["experiment=capitalization"])
    return TrainSpec(
        base=BaseModel(name="tiny", digest="d" * 64, folder="/models/tiny", quantization="nf4"),
        dataset_hash="a" * 64,
        validation_hash=None,
        model=config.model,
        dataset=config.dataset,
        adapter=config.adapter,
        optim=config.optim,
        trainer=config.trainer,
        callbacks=config.callbacks,
        logger=config.logger,
    )


def test_round_trip_through_json() -> None:
    spec = make_spec()
    assert from_dict(TrainSpec, json.loads(json.dumps(to_dict(spec)))) == spec


def test_unknown_key_is_an_error() -> None:
    with pytest.raises(TypeError):
        from_dict(TrainSpec, {**to_dict(make_spec()), "rnak": 1})


def test_identity_leaves_out_paths_logging_and_names() -> None:
    spec = make_spec()
    moved = dataclasses.replace(
        spec,
        base=dataclasses.replace(spec.base, folder="/elsewhere", name="other"),
        logger=dataclasses.replace(spec.logger, project="p", tags=["t"]),
        dataset_path="/x",
        name="merry-otter",
    )
    assert identity(moved) == identity(spec)
    assert identity(dataclasses.replace(spec, seed=1)) != identity(spec)


def test_paths_expand_user_and_environment(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """CK-54, CK-55."""
    monkeypatch.setenv("USER", "someone")
    monkeypatch.chdir(tmp_path)
    assert str(expand("/scratch/$USER/x", "output_dir")) == "/scratch/someone/x"
    assert expand("data.jsonl", "dataset.source") == tmp_path / "data.jsonl"
    monkeypatch.delenv("USER")
    with pytest.raises(ConfigError, match=r"\$USER is not set") as caught:
        expand("/scratch/$USER/x", "output_dir")
    assert caught.value.where == "output_dir"
