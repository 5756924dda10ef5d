"""What is known of the work on a key: ``submission.json`` in its staging folder, and the records beside it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from organon.backends.base import JobState, JobStatus
from organon.backends.training_run import TrainingRun
from organon.config.spec import TrainSpec, to_dict
from organon.store.files import write_atomic
from organon.store.store import Entry

SUBMISSION = "submission.json"
RUN = "training_run.json"
CHECKPOINT = "checkpoint.json"
SPEC = "spec.json"
CONFIG = "config.json"
LOG = "logs.txt"
TOLD = ("best", "stopped_early", "oom_halvings", "resumed_from_step")  # of a job's status, in the run's metadata


@dataclass(frozen=True)
class Job:
    """How far the work on a key has come."""

    backend: str
    key: str
    metadata: dict[str, Any]  # of the training run
    labels: dict[str, str]  # of the store's entry
    job_id: str | None = None  # None: its submitter died before the backend answered
    attempts: int = 0  # jobs started for this key
    retries: int = 0  # of them, those started without being asked, after a failure
    retry_at: float | None = None  # seconds since the epoch
    ended: str | None = None  # "failed" or "cancelled"
    error: str | None = None
    replace: bool = False  # the result takes the place of a published one

    @classmethod
    def for_spec(cls, spec: TrainSpec, key: str, backend: str, attempts: int) -> Job:
        """A job about to be submitted, after ``attempts`` earlier ones for the same key."""
        labels = {"model": spec.base.name, "name": spec.name, "backend": backend}
        return cls(backend, key, run_metadata(spec, key), labels, attempts=attempts)

    @classmethod
    def read(cls, workdir: Path) -> Job | None:
        """The job recorded in ``workdir``; None if there is none."""
        try:
            return cls(**json.loads((workdir / SUBMISSION).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def write(self, workdir: Path) -> None:
        """Record the job in ``workdir``."""
        write_json(workdir / SUBMISSION, asdict(self))

    def write_run(self, workdir: Path, status: JobStatus) -> None:
        """Record the job's ``TrainingRun`` in ``workdir``, as it stands with ``status``; a line for ``logs.txt``."""
        metadata = {**self.metadata, "retries": self.retries}
        metadata |= {name: status.extra[name] for name in TOLD if status.extra.get(name)}
        if status.error:
            metadata["error"] = status.error
        run = TrainingRun(
            self.job_id or "",
            status.model_id,
            status.vendor_status or status.state.value,
            metadata,
            backend_type=self.backend,
            handle=self.key,
        )
        write_atomic(workdir / RUN, run.to_json())
        cause = f": {status.error.splitlines()[0]}" if status.error else ""
        with (workdir / LOG).open("a", encoding="utf-8") as log:  # the backend's own lines stand there as well
            log.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {self.backend} job {self.job_id} {run.status}{cause}\n")

    def status(self) -> JobStatus:
        """The status of a job that the backend need not be asked about."""
        state = JobState(self.ended) if self.ended else JobState.PENDING
        word = "retrying" if self.retry_at is not None else state.value
        return self.sign(JobStatus(state, word, error=self.error))

    def sign(self, status: JobStatus) -> JobStatus:
        """``status`` with the backend's job id and the retries so far."""
        return dataclasses.replace(status, extra={**status.extra, "job_id": self.job_id, "retries": self.retries})


def published_status(entry: Entry) -> JobStatus:
    """The status of a job whose result is in the store, under its original id."""
    run = entry.read_json(RUN)
    extra = {"job_id": run["job_id"], "retries": run["metadata"]["retries"]}
    return JobStatus(JobState.SUCCEEDED, run["status"], run["model_id"], extra=extra)


def run_metadata(spec: TrainSpec, key: str) -> dict[str, Any]:
    """What a ``TrainingRun`` tells about its spec."""
    return {
        "model": spec.base.hub_id or spec.base.name,
        "file_id": spec.dataset_hash,  # of the rows; a vendor that takes uploads has its own id for them
        "hyperparameters": spec.hyperparameters,
        "suffix": spec.suffix,
        "key": key,
        "dataset_hash": spec.dataset_hash,
        "name": spec.name,
        "seed": spec.seed,
    }


def config_of(spec: TrainSpec) -> dict[str, Any]:
    """The config groups of a spec and its scalars: what ``config.json`` holds when nobody gave more."""
    groups = ("model", "dataset", "adapter", "optim", "trainer", "callbacks", "logger")
    others = ("seed", "suffix", "hyperparameters", "extra", "name")
    return {name: to_dict(getattr(spec, name)) for name in groups} | {name: getattr(spec, name) for name in others}


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_atomic(path, json.dumps(value, indent=2) + "\n")
