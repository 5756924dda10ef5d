"""``organon doctor``: what is right is said to be right, what is broken is found, and nobody is named."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from organon.cli import doctor
from organon.config import devices
from organon.config.versions import check_versions, packages
from organon.errors import ConfigError
from organon.pipeline import checkup
from organon.pipeline.checkup import Finding
from organon.store.store import Store

SMI = """#!/bin/sh
echo "0, GPU-aaaa, Tesla T4, 15360, 15000, 7.5, 580.1"
echo "1, GPU-bbbb, NVIDIA H200, 143771, 143000, 9.0, 580.1"
"""
RIGHT = {"error": None, "weight_error": 0.09, "output_error": 0.003, "gradient_error": 0.003}


def pretend(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        found = versions.get(name, real(name))
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia-smi").write_text(SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(checkup, "gpu_present", lambda: True)


def organon_doctor(cwd: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "organon.cli", "doctor", *arguments]
    environment = {**os.environ, "ORGANON_STORE": "", "NO_COLOR": "1", **environment}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment, timeout=120, check=False)


def by_topic(findings: Any) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        found.setdefault(finding.topic, []).append(finding)
    return found


# -- versions -------------------------------------------------------------------------------------------


def test_installed_versions_are_supported() -> None:
    """CK-76: what the tests run with is inside of pyproject's ranges."""
    check_versions()
    assert {"torch", "hydra-core", "wandb"} <= {package.name for package in packages()}
    assert not {"pytest", "ruff"} & {package.name for package in packages()}  # of an extra


@pytest.mark.parametrize("version", ["2.14.0.dev20261120", "2.13.0+cu130", "2.99.1a0+gitabc"])
def test_nightly_and_local_builds_of_torch_are_supported(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """CK-76."""
    pretend(monkeypatch, torch=version)
    check_versions()


def test_a_version_outside_is_named_with_the_line_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """CK-76, case 60 (bitsandbytes is not there)."""
    pretend(monkeypatch, torch="3.0.0", bitsandbytes=None)
    with pytest.raises(ConfigError) as caught:
        check_versions()
    text = str(caught.value)
    assert caught.value.code == "CFG-060"
    assert "torch 3.0.0 (supported: >=2.8,<3)" in text
    assert "bitsandbytes is not installed" in text
    assert '"torch>=2.8,<3"' in text
    assert "pip install" in text


def test_only_what_a_training_needs_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, peft="0.20.0", wandb="0.40.0")
    states = {f.text.split()[0]: (f.state, f.fix) for f in checkup._packages()}
    assert states["peft"] == ("problem", 'pip install "peft>=0.21,<0.22"')
    assert states["wandb"][0] == "warning"


# -- devices --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nvidia_smi")
def test_gpus_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "torch_has_cuda", lambda: True)
    old, new = checkup._gpus()
    assert old.state == "warning"
    assert "Tesla T4, 15.0 GiB" in old.text
    assert "trainer.precision=32" in old.fix
    assert (new.state, "compute capability 9" in new.text) == ("ok", True)
    monkeypatch.setattr(checkup, "torch_has_cuda", lambda: False)
    assert [f.state for f in checkup._gpus()][-1] == "problem"


@pytest.mark.usefixtures("nvidia_smi")
@pytest.mark.parametrize(
    ("visible", "names"),
    [("1", ["NVIDIA H200"]), ("GPU-aa", ["Tesla T4"]), ("", []), ("0,1", ["Tesla T4", "NVIDIA H200"])],
)
def test_hidden_gpus_do_not_count(visible: str, names: list[str]) -> None:
    assert [gpu.name for gpu in devices.visible_gpus({"CUDA_VISIBLE_DEVICES": visible})] == names


@pytest.mark.usefixtures("nvidia_smi")
def test_more_devices_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 60."""
    from organon.backends.lightning import compute
    from organon.config.schema import TrainerConfig

    monkeypatch.setattr(compute, "torch_has_cuda", lambda: True)
    monkeypatch.setattr(compute, "gpu_present", lambda: True)
    assert compute.compute_of(TrainerConfig(devices=2))["device"] == "cuda"
    with pytest.raises(ConfigError, match="3 devices are asked for, and 2 GPUs are visible") as caught:
        compute.compute_of(TrainerConfig(devices=3))
    assert (caught.value.code, caught.value.where) == ("CFG-060", "trainer.devices")


# -- kernels --------------------------------------------------------------------------------------------


def probed(**changes: Any) -> dict[str, Any]:
    found = {"torch": "2.13.0", "cuda": None, "cuda_error": None, "gpus": [], "quantization": {"nf4 on cpu": RIGHT}}
    return {**found, **changes}


@pytest.mark.parametrize(
    ("kind", "errors", "state", "words"),
    [
        ("nf4", RIGHT, "ok", "right"),
        ("nf4", {**RIGHT, "gradient_error": 1.0}, "problem", "wrong gradient"),
        ("nf4", {**RIGHT, "output_error": float("nan")}, "problem", "wrong output"),
        ("nf4", {**RIGHT, "weight_error": 0.5}, "problem", "quantising loses 50%"),
        ("nf4", {"error": "RuntimeError: no kernel"}, "problem", "no kernel"),
        ("int8", {"error": "RuntimeError: no kernel"}, "warning", "no kernel"),  # nf4 is what qlora takes
    ],
)
def test_a_layer_that_computes_wrongly_is_found(kind: str, errors: dict[str, Any], state: str, words: str) -> None:
    (found,) = by_topic(checkup.kernel_findings(probed(quantization={f"{kind} on cpu": errors})))[f"{kind} on cpu"]
    assert found.state == state
    assert words in found.text
    assert (found.fix == "") == (state == "ok")


def test_a_gpu_that_torch_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "gpu_present", lambda: True)
    (found,) = by_topic(checkup.kernel_findings(probed(cuda="13.0", cuda_error="RuntimeError: driver too old")))[
        "torch"
    ]
    assert (found.state, "driver too old" in found.text) == ("problem", True)


@pytest.mark.parametrize("kind", ["nf4", "fp4", "int8"])
def test_the_real_layers_are_right_here(kind: str) -> None:
    """The same layer without our cure loses its gradient on a CPU with AVX512-BF16: the next test."""
    from organon.backends.lightning.probe import try_quantization

    _, layer = checkup.kernel_findings(probed(quantization={f"{kind} on cpu": try_quantization(kind, "cpu")}))
    assert layer.state == "ok", layer.text


def test_a_lost_gradient_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from organon.backends.lightning import probe

    if "avx512_bf16" not in checkup.cpu_flags():
        pytest.skip("bitsandbytes repacks its weights on CPUs with AVX512-BF16 only")
    monkeypatch.setattr("organon.models.load.keep_gradients", lambda model: None)
    found = probe.try_quantization("nf4", "cpu")
    assert checkup._quantization("nf4 on cpu", found).state == "problem"


def test_a_probe_that_dies_is_a_problem_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "PROBE", "organon.no_such_module")
    (found,) = checkup._kernels()
    assert found.state == "problem"
    assert "no_such_module" in found.text


# -- the machine ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("free", "state"), [(2**40, "ok"), (5 * 2**30, "warning"), (2**20, "problem")])
def test_disk_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: str) -> None:
    monkeypatch.setattr(checkup, "free_bytes", lambda path: free)
    found = list(checkup._disk(tmp_path / "store", tmp_path / "outputs"))
    assert [f.state for f in found] == [state]  # one disk, told once


def test_memory_that_is_short_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "available_memory", lambda: 2**30)
    assert [f.state for f in checkup._memory()] == ["warning"]


def test_a_machine_without_compiler_or_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("CXX", raising=False)
    assert [(f.state, "g++" in f.fix) for f in checkup._compiler()] == [("warning", True)]
    assert [f.text for f in checkup._slurm()] == ["not here"]


def test_a_store_is_looked_at_and_left_as_it_is(tmp_path: Path) -> None:
    (missing,) = checkup._store(tmp_path / "store")
    assert missing.state == "ok"
    assert not (tmp_path / "store").exists()
    store = Store.open(tmp_path / "store")
    store.put_dataset([{"messages": []}])
    (found,) = checkup._store(store.root)
    assert (found.state, "1 entries" in found.text) == ("ok", True)
    content = (store.root / "store.db").read_bytes()
    (store.root / "store.db").write_bytes(content[:60] + (99).to_bytes(4, "big") + content[64:])  # a newer organon's
    (newer,) = checkup._store(store.root)
    assert newer.state == "problem"


# -- the verb -------------------------------------------------------------------------------------------


def test_exit_code_says_whether_training_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [Finding("cpu", "ok", "2 cores"), Finding("disk", "warning", "little", "prune")]
    monkeypatch.setattr(doctor, "examine", lambda *_, **__: iter(found))
    assert doctor.main([]) == 0
    assert "fix: prune" in capsys.readouterr().out
    found.append(Finding("torch", "problem", "broken", "mend it"))
    assert doctor.main([]) == 1
    assert "1 problems, 1 warnings" in capsys.readouterr().out
    assert doctor.main(["--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert document["findings"][2] == {"topic": "torch", "state": "problem", "text": "broken", "fix": "mend it"}


def test_fast_is_fast_and_names_nobody(tmp_path: Path) -> None:
    """No user, home folder or key, though the store is in the user's home."""
    home = tmp_path / "home" / "janeroe"
    (home / "work").mkdir(parents=True)
    secrets = {"WANDB_API_KEY": "0123456789abcdef" * 3, "HF_TOKEN": "hf_" + "a" * 30}
    done = organon_doctor(
        home / "work", "--fast", "--json", HOME=str(home), USER="janeroe", LOGNAME="janeroe",
        PYTHONPROFILEIMPORTTIME="1", **secrets,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    topics = {f["topic"]: f["text"] for f in json.loads(done.stdout)["findings"]}
    assert {"organon", "packages", "cpu", "memory", "gpu", "disk", "store", "hub", "wandb", "slurm"} <= set(topics)
    assert "janeroe" not in done.stdout
    assert not any(secret in done.stdout for secret in secrets.values())
    assert "~/work/outputs/store" in topics["store"]
    assert "a login" in topics["hub"]
    assert "runs are sent to wandb" in topics["wandb"]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert not imported & {"torch", "transformers", "lightning", "hydra"}
