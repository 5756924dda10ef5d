"""``TrainingRun``: MO-02, MO-04, MO-19..27, MO-52, DL-15."""

from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from organon.backends.base import JobState, JobStatus
from organon.backends.cached import CachedBackend
from organon.backends.fake import FakeBackend
from organon.backends.training_run import TrainingRun
from organon.config.spec import TrainSpec
from organon.errors import DataError, TrainingError, UserError
from organon.store.store import Store


class Scripted:
    """A backend that gives the statuses it was told, then the last one for ever. Inherits nothing."""

    name = "scripted"
    local = False

    def __init__(self, *statuses: JobStatus) -> None:
        self.statuses = list(statuses)
        self.polled: list[str] = []
        self.cancelled: list[str] = []

    def complete(self, spec: TrainSpec) -> TrainSpec:
        return spec

    def identity(self, spec: TrainSpec) -> dict[str, Any]:
        return {"dataset": spec.dataset_hash}

    async def submit(self, spec: TrainSpec, key: str, workdir: Path) -> str:
        return "ftjob-1"

    async def poll(self, job_id: str) -> JobStatus:
        self.polled.append(job_id)
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]

    async def cancel(self, job_id: str) -> None:
        self.cancelled.append(job_id)

    async def fetch(self, job_id: str, dest: Path) -> Any:
        raise NotImplementedError


QUEUED = JobStatus(JobState.PENDING, "validating_files")
RUNNING = JobStatus(JobState.RUNNING, "running", step=3, total_steps=10, metrics={"train/loss": 1.5})
DONE = JobStatus(JobState.SUCCEEDED, "succeeded", model_id="ft:gpt-x:1")
FAILED = JobStatus(JobState.FAILED, "failed", error="invalid training file")
CANCELLED = JobStatus(JobState.CANCELLED, "cancelled")


def run_on(*statuses: JobStatus) -> tuple[TrainingRun, Scripted]:
    backend = Scripted(*statuses)
    return TrainingRun("ftjob-1", backend=backend, metadata={"key": "k"}), backend


@pytest.mark.parametrize("name", ["wait", "refresh", "is_complete", "cancel", "save", "load"])
def test_every_io_function_is_a_coroutine(name: str) -> None:
    """MO-02."""
    assert inspect.iscoroutinefunction(getattr(TrainingRun, name))


@pytest.mark.parametrize("name", ["submit", "poll", "cancel", "fetch", "submit_run"])
def test_every_backend_call_is_a_coroutine(name: str) -> None:
    """MO-02."""
    assert inspect.iscoroutinefunction(getattr(CachedBackend, name))


async def test_refresh_looks_once_and_tracks_the_vendors_words() -> None:
    """MO-20, MO-21, MO-24."""
    run, backend = run_on(QUEUED, RUNNING, DONE)
    words = []
    for looks in (1, 2, 3):
        await run.refresh()
        words.append((run.status, run.model_id))
        assert backend.polled == ["ftjob-1"] * looks
    assert words == [("validating_files", None), ("running", None), ("succeeded", "ft:gpt-x:1")]


async def test_a_model_id_before_success_is_not_shown() -> None:
    """MO-20."""
    run, _ = run_on(JobStatus(JobState.RUNNING, "running", model_id="ft:too-early"))
    await run.refresh()
    assert run.model_id is None


async def test_wait_gives_the_model_id_and_shows_each_look() -> None:
    """MO-23."""
    run, _ = run_on(QUEUED, RUNNING, RUNNING, DONE)
    seen: list[JobStatus] = []
    assert await run.wait(poll_seconds=0.001, on_status=seen.append) == "ft:gpt-x:1"
    assert seen == [QUEUED, RUNNING, RUNNING, DONE]
    assert run.last == DONE


async def test_waits_grow_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    run, _ = run_on(*[RUNNING] * 8, DONE)
    await run.wait(poll_seconds=0.2, max_poll_seconds=1.0)
    assert pauses[0] == 0.2
    assert pauses == sorted(pauses)
    assert pauses[-1] == 1.0
    pauses.clear()
    run, _ = run_on(*[RUNNING] * 3, DONE)
    await run.wait(poll_seconds=30, max_poll_seconds=1.0)
    assert pauses == [30.0, 30.0, 30.0], "a user's own longer pause is kept"


@pytest.mark.parametrize(("end", "words"), [(FAILED, ["failed", "invalid training file"]), (CANCELLED, ["cancelled"])])
async def test_wait_raises_with_status_and_message(end: JobStatus, words: list[str]) -> None:
    """MO-23; again without another look, as the job has ended."""
    run, backend = run_on(RUNNING, end)
    for _ in range(2):
        with pytest.raises(TrainingError) as caught:
            await run.wait(poll_seconds=0.001)
        assert all(word in str(caught.value) for word in ["ftjob-1", *words])
    assert len(backend.polled) == 2
    assert run.model_id is None


async def test_an_error_is_forgotten_once_a_retry_succeeds() -> None:
    run, _ = run_on(JobStatus(JobState.PENDING, "retrying", error="node lost"), DONE)
    await run.refresh()
    assert run.metadata["error"] == "node lost"
    await run.wait()
    assert "error" not in run.metadata


@pytest.mark.parametrize("end", [DONE, FAILED, CANCELLED])
async def test_is_complete_for_each_end(end: JobStatus) -> None:
    """MO-25."""
    run, backend = run_on(RUNNING, end)
    assert [await run.is_complete() for _ in range(3)] == [False, True, True]
    assert len(backend.polled) == 2


async def test_cancel_ends_cancelled() -> None:
    """MO-26: the job may take some looks to stop."""
    run, backend = run_on(RUNNING, RUNNING, CANCELLED)
    await run.cancel()
    assert (backend.cancelled, run.status, run.state) == (["ftjob-1"], "cancelled", JobState.CANCELLED)


async def test_cancel_does_not_wait_for_ever() -> None:
    run, backend = run_on(RUNNING)
    await run.cancel(timeout_seconds=0.1)
    assert (backend.cancelled, run.status) == (["ftjob-1"], "running")


async def test_save_and_load_in_this_process(tmp_path: Path) -> None:
    """MO-22, MO-27."""
    run, backend = run_on(RUNNING, DONE)
    run.metadata["hyperparameters"] = {"n_epochs": 3}
    await run.refresh()
    await run.save(tmp_path / "run.json")
    record = json.loads((tmp_path / "run.json").read_text())
    assert {"job_id", "model_id", "status", "metadata"} <= set(record)
    assert (record["status"], record["backend_type"]) == ("running", "scripted")
    loaded = await TrainingRun.load(tmp_path / "run.json", backend)
    assert (loaded.job_id, loaded.model_id, loaded.metadata) == ("ftjob-1", None, run.metadata)
    assert await loaded.wait() == "ft:gpt-x:1"


async def test_a_finished_run_needs_no_backend(tmp_path: Path) -> None:
    run, _ = run_on(DONE)
    await run.wait()
    await run.save(tmp_path / "run.json")
    loaded = await TrainingRun.load(tmp_path / "run.json")
    assert await loaded.wait() == "ft:gpt-x:1"
    assert await loaded.is_complete()


async def test_a_failed_run_still_tells_why_after_loading(tmp_path: Path) -> None:
    run, _ = run_on(FAILED)
    await run.is_complete()
    await run.save(tmp_path / "run.json")
    with pytest.raises(TrainingError, match="invalid training file"):
        await (await TrainingRun.load(tmp_path / "run.json")).wait()


async def test_following_an_open_run_without_a_backend_says_what_to_pass(tmp_path: Path) -> None:
    run, _ = run_on(RUNNING)
    await run.save(tmp_path / "run.json")
    loaded = await TrainingRun.load(tmp_path / "run.json")
    with pytest.raises(UserError, match="'scripted' backend"):
        await loaded.wait()


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '"text"', '{"job_id": "a"}', '{"job_id": "a", "model_id": null, "status": 3, "metadata": 7}'],
)
async def test_a_damaged_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(DataError, match=r"run\.json"):
        await TrainingRun.load(tmp_path / "run.json")


async def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        await TrainingRun.load(tmp_path / "run.json")


OTHER_PROCESS = """
import asyncio, sys
from organon.backends.cached import CachedBackend
from organon.backends.fake import FakeBackend
from organon.backends.training_run import TrainingRun
from organon.store.store import Store

async def main():
    run = await TrainingRun.load(sys.argv[1], CachedBackend(FakeBackend(), Store.open(sys.argv[2])))
    print(run.job_id, run.model_id, await run.wait(), run.status)

asyncio.run(main())
"""


async def in_another_process(path: Path, store: Store) -> str:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", OTHER_PROCESS, str(path), str(store.root)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


async def test_save_here_and_wait_in_another_process(tmp_path: Path, store: Store, spec: TrainSpec) -> None:
    """MO-27: first while the job is open, then after it was published here."""
    run = await CachedBackend(FakeBackend(steps_before_done=1), store).submit_run(spec)
    await run.save(tmp_path / "run.json")
    assert await in_another_process(tmp_path / "run.json", store) == "fake-job-1 None fake-model-1 succeeded"
    assert store.find("runs", run.metadata["key"]) is not None
    assert await in_another_process(tmp_path / "run.json", store) == "fake-job-1 None fake-model-1 succeeded"
    assert await run.wait() == "fake-model-1"


async def test_wait_writes_nothing(tmp_path: Path, spec: TrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """DL-15: a run on a plain backend caches nothing."""
    monkeypatch.chdir(tmp_path)
    backend, workdir = FakeBackend(steps_before_done=2), tmp_path / "work"
    workdir.mkdir()
    job_id = await backend.submit(spec, "k", workdir)
    before = sorted(tmp_path.rglob("*"))
    assert await TrainingRun(job_id, backend=backend).wait(poll_seconds=0.001) == "fake-model-1"
    assert sorted(tmp_path.rglob("*")) == before


class Shouting(TrainingRun):
    async def wait(self, *args: Any, **kwargs: Any) -> str:
        return (await super().wait(*args, **kwargs)).upper()


async def test_a_subclass_works_through_submit_and_load(tmp_path: Path, store: Store, spec: TrainSpec) -> None:
    """MO-04."""
    run = await CachedBackend(FakeBackend(), store).submit_run(spec, run_type=Shouting)
    assert await run.wait() == "FAKE-MODEL-1"
    await run.save(tmp_path / "run.json")
    assert isinstance(await Shouting.load(tmp_path / "run.json"), Shouting)


def test_repr_tells_job_and_status() -> None:
    run, _ = run_on(RUNNING)
    assert repr(run) == "TrainingRun(job_id='ftjob-1', model_id=None, status='pending')"


async def test_the_workers_own_advice_counts_and_is_told_once() -> None:
    """CKPT-072: the same command would fail again."""
    told = TrainingError("it is of another training", code="CKPT-072", where="checkpoints/00000004", fix="remove it")
    run, _ = run_on(JobStatus(JobState.FAILED, "failed", error=str(told)))
    with pytest.raises(TrainingError, match="it is of another training") as caught:
        await run.wait()
    text = str(caught.value)
    assert text.count("fix: ") == 1
    assert text.endswith("fix: remove it")
    assert "error[CKPT-072] checkpoints/00000004: it is" in text


@pytest.mark.parametrize("error", ["node lost", None, "worker died\nIts log ends:\nfix: a\nwords"])
async def test_without_advice_the_same_command_is_it(error: str | None) -> None:
    run, _ = run_on(JobStatus(JobState.FAILED, "failed", error=error))
    with pytest.raises(TrainingError) as caught:
        await run.wait()
    assert caught.value.fix.startswith("the same command starts it again")
    assert (error or "ended failed") in caught.value.cause
