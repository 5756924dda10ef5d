"""Checks of trainings on several devices."""

from __future__ import annotations

from organon.config.schema import AdapterConfig, OptimConfig, TrainerConfig
from organon.errors import ConfigError


def ranks(trainer: TrainerConfig) -> int:
    """How many processes train together, one for each device."""
    return trainer.devices * trainer.num_nodes


def normalise_ranks(trainer: TrainerConfig) -> None:
    """On a single device there is nothing to share: the strategy must not make another key."""
    if ranks(trainer) == 1:
        trainer.strategy = "ddp"


def check_ranks(trainer: TrainerConfig, adapter: AdapterConfig, optim: OptimConfig) -> None:
    """Refuse batches with fewer rows than devices (CFG-058), and what FSDP cannot shard (CFG-060)."""
    count = ranks(trainer)
    if trainer.global_batch_size < count:
        raise ConfigError(
            f"trainer.global_batch_size={trainer.global_batch_size} is less than one row for each of {count} devices",
            code="CFG-058",
            where="trainer.global_batch_size",
            fix=f"trainer.global_batch_size={count} or more, or fewer trainer.devices",
        )
    if count > 1 and trainer.strategy == "fsdp":
        _check_sharding(adapter, optim)


def _check_sharding(adapter: AdapterConfig, optim: OptimConfig) -> None:
    if adapter.quantization == "int8":
        raise ConfigError(
            "the weights of an int8 base cannot be shared between devices: bitsandbytes 0.50 keeps their scales apart",
            code="CFG-060",
            where="trainer.strategy",
            fix="trainer=ddp, or adapter.quantization=nf4",
        )
    if optim.name != "adamw":
        raise ConfigError(
            f"{optim.name} cannot be shared between devices: its 8-bit state is in blocks that span the parts",
            code="CFG-060",
            where="optim.name",
            fix="optim=adamw, whose state is shared between the devices, or trainer=ddp",
        )
