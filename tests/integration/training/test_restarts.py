"""DL-45: a worker that something killed is started again, a few times, and goes on from its checkpoint."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from organon.backends.base import JobState
from organon.backends.cached import CachedBackend
from organon.backends.lightning.backend import LightningBackend
from organon.backends.training_run import TrainingRun
from organon.errors import OrganonError, TrainingError
from organon.store.store import Store


@pytest.fixture
def store(tmp_path: Path, lab: Any, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Workers are forked from the lab's server: no imports."""
    monkeypatch.setattr("organon.backends.lightning.backend._spawn", lab.spawn)
    return Store.open(tmp_path / "store")


def cached(store: Store, most: int) -> CachedBackend:
    return CachedBackend(LightningBackend(), store, max_restarts=most, retry_seconds=0.01)


async def until_step(run: TrainingRun, step: int) -> None:
    for _ in range(3000):
        if (await run.refresh()).step >= step:
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"no step {step} within a minute")


async def test_a_killed_worker_is_started_again_and_its_run_says_how_often(
    lab: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = lab.spec(dropout=0.1)
    backend = cached(store, most=2)
    monkeypatch.setenv("ORGANON_KILL_AT", "step:5")
    run = await backend.submit_run(spec)
    while run.metadata.get("retries", 0) == 0 and not run.state.is_final:
        if run.status == "retrying":
            assert "died (signal 9, SIGKILL)" in run.metadata["error"]
            monkeypatch.delenv("ORGANON_KILL_AT", raising=False)
        await run.refresh()
        await asyncio.sleep(0.02)
    assert await run.wait() == f"organon/{run.handle}"
    entry = store.find("runs", run.handle)
    assert entry is not None
    told = entry.read_json("training_run.json")["metadata"]
    assert (told["retries"], told["resumed_from_step"]) == (1, 4)
    assert len(store.failures("runs", run.handle)) == 1
    undisturbed = lab.train(spec, tmp_path / "undisturbed")
    assert lab.adapter(entry.path) == lab.adapter(undisturbed)
    assert lab.metrics(entry.path, times=False) == lab.metrics(undisturbed, times=False)


async def test_only_so_many_times(lab: Any, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORGANON_KILL_AT", "step:5")
    run = await cached(store, most=2).submit_run(lab.spec())
    with pytest.raises(TrainingError, match="SIGKILL"):
        await run.wait()
    assert (run.state, run.metadata["retries"]) == (JobState.FAILED, 2)
    assert len(store.failures("runs", run.handle)) == 3


@pytest.mark.parametrize(
    ("changes", "environment", "said"),
    [
        ({"target_modules": ["qq_proj"]}, {}, "CFG-059"),  # exit 2
        ({"oom_retries": 0}, {"ORGANON_NO_MEMORY_AT": "micro:2:0"}, "out of memory"),  # exit 1
    ],
)
async def test_a_failure_of_its_own_is_not_tried_again(
    lab: Any, store: Store, monkeypatch: pytest.MonkeyPatch, changes: Any, environment: dict[str, str], said: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    run = await cached(store, most=2).submit_run(lab.spec(**changes))
    with pytest.raises(OrganonError, match=said):
        await run.wait()
    assert run.metadata["retries"] == 0


async def test_a_cancelled_worker_is_not_started_again(lab: Any, store: Store) -> None:
    backend = cached(store, most=2)
    run = await backend.submit_run(lab.spec(epochs=2000, validation=[]))
    await until_step(run, 2)
    await run.cancel()
    assert (run.state, run.metadata["retries"]) == (JobState.CANCELLED, 0)


async def test_a_caller_that_took_the_job_up_starts_it_again_too(lab: Any, store: Store) -> None:
    """It does not know how the worker died, only that it had no last word."""
    spec = lab.spec(epochs=20, validation=[])
    first = await cached(store, most=1).submit_run(spec)
    second = await cached(store, most=1).submit_run(spec)
    await until_step(second, 2)
    status = json.loads((store.root / "staging" / "runs" / first.handle / "status.json").read_text())
    os.kill(status["pid"], signal.SIGKILL)
    assert await second.wait() == f"organon/{first.handle}"
    assert second.metadata["retries"] == 1
