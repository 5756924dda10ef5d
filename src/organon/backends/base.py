"""The training backend seam: one small async Protocol that fake, local and remote backends share."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from organon.config.spec import TrainSpec
from organon.store.records import Checkpoint


class JobState(enum.StrEnum):
    """The five states a job can be in, whatever its vendor calls them."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True)
class JobStatus:
    """One look at a job."""

    state: JobState
    vendor_status: str = ""  # the vendor's own word
    model_id: str | None = None  # once succeeded
    step: int = 0  # optimizer steps done
    total_steps: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)  # latest value of each
    error: str | None = None
    killed: bool = False  # failed, but not for a reason of its own: the same job may end well another time
    started_at: float | None = None  # seconds since the epoch
    extra: dict[str, Any] = field(default_factory=dict)  # phase, tokens_per_second, resumed_from_step ...


@runtime_checkable
class Backend(Protocol):
    """Trains a spec somewhere. No backend knows the store's cache: ``cached.py`` wraps any of them."""

    name: str  # namespace in every cache key
    local: bool  # whether the base model's weights must be on this machine

    def complete(self, spec: TrainSpec) -> TrainSpec:
        """The spec with what this backend adds to it: device, threads, versions of its arithmetic."""
        ...

    def identity(self, spec: TrainSpec) -> dict[str, Any]:
        """The part of the spec that decides the result on this backend; hashed into the key."""
        ...

    async def submit(self, spec: TrainSpec, key: str, workdir: Path) -> str:
        """Start the job, or attach to the one already running for ``key``; the job's id.

        Idempotent on ``key``. ``workdir`` is the key's own staging folder; it survives crashes and
        holds what an earlier attempt left.
        """
        ...

    async def poll(self, job_id: str) -> JobStatus:
        """The job's state now. Raises KeyError for an id this backend never issued."""
        ...

    async def cancel(self, job_id: str) -> None:
        """Ask the job to stop after a checkpoint; no error if it has ended."""
        ...

    async def fetch(self, job_id: str, dest: Path) -> Checkpoint:
        """The checkpoint of a succeeded job, its files below ``dest``."""
        ...
