"""Checks of the adapter and the optimizer: every combination that peft or bitsandbytes cannot do, or would ignore.

What depends on the model's layers is checked when they are there: ``organon.models.adapters.new_adapter``.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from organon.config.devices import gpu_present
from organon.config.schema import AdapterConfig, OptimConfig, TrainerConfig
from organon.errors import ConfigError

HIGHEST_RANK = 1024
_LORA_ONLY = (
    "use_rslora", "use_dora", "init", "bias", "rank_pattern", "alpha_pattern", "modules_to_save", "train_embeddings",
)  # fmt: skip

_NOT_QUANTISED = {
    "pissa": "peft cannot take the principal part out of quantised weights",
    "olora": "what is left of the base would be quantised anew, so the adapter would not fit the base as it is",
    "orthogonal": "peft draws the adapter in the dtype of the base's weights, which are integers there",
}


def check_adapter(adapter: AdapterConfig) -> None:
    """Refuse combinations that contradict each other, or that peft or bitsandbytes cannot do (CFG-058, CFG-060)."""
    _check_quantization(adapter)
    if adapter.kind == "full":
        _refuse_ignored(adapter)
        return
    _check_patterns(adapter)
    _check_init(adapter)
    _check_modules_to_save(adapter)
    if adapter.bias != "none" and adapter.quantization != "none":
        raise _refused(
            "bias",
            f"adapter.bias={adapter.bias} on a {adapter.quantization} base: its layers would cast the biases that are "
            "trained to the precision that they compute in",
            "adapter=lora, or adapter.bias=none",
            "CFG-060",
        )


def check_trained_in(adapter: AdapterConfig) -> None:
    """Refuse to train through float16 (CFG-060); an evaluation may use it."""
    if adapter.compute_dtype == "float16":
        raise _refused(
            "compute_dtype",
            "float16 cannot hold small gradients without loss scaling, which organon does not do",
            "adapter.compute_dtype=bfloat16, or float32 on a GPU without bfloat16",
            "CFG-060",
        )


def check_needs_gpu(adapter: AdapterConfig, optim: OptimConfig, trainer: TrainerConfig) -> None:
    """Refuse what bitsandbytes or peft can do on a GPU only, where there is none (CFG-060)."""
    if trainer.accelerator != "cpu" and gpu_present():
        return
    if adapter.use_dora and adapter.quantization == "int8":
        raise _refused(
            "use_dora",
            "DoRA on an int8 base works on a GPU only: on a CPU, peft 0.21 loses the scales of the int8 weights",
            "adapter.quantization=nf4, or adapter.use_dora=false",
            "CFG-060",
        )
    if optim.name == "paged_adamw_8bit":
        raise ConfigError(
            "paged_adamw_8bit pages between a GPU and its host; this training is on the CPU",
            code="CFG-060",
            where="optim.name",
            fix="optim.name=adamw_8bit",
        )


def _check_quantization(adapter: AdapterConfig) -> None:
    if adapter.kind == "qlora" and adapter.quantization == "none":
        raise _refused(
            "quantization",
            "adapter.kind=qlora needs a quantised base",
            "adapter=lora for an unquantised base, or adapter.quantization=nf4",
        )
    if adapter.kind != "qlora" and adapter.quantization != "none":
        raise _refused(
            "quantization",
            f"adapter.kind={adapter.kind} trains on an unquantised base, got {adapter.quantization}",
            "adapter=qlora, or adapter.quantization=none",
        )
    if adapter.compute_dtype != "auto" and adapter.quantization not in ("nf4", "fp4"):
        what = "LLM.int8() computes in int8" if adapter.quantization == "int8" else "the base is not quantised"
        raise _refused(
            "compute_dtype",
            f"{adapter.compute_dtype} is what 4-bit layers compute in, but {what}",
            "adapter.compute_dtype=auto; model.dtype and trainer.precision say what all else computes in",
        )


def _refuse_ignored(adapter: AdapterConfig) -> None:
    defaults = {field.name: _default(field) for field in dataclasses.fields(AdapterConfig)}
    for name in _LORA_ONLY:
        if getattr(adapter, name) != defaults[name]:
            raise _refused(name, "adapter.kind=full trains every weight, without an adapter", "adapter=lora")


def _check_patterns(adapter: AdapterConfig) -> None:
    for field, most in (("rank_pattern", HIGHEST_RANK), ("alpha_pattern", None)):
        for pattern, value in getattr(adapter, field).items():
            try:
                re.compile(pattern)
            except re.error as error:
                raise _refused(
                    field, f"'{pattern}' is not a pattern: {error}", f"adapter.{field}={{q_proj: 16}}"
                ) from error
            if value < 1 or (most is not None and value > most):
                allowed = f"1 to {most}" if most else "at least 1"
                raise _refused(field, f"{pattern}: {value}; must be {allowed}", "")


def _check_init(adapter: AdapterConfig) -> None:
    if adapter.quantization != "none" and adapter.init in _NOT_QUANTISED:
        raise _refused(
            "init",
            f"{adapter.init} on a {adapter.quantization} base: {_NOT_QUANTISED[adapter.init]}",
            "adapter=lora, or adapter.init=gaussian",
            "CFG-060",
        )
    if adapter.init in ("pissa", "olora") and adapter.use_rslora and (adapter.rank_pattern or adapter.alpha_pattern):
        raise _refused(
            "init",
            f"{adapter.init} with use_rslora and a rank or alpha pattern: the saved adapter has twice the rank, and "
            "peft cannot keep the scaling of all its modules",
            "leave one of them out",
            "CFG-060",
        )
    odd = [rank for rank in (adapter.rank, *adapter.rank_pattern.values()) if rank % 2]
    if adapter.init == "orthogonal" and odd:
        raise _refused("init", f"orthogonal needs an even rank, got {odd[0]}", f"adapter.rank={odd[0] + 1}", "CFG-060")


def _check_modules_to_save(adapter: AdapterConfig) -> None:
    targets = adapter.target_modules if isinstance(adapter.target_modules, (list, tuple)) else []
    both = sorted(set(adapter.modules_to_save) & set(targets))
    if both:
        raise _refused(
            "modules_to_save",
            f"{both[0]} is in adapter.target_modules too: a module is either trained in full or adapted",
            "leave it out of one of them",
        )
    for name in adapter.modules_to_save:
        if not re.fullmatch(r"[\w-]+(\.[\w-]+)*", name):
            raise _refused("modules_to_save", f"'{name}' is not the name of a module", "adapter.modules_to_save=[norm]")


def _default(field: Any) -> Any:
    return field.default if field.default is not dataclasses.MISSING else field.default_factory()


def _refused(field: str, cause: str, fix: str, code: str = "CFG-058") -> ConfigError:
    return ConfigError(cause, code=code, where=f"adapter.{field}", fix=fix)
