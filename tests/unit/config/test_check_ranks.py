"""Refusals of trainings on several devices, before anything is read or started."""

from __future__ import annotations

import pytest

from organon.config.check_ranks import check_ranks, normalise_ranks
from organon.config.compose import compose
from organon.config.schema import AdapterConfig, OptimConfig, TrainerConfig
from organon.errors import ConfigError


def test_fewer_rows_than_devices_are_refused() -> None:
    trainer = TrainerConfig(devices=4, num_nodes=2, global_batch_size=7)
    with pytest.raises(ConfigError, match="less than one row for each of 8 devices") as caught:
        check_ranks(trainer, AdapterConfig(), OptimConfig())
    assert (caught.value.code, caught.value.where) == ("CFG-058", "trainer.global_batch_size")
    check_ranks(TrainerConfig(devices=4, num_nodes=2, global_batch_size=8), AdapterConfig(), OptimConfig())


@pytest.mark.parametrize(
    ("adapter", "optim", "where"),
    [
        (AdapterConfig(quantization="int8"), OptimConfig(), "trainer.strategy"),
        (AdapterConfig(), OptimConfig(name="adamw_8bit"), "optim.name"),
        (AdapterConfig(), OptimConfig(name="paged_adamw_8bit"), "optim.name"),
    ],
)
def test_what_fsdp_cannot_share_is_refused(adapter: AdapterConfig, optim: OptimConfig, where: str) -> None:
    sharded = TrainerConfig(devices=2, strategy="fsdp")
    with pytest.raises(ConfigError) as caught:
        check_ranks(sharded, adapter, optim)
    assert (caught.value.code, caught.value.where) == ("CFG-060", where)
    check_ranks(TrainerConfig(devices=2), adapter, optim)
    check_ranks(TrainerConfig(strategy="fsdp"), adapter, optim)


def test_a_single_device_has_one_strategy() -> None:
    """Else two names of one training would have two keys."""
    trainer = TrainerConfig(strategy="fsdp")
    normalise_ranks(trainer)
    assert trainer.strategy == "ddp"
    both = TrainerConfig(strategy="fsdp", num_nodes=2)
    normalise_ranks(both)
    assert both.strategy == "fsdp"


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_presets(name: str) -> None:
    config = compose("train", [f"trainer={name}", "trainer.accelerator=cpu"])
    assert (config.trainer.devices, config.trainer.strategy) == (2, name)
    alone = compose("train", [f"trainer={name}", "trainer.devices=1", "trainer.accelerator=cpu"])
    assert alone.trainer == compose("train", ["trainer=cpu"]).trainer


def test_refused_on_the_command_line() -> None:
    with pytest.raises(ConfigError, match="less than one row"):
        compose("train", ["trainer=ddp", "trainer.devices=32", "trainer.accelerator=cpu"])
