"""A backend that trains nothing: instant, free, deterministic. For dry runs and for tests."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from organon.backends.base import JobState, JobStatus
from organon.config.spec import TrainSpec, identity
from organon.errors import TrainingError
from organon.store.files import write_atomic
from organon.store.records import Checkpoint

RECORD = "fake_job.json"  # in the job's workdir: what the vendor's database would hold
TOTAL_STEPS = 10


@dataclass
class _Job:
    job_id: str
    model_id: str
    key: str
    state: JobState
    polls_left: int
    polls: int
    error: str | None
    started_at: float


class FakeBackend:
    """Counts jobs from 1: ``fake-job-1`` yields ``fake-model-1`` or ``fake-model-1:<suffix>``.

    Accepts any model name. ``steps_before_done``: polls that see a running job before its end.
    ``fail_with``: the error message that jobs end with; ``fail_jobs``: how many do (None: all).
    """

    name = "fake"
    local = False  # it never looks at a model

    def __init__(
        self, *, steps_before_done: int = 0, fail_with: str | None = None, fail_jobs: int | None = None
    ) -> None:
        self.steps_before_done = steps_before_done
        self.fail_with = fail_with
        self.fail_jobs = fail_jobs
        self._jobs: dict[str, tuple[_Job, Path]] = {}
        self._started = 0

    def complete(self, spec: TrainSpec) -> TrainSpec:
        """The spec as it is."""
        return spec

    def identity(self, spec: TrainSpec) -> dict[str, Any]:
        """All that decides a real training, so that a dry run of a sweep has as many keys as the sweep."""
        found: dict[str, Any] = identity(spec)
        return found

    async def submit(self, spec: TrainSpec, key: str, workdir: Path) -> str:
        """Start a job, or attach to the one that ``workdir`` records for ``key``, failed ones excepted."""
        recorded = _read_record(workdir)
        if recorded and recorded.key == key and recorded.state not in (JobState.FAILED, JobState.CANCELLED):
            try:
                self.attach(recorded.job_id, workdir)
                return recorded.job_id
            except KeyError:  # the id is another job's here: both processes count from 1
                pass
        job = self._start(spec, key)
        self._jobs[job.job_id] = (job, workdir)
        _write_record(job, workdir)
        return job.job_id

    def attach(self, job_id: str, workdir: Path) -> None:
        """Take up a job that another process started in ``workdir``. Raises KeyError where none is recorded."""
        if job_id in self._jobs and self._jobs[job_id][1] == workdir:
            return
        recorded = _read_record(workdir)
        if recorded is None or recorded.job_id != job_id or job_id in self._jobs:
            raise KeyError(job_id)
        self._jobs[job_id] = (recorded, workdir)

    async def poll(self, job_id: str) -> JobStatus:
        """The job's state; each look at a running job brings it one look closer to its end."""
        job, workdir = self._jobs[job_id]
        if not job.state.is_final:
            if job.polls_left == 0:
                self._end(job, JobState.FAILED if job.error else JobState.SUCCEEDED, workdir)
            else:
                job.polls_left -= 1
                job.polls += 1
        return _status(job)

    async def cancel(self, job_id: str) -> None:
        """End the job as cancelled; no error if it has ended."""
        job, workdir = self._jobs[job_id]
        if not job.state.is_final:
            self._end(job, JobState.CANCELLED, workdir)

    async def fetch(self, job_id: str, dest: Path) -> Checkpoint:
        """A hosted checkpoint; metrics and status of the job as files in ``dest``."""
        job, _ = self._jobs[job_id]
        if job.state is not JobState.SUCCEEDED:
            raise TrainingError(f"job {job_id} has no checkpoint: it is {job.state}", fix="wait until it has succeeded")
        _write_record(job, dest)
        _write_outcome(job, dest)
        return Checkpoint(kind="hosted", model_id=job.model_id, metadata={"job_id": job_id, "backend": self.name})

    def _start(self, spec: TrainSpec, key: str) -> _Job:
        self._started += 1
        number = self._started
        while f"fake-job-{number}" in self._jobs:
            number += 1
        fails = self.fail_with is not None and (self.fail_jobs is None or self._started <= self.fail_jobs)
        return _Job(
            job_id=f"fake-job-{number}",
            model_id=f"fake-model-{number}" + (f":{spec.suffix}" if spec.suffix else ""),
            key=key,
            state=JobState.RUNNING,
            polls_left=self.steps_before_done,
            polls=0,
            error=self.fail_with if fails else None,
            started_at=time.time(),
        )

    def _end(self, job: _Job, state: JobState, workdir: Path) -> None:
        job.state = state
        if state is not JobState.SUCCEEDED:  # another process may be publishing a success right now
            _write_record(job, workdir)
            _write_outcome(job, workdir)


def _step(job: _Job) -> int:
    return (
        TOTAL_STEPS if job.state is JobState.SUCCEEDED else TOTAL_STEPS * job.polls // (job.polls + job.polls_left + 1)
    )


def _loss(step: int) -> float:
    return round(0.2 + 2.3 * math.exp(-4 * step / TOTAL_STEPS), 4)


def _status(job: _Job) -> JobStatus:
    step = _step(job)
    return JobStatus(
        state=job.state,
        vendor_status=job.state.value,
        model_id=job.model_id if job.state is JobState.SUCCEEDED else None,
        step=step,
        total_steps=TOTAL_STEPS,
        metrics={"train/loss": _loss(step)} if step else {},
        error=job.error if job.state is JobState.FAILED else None,
        started_at=job.started_at,
    )


def _read_record(workdir: Path) -> _Job | None:
    path = workdir / RECORD
    if not path.exists():
        return None
    fields = json.loads(path.read_text(encoding="utf-8"))
    return _Job(**{**fields, "state": JobState(fields["state"])})


def _write_record(job: _Job, workdir: Path) -> None:
    write_atomic(workdir / RECORD, json.dumps(dataclasses.asdict(job)).encode())


def _write_outcome(job: _Job, folder: Path) -> None:
    steps = range(1, _step(job) + 1)
    metrics = [{"step": step, "train/loss": _loss(step)} for step in steps]
    status = {**dataclasses.asdict(_status(job)), "job_id": job.job_id}
    write_atomic(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in metrics).encode())
    write_atomic(folder / "status.json", json.dumps(status).encode())
