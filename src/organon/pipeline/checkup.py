"""What this machine can do for a training, tried out rather than guessed: the findings of ``organon doctor``.

No finding names the host, the user or a key.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from organon.backends.lightning.backend import child_environment
from organon.backends.lightning.compute import BF16_FLAGS, available_cores, cpu_flags
from organon.backends.lightning.memory import available_memory
from organon.backends.lightning.metrics import wandb_mode
from organon.config.devices import Gpu, gpu_present, torch_has_cuda, visible_gpus
from organon.config.versions import TRAINING, packages
from organon.errors import OrganonError
from organon.redact import redact
from organon.report.numbers import size
from organon.report.provenance import anonymous
from organon.store.files import free_bytes
from organon.store.maintenance import stats
from organon.store.store import Store

State = Literal["ok", "warning", "problem"]
PROBE = "organon.backends.lightning.probe"
PROBE_SECONDS = 300.0  # torch alone takes half a minute from a slow network disk
LITTLE_MEMORY, LITTLE_DISK, NO_DISK = 2 * 2**30, 10 * 2**30, 2**30  # bytes
# Errors of a layer that works: quantising NF4 costs 0.092, FP4 0.122 and int8 0.007 of normal weights; the
# rest is rounding to bfloat16. A gradient that is lost or wrong has an error near 1.
LARGEST_WEIGHT_ERROR = {"nf4": 0.12, "fp4": 0.16, "int8": 0.02}
LARGEST_ROUNDING = 0.03


@dataclass(frozen=True)
class Finding:
    """One fact about this machine. ``fix``: what helps, where it is no ``ok``."""

    topic: str
    state: State
    text: str
    fix: str = ""


def examine(store: Path, output_dir: Path, *, fast: bool = False) -> Iterator[Finding]:
    """The findings, one by one as they are made. ``fast`` leaves out what must import torch (about ten seconds)."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        _python, _packages, _cpu, _memory, _gpus, *([] if fast else [_kernels]), _compiler,
        lambda: _disk(store, output_dir), lambda: _store(store), _hub, _wandb, _slurm,
    ]  # fmt: skip
    for check in checks:
        for found in check():
            yield Finding(found.topic, found.state, _clean(found.text), _clean(found.fix))


def _clean(text: str) -> str:
    return anonymous(redact(text))


def _python() -> Iterator[Finding]:
    from importlib.metadata import version

    yield Finding("organon", "ok", f"{version('organon')} on Python {platform.python_version()}")


def _packages() -> Iterator[Finding]:
    found = packages()
    for package in found:
        if not package.fits:
            what = f"{package.name} {package.version or 'is not installed'}; supported: {package.supported}"
            yield Finding("packages", "problem" if package.name in TRAINING else "warning", what, package.mend)
    if all(package.fits for package in found):
        shown = ", ".join(f"{p.name} {p.version}" for p in found if p.name in TRAINING)
        yield Finding("packages", "ok", f"{len(found)} in their supported ranges: {shown}")


def _cpu() -> Iterator[Finding]:
    cores, there = available_cores(), os.cpu_count() or 1
    bf16 = sorted(BF16_FLAGS & cpu_flags())
    how = f"bfloat16 in hardware ({', '.join(bf16)})" if bf16 else "no bfloat16 instructions, so it trains in float32"
    yield Finding("cpu", "ok", f"{cores} physical cores to use, of {there} logical ones on the machine; {how}")


def _memory() -> Iterator[Finding]:
    free = available_memory()
    if free < LITTLE_MEMORY:
        yield Finding("memory", "warning", f"{size(free)} free", "end other programs, or ask for more in the batch job")
    else:
        yield Finding("memory", "ok", f"{size(free)} free")


def _gpus() -> Iterator[Finding]:
    gpus = visible_gpus() if gpu_present() else []
    if not gpus:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") is not None and shutil.which("nvidia-smi") is not None
        yield Finding("gpu", "ok", f"none{' visible (CUDA_VISIBLE_DEVICES)' if hidden else ''}; training is on the CPU")
        return
    for number, gpu in enumerate(gpus):
        yield _gpu(number, gpu)
    if not torch_has_cuda():
        fix = "pip install torch from an index with CUDA: https://pytorch.org/get-started/locally"
        yield Finding("gpu", "problem", "the installed torch has no CUDA, so it cannot use the GPU", fix)


def _gpu(number: int, gpu: Gpu) -> Finding:
    text = (
        f"{number}: {gpu.name}, {size(gpu.memory_bytes)} ({size(gpu.free_bytes)} free), "
        f"compute capability {gpu.capability:g}, driver {gpu.driver}"
    )
    if not gpu.has_bf16:
        return Finding("gpu", "warning", f"{text}; no bfloat16", "trainer.precision=32 model.dtype=float32")
    return Finding("gpu", "ok", text)


def _kernels() -> Iterator[Finding]:
    """Torch and bitsandbytes, in a process of their own: what is broken there must not end this one."""
    environment = {**child_environment(os.environ, wandb=False, hub=False), "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", PROBE], capture_output=True, text=True, timeout=PROBE_SECONDS,
            env=environment, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        yield Finding("torch", "problem", f"no answer within {PROBE_SECONDS:.0f} s", 'python -c "import torch"')
        return
    if done.returncode:
        end = " ".join(done.stderr.split())[-300:]
        yield Finding("torch", "problem", f"ended with code {done.returncode}: {end}", 'python -c "import torch"')
        return
    yield from kernel_findings(json.loads(done.stdout.splitlines()[-1]))


def kernel_findings(probed: dict[str, Any]) -> Iterator[Finding]:
    """What the probe's answer means."""
    cuda = f"CUDA {probed['cuda']}" if probed["cuda"] else "no CUDA"
    if probed["cuda_error"] and gpu_present():
        fix = "compare the driver (`nvidia-smi`) with the CUDA that torch is built for"
        yield Finding("torch", "problem", f"{probed['torch']} ({cuda}) cannot use the GPU: {probed['cuda_error']}", fix)
    elif not all(gpu["multiplies"] for gpu in probed["gpus"]):
        yield Finding("torch", "problem", "a matrix product on the GPU is not finite", "check the GPU: `nvidia-smi -q`")
    else:
        yield Finding("torch", "ok", f"{probed['torch']} ({cuda})")
    for name, errors in probed["quantization"].items():
        yield _quantization(name, errors)


def _quantization(name: str, errors: dict[str, Any]) -> Finding:
    kind = name.partition(" ")[0]
    # NF4 is what adapter=qlora takes by default.
    bad: State = "problem" if kind == "nf4" else "warning"
    fix = "adapter=lora trains without quantisation" if kind == "nf4" else "adapter.quantization=nf4, or adapter=lora"
    if errors["error"]:
        return Finding(name, bad, f"does not work: {errors['error']}", fix)
    if errors["weight_error"] > LARGEST_WEIGHT_ERROR[kind]:
        return Finding(name, bad, f"quantising loses {errors['weight_error']:.0%} of a weight", fix)
    for part in ("output", "gradient"):
        if not errors[f"{part}_error"] <= LARGEST_ROUNDING:
            return Finding(name, bad, f"wrong {part} of a layer: relative error {errors[f'{part}_error']:.2g}", fix)
    rounding = max(errors["output_error"], errors["gradient_error"])
    return Finding(name, "ok", f"output and gradient of a layer are right (rounding {rounding:.1g})")


def _compiler() -> Iterator[Finding]:
    found = next((c for c in (os.environ.get("CXX", ""), "g++", "clang++") if c and shutil.which(c)), None)
    if found:
        yield Finding("compiler", "ok", f"{Path(found).name}: trainer.compile=true can work")
    else:
        yield Finding("compiler", "warning", "no C++ compiler, which trainer.compile=true needs", "apt-get install g++")


def _disk(*folders: Path) -> Iterator[Finding]:
    seen = set()
    for name, folder in zip(("store", "outputs"), folders, strict=True):
        place = next(p for p in (folder, *folder.parents) if p.exists())
        free, device = free_bytes(folder), place.stat().st_dev
        if device in seen or free is None:
            continue
        seen.add(device)
        fix = "organon cache prune --max-size 20G, or store=/another/disk"
        state: State = "problem" if free < NO_DISK else "warning" if free < LITTLE_DISK else "ok"
        writable = os.access(place, os.W_OK)
        if not writable:
            yield Finding("disk", "problem", f"{name} ({folder}) cannot be written", "store=..., output_dir=...")
        else:
            yield Finding("disk", state, f"{size(free)} free for {name} ({folder})", "" if state == "ok" else fix)


def _store(root: Path) -> Iterator[Finding]:
    if not root.exists():
        yield Finding("store", "ok", f"{root}: not there yet; the first run makes it")
        return
    try:
        store = Store.open(root)
        damage = store.index.check()
        total = stats(store)["total"]
    except (OrganonError, OSError) as error:
        cause = error.cause if isinstance(error, OrganonError) else str(error)
        fix = (error.fix if isinstance(error, OrganonError) else "") or "organon cache verify"
        yield Finding("store", "problem", f"{root}: {cause}", fix)
        return
    if damage:
        yield Finding("store", "problem", f"{root}: its index is damaged ({damage[0]})", "organon cache verify")
    else:
        yield Finding("store", "ok", f"{root}: {total['entries']} entries, {size(total['bytes'])}")


def _hub() -> Iterator[Finding]:
    from huggingface_hub import get_token
    from huggingface_hub.constants import HF_HUB_CACHE, HF_HUB_OFFLINE

    cache = Path(HF_HUB_CACHE)
    models = len(list(cache.glob("models--*")))
    network = "offline (HF_HUB_OFFLINE)" if HF_HUB_OFFLINE else "online"
    login = "a login" if get_token() else "no login (gated models need `hf auth login`)"
    yield Finding("hub", "ok", f"{models} models in {cache}; {network}; {login}")


def _wandb() -> Iterator[Finding]:
    mode = wandb_mode("auto")
    told = {"online": "runs are sent to wandb", "offline": "no login: runs are kept offline, `wandb sync` sends them"}
    yield Finding("wandb", "ok", told.get(mode, f"mode {mode} (WANDB_MODE)"))


def _slurm() -> Iterator[Finding]:
    if shutil.which("sbatch") is None:
        yield Finding("slurm", "ok", "not here")
        return
    try:
        done = subprocess.run(["sinfo", "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        yield Finding("slurm", "warning", "sbatch is here, but sinfo does not answer", "ask the cluster's support")
        return
    inside = "; this is a job of it" if "SLURM_JOB_ID" in os.environ else ""
    version = re.sub(r"^slurm(-wlm)?\s*", "", done.stdout.strip())
    if done.returncode:
        yield Finding("slurm", "warning", "sbatch is here, but no cluster is configured", "set SLURM_CONF")
    else:
        yield Finding("slurm", "ok", f"{version}{inside}")
