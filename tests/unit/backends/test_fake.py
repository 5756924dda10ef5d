"""The fake backend: the contract, and what dry runs and tests rely on (DL-12, DL-14)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from tests.unit.backends.contract import BackendContract, Case, drain

from organon.backends.base import Backend, JobState
from organon.backends.fake import FakeBackend
from organon.config.spec import TrainSpec
from organon.errors import TrainingError
from organon.store.store import Store


class TestContract(BackendContract):
    @pytest.fixture
    def case(self, spec: TrainSpec) -> Case:
        return Case(
            spec=spec,
            make=FakeBackend,
            make_slow=lambda: FakeBackend(steps_before_done=1000),
            break_it=lambda: FakeBackend(steps_before_done=2, fail_with="quota exceeded"),
            message="quota exceeded",
            mend=FakeBackend,
        )


class TestContractOfRunningJobs(TestContract):
    """The same with jobs that take some polls."""

    @pytest.fixture
    def case(self, spec: TrainSpec) -> Case:
        return Case(
            spec=spec,
            make=lambda: FakeBackend(steps_before_done=3),
            make_slow=lambda: FakeBackend(steps_before_done=1000),
            break_it=lambda: FakeBackend(fail_with="quota exceeded"),
            message="quota exceeded",
            mend=lambda: FakeBackend(steps_before_done=1),
        )


def workdir(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name


async def test_ids_count_from_one(spec: TrainSpec, tmp_path: Path) -> None:
    """DL-12: first call gives job 1, succeeded immediately; the suffix is part of the model's id."""
    backend = FakeBackend()
    assert await backend.submit(spec, "a" * 64, workdir(tmp_path, "a")) == "fake-job-1"
    with_suffix = dataclasses.replace(spec, suffix="caps")
    assert await backend.submit(with_suffix, "b" * 64, workdir(tmp_path, "b")) == "fake-job-2"
    first, second = await backend.poll("fake-job-1"), await backend.poll("fake-job-2")
    assert (first.state, first.model_id) == (JobState.SUCCEEDED, "fake-model-1")
    assert second.model_id == "fake-model-2:caps"


async def test_polls_until_success_show_progress_and_a_falling_loss(spec: TrainSpec, tmp_path: Path) -> None:
    backend = FakeBackend(steps_before_done=4)
    folder = workdir(tmp_path, "a")
    job_id = await backend.submit(spec, "a" * 64, folder)
    seen = await drain(backend, job_id)
    assert [s.state for s in seen] == [JobState.RUNNING] * 4 + [JobState.SUCCEEDED]
    assert [s.step for s in seen] == sorted({s.step for s in seen})
    assert seen[-1].step == seen[-1].total_steps
    checkpoint = await backend.fetch(job_id, folder)
    assert (checkpoint.kind, checkpoint.folder) == ("hosted", None)
    losses = [json.loads(line)["train/loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == seen[-1].total_steps
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > 2 * losses[-1]


async def test_fail_jobs_bounds_the_failures(spec: TrainSpec, tmp_path: Path) -> None:
    """DL-18: the same key submitted again after a failure is a new job."""
    backend = FakeBackend(fail_with="no room", fail_jobs=1)
    folder = workdir(tmp_path, "a")
    first = await backend.submit(spec, "a" * 64, folder)
    assert (await backend.poll(first)).error == "no room"
    second = await backend.submit(spec, "a" * 64, folder)
    assert second != first
    assert (await backend.poll(second)).state is JobState.SUCCEEDED


async def test_fetch_of_an_unfinished_job_is_refused(spec: TrainSpec, tmp_path: Path) -> None:
    backend = FakeBackend(steps_before_done=1)
    job_id = await backend.submit(spec, "a" * 64, workdir(tmp_path, "a"))
    with pytest.raises(TrainingError, match="running"):
        await backend.fetch(job_id, tmp_path / "a")


async def test_alike_ids_of_two_processes_are_kept_apart(spec: TrainSpec, tmp_path: Path, store: Store) -> None:
    """Both count from 1; a job of the other one whose number is taken here is started again, not mixed up."""
    folder, ours = workdir(tmp_path, "theirs"), FakeBackend()
    await FakeBackend().submit(spec, "a" * 64, folder)
    await ours.submit(spec, "b" * 64, workdir(tmp_path, "ours"))
    assert await ours.submit(spec, "a" * 64, folder) == "fake-job-2"
    with pytest.raises(KeyError):
        ours.attach("fake-job-1", folder)


async def test_a_job_of_another_process_keeps_its_number_taken(spec: TrainSpec, tmp_path: Path) -> None:
    folder, ours = workdir(tmp_path, "theirs"), FakeBackend()
    job_id = await FakeBackend().submit(spec, "a" * 64, folder)
    ours.attach(job_id, folder)
    assert await ours.submit(spec, "b" * 64, workdir(tmp_path, "ours")) == "fake-job-2"


def test_any_model_name_will_do(spec: TrainSpec) -> None:
    hosted = dataclasses.replace(spec.base, name="gpt-x", hub_id="gpt-x", digest="hosted:gpt-x")
    assert FakeBackend().identity(dataclasses.replace(spec, base=hosted))["base"]["digest"] == "hosted:gpt-x"


def test_the_protocol_itself_cannot_be_instantiated() -> None:
    """DL-10."""
    with pytest.raises(TypeError):
        Backend()  # type: ignore[misc]
