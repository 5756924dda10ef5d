"""The backend and its real worker process: started, watched, killed, stopped, taken up again.

A worker's start costs seconds of imports, so few are started as a user's command starts them; the
others are forked from the server in ``conftest.Lab``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from organon.backends.base import Backend, JobState, JobStatus
from organon.backends.lightning.backend import LightningBackend, child_environment
from organon.backends.lightning.training import training_identity
from organon.backends.lightning.workdir import Workdir
from organon.errors import ConfigError, TrainingError

KEY = "0123456789abcdef" * 4


async def until(backend: LightningBackend, job_id: str, condition: Any, seconds: float = 240) -> JobStatus:
    """Poll until ``condition(status)``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        status = await backend.poll(job_id)
        if condition(status):
            return status
        assert not status.state.is_final, status
        await asyncio.sleep(0.05)
    raise AssertionError(f"still {status} after {seconds} s")


async def until_locked(workdir: Path) -> None:
    """Wait for a worker's first sign of life."""
    for _ in range(1000):
        if Workdir(workdir).is_locked():
            return
        await asyncio.sleep(0.02)


def is_final(status: JobStatus) -> bool:
    return status.state.is_final


@contextlib.asynccontextmanager
async def watched(backend: LightningBackend, workdir: Path) -> AsyncIterator[LightningBackend]:
    """No worker outlives a failed test."""
    try:
        yield backend
    finally:
        pid = Workdir(workdir).holder()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        for job in backend._jobs.values():
            if job.process is not None:
                job.process.kill()
                job.process.wait(10)


async def test_a_killed_worker_is_started_again_and_ends_as_an_undisturbed_one(
    lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K3 and B1 (another process, cwd and PYTHONHASHSEED) with real workers; MO-62."""
    spec, workdir = lab.spec(dropout=0.1), tmp_path / "work"
    undisturbed = lab.train(spec, tmp_path / "undisturbed")  # forked: hash seed and cwd of another process
    monkeypatch.setenv("PYTHONHASHSEED", "12345")
    monkeypatch.setenv("SECRET_API_KEY", "never-to-be-seen")
    async with watched(LightningBackend(), workdir) as backend:
        monkeypatch.setenv("ORGANON_KILL_AT", "step:5")
        job = await backend.submit(spec, KEY, workdir)
        assert job == "lightning-0123456789abcdef"
        early = await backend.poll(job)
        assert (early.state, early.step) == (JobState.RUNNING, 0)
        pid = backend._jobs[job].process.pid
        assert "never-to-be-seen" not in Path(f"/proc/{pid}/environ").read_text()
        died = await until(backend, job, is_final)
        assert died.state is JobState.FAILED
        assert "worker died (signal 9, SIGKILL)" in str(died.error)

        monkeypatch.delenv("ORGANON_KILL_AT")
        assert await backend.submit(spec, KEY, workdir) == job
        status = await until(backend, job, is_final)
        assert (status.state, status.step, status.total_steps) == (JobState.SUCCEEDED, 6, 6)
        assert status.model_id == f"organon/{KEY}"
        assert status.extra["resumed_from_step"] == 4
        assert status.metrics["train/loss"] > 0
        checkpoint = await backend.fetch(job, tmp_path / "dest")
    assert (checkpoint.kind, checkpoint.folder) == ("adapter", "epoch_1")
    assert checkpoint.base == spec.base
    assert lab.adapter(tmp_path / "dest") == lab.adapter(undisturbed)
    assert lab.metrics(tmp_path / "dest", times=False) == lab.metrics(undisturbed, times=False)
    assert lab.final_state(workdir) == lab.final_state(undisturbed)
    assert (workdir / "logs.txt").read_text().count("WARNING") == 0
    assert not (tmp_path / "dest" / "checkpoints").exists()


async def test_a_second_process_attaches_and_cancel_ends_with_a_checkpoint(lab: Any, tmp_path: Path) -> None:
    """K11 through the backend: SIGTERM, one checkpoint, state cancelled; MO-26, MO-27."""
    spec = lab.spec(epochs=2000, checkpoint_every_n_steps=10_000, validation=[])
    process = lab.start(spec, tmp_path)
    await until_locked(tmp_path)
    async with watched(LightningBackend(), tmp_path) as backend:
        assert await backend.submit(spec, KEY, tmp_path) == "lightning-0123456789abcdef"
        assert backend._jobs["lightning-0123456789abcdef"].process is None  # attached, not started
        loaded = LightningBackend()
        loaded.attach("lightning-0123456789abcdef", tmp_path)
        await until(loaded, "lightning-0123456789abcdef", lambda s: s.step >= 2)
        began = time.monotonic()
        await loaded.cancel("lightning-0123456789abcdef")
        status = await until(loaded, "lightning-0123456789abcdef", is_final)
        assert time.monotonic() - began < 5
        assert status.state is JobState.CANCELLED
        process.join(5)
        assert process.exitcode == 143
        saved = lab.final_state(tmp_path)
        assert int(saved[:8]) == status.step == lab.metrics(tmp_path)[-1]["step"]
        with pytest.raises(TrainingError, match="no checkpoint: it is cancelled"):
            await loaded.fetch("lightning-0123456789abcdef", tmp_path)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_training_goes_on_exactly(lab: Any, tmp_path: Path, number: int, code: int) -> None:
    """K11: the checkpoint of a stop is as good as any."""
    spec = lab.spec(epochs=40, checkpoint_every_n_steps=10_000, dropout=0.1)
    process = lab.start(spec, tmp_path / "stopped")
    while lab_step(lab, tmp_path / "stopped") < 3:
        time.sleep(0.02)
    os.kill(process.pid, number)
    process.join(10)
    assert process.exitcode == code
    found = lab.status(tmp_path / "stopped")
    assert (found["state"], found["exit_code"]) == ("cancelled", code)
    lab.train(spec, tmp_path / "stopped")
    assert lab.status(tmp_path / "stopped")["resumed_from_step"] >= 3
    undisturbed = lab.train(spec, tmp_path / "undisturbed")
    assert lab.final_state(tmp_path / "stopped") == lab.final_state(undisturbed)
    assert lab.metrics(tmp_path / "stopped", times=False) == lab.metrics(undisturbed, times=False)


def test_a_stop_during_validation_leaves_it_to_the_next_start(lab: Any, tmp_path: Path) -> None:
    """The step whose validation was cut short has its log line, once, after the resume."""
    from safetensors import safe_open

    rows = lab.words(600, start=50)
    spec = lab.spec(epochs=1, validation=rows, micro_batch_size=1, checkpoint_every_n_steps=10_000)
    process = lab.start(spec, tmp_path / "stopped")
    while (
        not (tmp_path / "stopped" / "status.json").exists() or lab.status(tmp_path / "stopped")["phase"] != "validating"
    ):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGTERM)
    process.join(10)
    assert process.exitcode == 143
    assert [row["step"] for row in lab.metrics(tmp_path / "stopped")] == [1, 2]
    with safe_open(tmp_path / "stopped" / "checkpoints" / lab.final_state(tmp_path / "stopped"), "pt") as file:
        assert '"pending": {' in file.metadata()["organon"]
    lab.train(spec, tmp_path / "stopped")
    undisturbed = lab.train(spec, tmp_path / "undisturbed")
    assert lab.metrics(tmp_path / "stopped", times=False) == lab.metrics(undisturbed, times=False)
    assert lab.adapter(tmp_path / "stopped", 0) == lab.adapter(undisturbed, 0)


def test_a_second_signal_ends_at_once(lab: Any, tmp_path: Path) -> None:
    """K11: even where the first one cannot be heeded."""
    code = (
        "import sys, time, signal, os\n"
        "from organon.backends.lightning.stop import StopRequest\n"
        "stop = StopRequest(); stop.install(); stop.saving = True\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(0.05)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ})
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 130
    assert time.monotonic() - began < 1
    process.stdout.close()


def test_a_signal_while_loading_ends_at_once(lab: Any, tmp_path: Path) -> None:
    """There is nothing to save yet."""
    process = lab.start(lab.spec(epochs=500), tmp_path)
    while not (tmp_path / "status.json").exists():
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGTERM)
    process.join(5)
    assert process.exitcode == 143
    assert lab.status(tmp_path)["state"] == "cancelled"


def test_two_workers_never_train_in_one_folder(lab: Any, tmp_path: Path) -> None:
    lock = Workdir(tmp_path).lock()
    assert lock is not None
    try:
        assert lab.run(lab.spec(), tmp_path) == 1
        assert "another worker" in (tmp_path / "logs.txt").read_text()
        assert not (tmp_path / "status.json").exists()
    finally:
        os.close(lock)


async def test_a_finished_job_is_not_started_again(lab: Any, tmp_path: Path) -> None:
    spec = lab.spec(epochs=1)
    lab.train(spec, tmp_path)
    backend = LightningBackend()
    job = await backend.submit(spec, KEY, tmp_path)
    assert backend._jobs[job].process is None
    assert (await backend.poll(job)).state is JobState.SUCCEEDED
    checkpoint = await backend.fetch(job, tmp_path)  # into the workdir itself, as the store does
    assert checkpoint.folder == "epoch_0"
    assert not (tmp_path / "checkpoints").exists()
    assert (await backend.poll(job)).state is JobState.SUCCEEDED


async def test_a_worker_that_died_unseen_is_reported(lab: Any, tmp_path: Path) -> None:
    lab.run(lab.spec(), tmp_path, kill_at="step:3")
    backend = LightningBackend()
    backend.attach("lightning-0123456789abcdef", tmp_path)
    status = await backend.poll("lightning-0123456789abcdef")
    assert status.state is JobState.FAILED
    assert "worker died" in str(status.error)


async def test_unknown_jobs(tmp_path: Path) -> None:
    backend = LightningBackend()
    with pytest.raises(KeyError):
        await backend.poll("lightning-none")
    with pytest.raises(KeyError):
        backend.attach("lightning-none", tmp_path)
    assert isinstance(backend, Backend)


# -- what is refused before anything starts ------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"global_batch_size": 8, "micro_batch_size": 3}, r"3 does not divide .*=8\nfix: trainer.micro_batch_size=2"),
        ({"model": {"dtype": "float16"}}, "float16 is for evaluation"),
        ({"quantization": "none"}, "adapter.quantization is none"),
        ({"hyperparameters": {"n_epochs": 3}}, "n_epochs: arguments of a hosted service"),
    ],
)
async def test_specs_that_cannot_be_trained(lab: Any, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """Case 58, 60."""
    spec = lab.spec(**changes)
    with pytest.raises(ConfigError, match=message):
        LightningBackend().complete(spec)
    with pytest.raises(ConfigError, match=message):
        await LightningBackend().submit(spec, KEY, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_complete_adds_what_changes_float_sums(lab: Any) -> None:
    """Rule 11."""
    spec = LightningBackend().complete(lab.spec(threads=1))
    assert spec.compute == {"device": "cpu", "precision": spec.compute["precision"], "threads": 1}
    tokens = {"tokenizers", "jinja2", "organon-tokens"}
    assert set(spec.versions) == {"torch", "transformers", "peft", "bitsandbytes", *tokens}
    identity = LightningBackend().identity(spec)
    assert identity["compute"]["threads"] == 1
    assert set(identity["callbacks"]) >= {"epochs_to_save", "early_stopping_patience"}
    assert "log_every_n_steps" not in identity["callbacks"]
    assert str(lab.model_folder) not in str(identity)


def test_what_decides_the_key_decides_whose_checkpoints_these_are(lab: Any) -> None:
    """Else a killed full training, asked for again with another rank, has the same key and is refused its own."""
    full, again = (lab.spec(kind="full", quantization="none", rank=rank, alpha=rank) for rank in (4, 16))
    assert LightningBackend().identity(full) == LightningBackend().identity(again)
    assert training_identity(full, full.compute) == training_identity(again, again.compute)
    lora = [training_identity(lab.spec(rank=rank), {}) for rank in (4, 16)]
    assert lora[0] != lora[1]


def test_a_worker_gets_no_secret_of_another_service() -> None:
    """Rule 47."""
    given = {
        "PATH": "/bin", "HOME": "/root", "PYTHONPATH": "src", "HF_HOME": "/hf", "CUDA_VISIBLE_DEVICES": "0",
        "TOKENIZERS_PARALLELISM": "false", "OPENAI_API_KEY": "a", "WANDB_API_KEY": "b", "HF_TOKEN": "c",
        "AWS_SECRET_ACCESS_KEY": "d", "DATABASE_URL": "e", "SLURM_JWT": "f", "https_proxy": "g",
    }  # fmt: skip
    plain = child_environment(given, wandb=False, hub=False)
    assert set(plain) == {"PATH", "HOME", "PYTHONPATH", "HF_HOME", "CUDA_VISIBLE_DEVICES", "TOKENIZERS_PARALLELISM"}
    assert plain["PYTHONPATH"] == str(Path("src").absolute())
    assert set(child_environment(given, wandb=True, hub=False)) - set(plain) == {"WANDB_API_KEY", "https_proxy"}
    assert set(child_environment(given, wandb=False, hub=True)) - set(plain) == {"HF_TOKEN", "https_proxy"}


def lab_step(lab: Any, workdir: Path) -> int:
    return int(lab.status(workdir)["step"]) if (workdir / "status.json").exists() else 0
