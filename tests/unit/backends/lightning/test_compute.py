"""What this machine trains on, told without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from organon.backends.lightning import compute
from organon.config.schema import TrainerConfig
from organon.errors import ConfigError


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(compute, "torch_has_cuda", lambda: True)
    monkeypatch.setattr(compute, "gpu_present", lambda: True)


def test_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "gpu_present", lambda: False)
    monkeypatch.setattr(compute, "cpu_flags", lambda: {"avx2"})
    found = compute.compute_of(TrainerConfig(threads=3))
    assert found == {"device": "cpu", "precision": "32", "threads": 3}
    assert compute.compute_of(TrainerConfig())["threads"] == compute.available_cores()


def test_bf16_where_the_cpu_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "cpu_flags", lambda: {"avx512_bf16"})
    assert compute.compute_of(TrainerConfig(accelerator="cpu"))["precision"] == "bf16"
    assert compute.compute_of(TrainerConfig(accelerator="cpu", precision="32"))["precision"] == "32"
    assert compute.compute_of(TrainerConfig(accelerator="cpu"), 128)["precision"] == "32"  # it would not pay
    assert compute.compute_of(TrainerConfig(accelerator="cpu"), 2048)["precision"] == "bf16"


@pytest.mark.usefixtures("gpu")
def test_gpu() -> None:
    assert compute.compute_of(TrainerConfig()) == {"device": "cuda", "precision": "bf16"}
    assert compute.compute_of(TrainerConfig(accelerator="cpu"))["device"] == "cpu"


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 60."""
    monkeypatch.setattr(compute, "torch_has_cuda", lambda: False)
    with pytest.raises(ConfigError, match="installed torch has no CUDA") as caught:
        compute.compute_of(TrainerConfig(accelerator="gpu"))
    assert caught.value.code == "CFG-060"
    monkeypatch.setattr(compute, "torch_has_cuda", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match="no NVIDIA GPU is visible"):
        compute.compute_of(TrainerConfig(accelerator="gpu"))


def test_cores_heed_affinity_quota_and_hyper_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute.os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(compute, "_siblings", lambda cpu: f"{cpu % 4},{cpu % 4 + 4}")
    monkeypatch.setattr(compute, "_quota", lambda: 1 << 20)
    assert compute.available_cores() == 4
    monkeypatch.setattr(compute, "_quota", lambda: 3)
    assert compute.available_cores() == 3


def test_no_torch() -> None:
    code = (
        "import sys, organon.backends.lightning.backend as b; from organon.config.schema import TrainerConfig;"
        "b.compute_of(TrainerConfig()); b.versions(); sys.exit(len({'torch', 'lightning', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_torch_itself_agrees() -> None:
    import torch

    assert compute.torch_has_cuda() == (torch.version.cuda is not None)
    assert compute.versions()["torch"] == torch.__version__


def test_what_decides_the_tokens_is_in_the_key() -> None:
    """In that of a training, with organon's own format, and in that of an evaluation."""
    from organon.config.spec import TOKENS_FORMAT
    from organon.evals.target import engine
    from organon.models.token_files import FORMAT

    assert compute.versions()["organon-tokens"] == str(TOKENS_FORMAT) == str(FORMAT)
    for versions in (compute.versions(), engine("cpu")["versions"]):
        assert {"torch", "transformers", "peft", "bitsandbytes", "tokenizers", "jinja2"} <= set(versions)


def test_the_ranks_of_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "available_cores", lambda: 6)
    for devices, threads in ((1, 6), (2, 3), (4, 1), (8, 1)):
        assert compute.compute_of(TrainerConfig(accelerator="cpu", devices=devices))["threads"] == threads
    assert compute.compute_of(TrainerConfig(accelerator="cpu", devices=2, threads=5))["threads"] == 5
