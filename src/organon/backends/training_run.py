"""``TrainingRun``: the user's handle on a training job, to wait for, save, and load elsewhere."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from loguru import logger

from organon.backends.base import Backend, JobState, JobStatus
from organon.errors import DataError, OrganonError, TrainingError, UserError
from organon.store.files import write_atomic

AGAIN = "the same command starts it again, from its last checkpoint where there is one"
POLL_GROWTH = 1.5  # factor between two waits; short jobs end soon, long ones are asked rarely


class TrainingRun:
    """One training job: what ``organon.train`` returns, at once.

    ``job_id`` is the backend's id of the job, ``status`` the backend's own word for its state,
    ``model_id`` is None until the job has succeeded. ``metadata`` holds at least model, file_id,
    hyperparameters, suffix, key and dataset_hash. ``handle`` is the id by which ``backend`` knows
    the job where that is not ``job_id``: the key, for a cached backend.
    """

    def __init__(
        self,
        job_id: str,
        model_id: str | None = None,
        status: str = JobState.PENDING.value,
        metadata: dict[str, Any] | None = None,
        *,
        backend: Backend | None = None,
        backend_type: str = "",
        handle: str | None = None,
    ) -> None:
        self.job_id = job_id
        self.model_id = model_id
        self.status = status
        self.metadata: dict[str, Any] = dict(metadata or {})
        self.backend = backend
        self.backend_type = backend_type or (backend.name if backend else "")
        self.handle = handle or job_id
        self.last: JobStatus | None = None  # the latest look at the job, with step and metrics
        self.state = _state_of(status, model_id)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(job_id={self.job_id!r}, model_id={self.model_id!r}, status={self.status!r})"

    @property
    def cached(self) -> bool:
        """True if the result was taken from the store and nothing was trained for this handle."""
        return bool(self.metadata.get("cached"))

    async def wait(
        self,
        poll_seconds: float = 0.2,
        max_poll_seconds: float = 2.0,
        on_status: Callable[[JobStatus], None] | None = None,
    ) -> str:
        """The model id, once the job has succeeded; ``on_status`` sees each poll on the way.

        The time between polls grows from ``poll_seconds`` to ``max_poll_seconds``. Raises
        TrainingError with the status and the backend's message if the job fails or is cancelled.
        """
        while not self.state.is_final:
            status = await self.refresh()
            if on_status:
                on_status(status)
            if not status.state.is_final:
                await asyncio.sleep(poll_seconds)
                poll_seconds = min(poll_seconds * POLL_GROWTH, max(poll_seconds, max_poll_seconds))
        if self.state is JobState.SUCCEEDED and self.model_id is not None:
            return self.model_id
        raise self._failure()

    async def refresh(self) -> JobStatus:
        """Look at the job once; updates ``status`` and ``model_id``."""
        status = await self._connected().poll(self.handle)
        self.last, self.state = status, status.state
        self.status = status.vendor_status or status.state.value
        self.model_id = status.model_id if status.state is JobState.SUCCEEDED else None
        self.job_id = str(status.extra.get("job_id") or self.job_id)  # a retried job has a new one
        if "retries" in status.extra:
            self.metadata["retries"] = status.extra["retries"]
        self.metadata.pop("error", None)
        if status.error:
            self.metadata["error"] = status.error
        return status

    async def is_complete(self) -> bool:
        """True if the job has succeeded, failed or been cancelled; looks at it once unless known."""
        if not self.state.is_final:
            await self.refresh()
        return self.state.is_final

    async def cancel(self, timeout_seconds: float = 60.0) -> None:
        """Ask the job to stop and wait until it has: ``status`` ends as cancelled.

        A job that has ended before stays as it is. A job that still runs after ``timeout_seconds``
        (it may be writing its checkpoint) keeps its status, and a warning says so.
        """
        backend = self._connected()
        await backend.cancel(self.handle)
        deadline, pause = time.monotonic() + timeout_seconds, 0.05
        while not (await self.refresh()).state.is_final:
            if time.monotonic() >= deadline:
                logger.warning("job {} was told to stop and is still {}", self.job_id, self.status)
                return
            await asyncio.sleep(pause)
            pause = min(pause * POLL_GROWTH, 1.0)

    async def save(self, path: str | Path) -> None:
        """Write the handle as JSON, atomically; ``load`` takes it up in any process."""
        await asyncio.to_thread(write_atomic, Path(path), self.to_json())

    def to_json(self) -> bytes:
        """The JSON that ``save`` writes."""
        record = {
            "job_id": self.job_id,
            "model_id": self.model_id,
            "status": self.status,
            "metadata": self.metadata,
            "backend_type": self.backend_type,
        }
        if self.handle != self.job_id:
            record["handle"] = self.handle
        return (json.dumps(record, indent=2) + "\n").encode()

    @classmethod
    async def load(cls, path: str | Path, backend: Backend | None = None) -> Self:
        """The run that ``save`` wrote. ``backend`` is needed to follow a job that has not ended.

        Raises DataError if the file is missing, is not JSON, or is not a training run.
        """
        try:
            text = await asyncio.to_thread(Path(path).read_text, encoding="utf-8")
            record = json.loads(text)
            return cls(
                record["job_id"],
                record["model_id"],
                record["status"],
                record["metadata"],
                backend=backend,
                backend_type=record.get("backend_type", ""),
                handle=record.get("handle"),
            )
        except OSError as error:
            raise DataError(f"cannot read the training run: {error.strerror}", where=str(path)) from error
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"not a training run: {error!r}",
                where=str(path),
                fix="name a file that TrainingRun.save wrote, such as runs/<key>/training_run.json",
            ) from error

    def _connected(self) -> Backend:
        if self.backend is None:
            raise UserError(
                f"job {self.job_id} cannot be followed: this run was loaded without a backend",
                fix=f"TrainingRun.load(path, backend=...) with the '{self.backend_type}' backend",
            )
        return self.backend

    def _failure(self) -> OrganonError:
        extra = self.last.extra if self.last else {}
        if extra.get("exit_code") == UserError.exit_code:
            # Found by the worker, but the user's to mend: trying again would change nothing.
            return DataError(
                str(extra.get("cause") or self.metadata.get("error")),
                code=str(extra.get("code") or ""),
                where=str(extra.get("where") or ""),
                fix=str(extra.get("fix") or ""),
            )
        # An error of the worker's ends with advice of its own, against which ours may speak.
        told = str(self.metadata.get("error") or "")
        message, _, fix = told.rpartition("\nfix: ")
        if not message or "\n" in fix:
            message, fix = told, AGAIN
        return TrainingError(
            f"job {self.job_id} ended {self.status}" + (f": {message}" if message else ""),
            where=str(self.metadata.get("key", "")),
            fix=fix,
        )


def _state_of(status: str, model_id: str | None) -> JobState:
    # A vendor's word that is none of ours, or a success without a model, counts as open: the next poll tells.
    if model_id is not None:
        return JobState.SUCCEEDED
    known = {state.value: state for state in JobState if state is not JobState.SUCCEEDED}
    return known.get(status, JobState.PENDING)
