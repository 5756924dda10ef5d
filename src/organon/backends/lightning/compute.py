"""On what this machine will train: device, threads, precision and versions. They change float sums, so they
are part of the key. No torch: a cache hit must not pay for it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import os
import re
from pathlib import Path
from typing import Any

from loguru import logger

from organon.config.devices import gpu_present, torch_has_cuda, visible_gpus
from organon.config.schema import TrainerConfig
from organon.config.spec import TOKENS_FORMAT
from organon.errors import ConfigError

# What decides the tokens and what is computed with them.
DECIDE = ("torch", "transformers", "peft", "bitsandbytes", "tokenizers", "jinja2")
# Without these instructions bfloat16 is emulated on a CPU, and slower than float32.
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16", "sve_bf16"}
# Below this hidden size the casts cost what the faster products gain. Measured with AVX512-BF16, float32's
# time over bfloat16's: 0.6 to 1.2 at 128, 1.5 to 1.6 at 192, 1.4 to 1.7 at 256, 1.8 to 2.3 at 384.
BF16_WIDTH = 192


def compute_of(trainer: TrainerConfig, width: int | None = None) -> dict[str, Any]:
    """``device`` (cpu, cuda), ``precision`` (32, bf16) and, on the CPU, ``threads`` of a training here and now.

    ``precision=auto`` is bf16 where it pays: on a GPU, and on CPUs with bfloat16 instructions for models
    whose hidden size ``width`` is not very small (None: not known, taken for large). Else it is 32.

    Raises:
        ConfigError: CFG-060, more GPUs are asked for than there are.
    """
    device = _device(trainer.accelerator)
    precision = trainer.precision
    if precision == "auto":
        wide = width is None or width >= BF16_WIDTH
        precision = "bf16" if device == "cuda" or (wide and BF16_FLAGS & cpu_flags()) else "32"
    if device == "cuda":
        _check_devices(trainer.devices)
        return {"device": device, "precision": precision}
    cores = available_cores()
    if trainer.devices > cores:
        logger.warning("trainer.devices={}: as many processes share {} CPU cores, and wait", trainer.devices, cores)
    threads = trainer.threads or max(1, cores // trainer.devices)  # of each process
    return {"device": device, "precision": precision, "threads": threads}


def versions() -> dict[str, str]:
    """Versions of the packages that decide a training's result, and of organon's own way from rows to tokens."""
    return {name: importlib.metadata.version(name) for name in DECIDE} | {"organon-tokens": str(TOKENS_FORMAT)}


def available_cores() -> int:
    """Physical cores that this process may use: its affinity and its container's quota, hyper-threads counted once."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_siblings(cpu) for cpu in allowed}
    return max(1, min(len(cores), _quota()))


def _siblings(cpu: int) -> str:
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return path.read_text().strip()
    except OSError:
        return str(cpu)


def _quota() -> int:
    """CPUs of the container's quota (cgroup v2); very many if it has none."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return 1 << 20
    return 1 << 20 if quota == "max" else math.ceil(int(quota) / int(period))


def _device(accelerator: str) -> str:
    if accelerator == "cpu":
        return "cpu"
    if torch_has_cuda() and gpu_present():
        return "cuda"
    if accelerator == "gpu":
        reason = "no NVIDIA GPU is visible" if torch_has_cuda() else "the installed torch has no CUDA"
        raise ConfigError(
            f"gpu is asked for, but {reason}",
            code="CFG-060",
            where="trainer.accelerator",
            fix="trainer=cpu, or check `nvidia-smi` and CUDA_VISIBLE_DEVICES",
        )
    return "cpu"


def _check_devices(wanted: int) -> None:
    found = len(visible_gpus()) if wanted > 1 else 0
    if 0 < found < wanted:  # 0: one is enough, or nvidia-smi does not say
        raise ConfigError(
            f"{wanted} devices are asked for, and {found} GPU{'s are' if found > 1 else ' is'} visible",
            code="CFG-060",
            where="trainer.devices",
            fix=f"trainer.devices={found}, or check CUDA_VISIBLE_DEVICES",
        )


def cpu_flags() -> set[str]:
    """The CPU's instruction sets as Linux names them; none elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return set(found.group(1).split()) if found else set()
