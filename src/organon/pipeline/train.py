"""Training one config: resolved, taken from the store or trained, followed until it has ended."""

from __future__ import annotations

import asyncio
import dataclasses
from dataclasses import dataclass
from pathlib import Path

from organon.backends.base import JobState, JobStatus
from organon.backends.cached import CachedBackend
from organon.backends.training_run import TrainingRun
from organon.config.schema import RunConfig
from organon.config.spec import TrainSpec
from organon.pipeline.checkpoint_dir import check_backend, check_place, checkpoint_place, copy_checkpoints
from organon.pipeline.events import OnEvent, ignore
from organon.pipeline.resolve import open_backend, open_store, resolve
from organon.report.names import run_name
from organon.store.store import Store


@dataclass(frozen=True)
class Prepared:
    """A config resolved: what would be trained, under which key."""

    spec: TrainSpec
    key: str
    backend: CachedBackend
    store: Store
    checkpoint_dir: str | None = None  # where the folders of weights are wanted besides the store; with `{name}`


@dataclass(frozen=True)
class Trained:
    """A finished training and its folder in the store."""

    spec: TrainSpec
    key: str
    run: TrainingRun
    folder: Path


def prepare(config: RunConfig) -> Prepared:
    """Read and check everything that costs nothing, and name the training by its key."""
    store = open_store(config)
    backend = CachedBackend(open_backend(config), store, max_restarts=config.trainer.max_restarts)
    check_backend(config.checkpoint_dir, backend)
    spec = resolve(config, store, backend.backend)
    key = backend.key(spec)
    named = dataclasses.replace(spec, name=config.name or run_name(key))
    return Prepared(named, key, backend, store, config.checkpoint_dir)


async def train(config: RunConfig, *, on_event: OnEvent = ignore) -> Trained:
    """Train ``config``, or take it from the store.

    Raises:
        UserError: bad input, before anything is spent.
        TrainingError: the job failed.
    """
    return await train_prepared(prepare(config), on_event=on_event)


async def train_prepared(prepared: Prepared, *, on_event: OnEvent = ignore) -> Trained:
    """Submit the spec and follow the job; an interrupt cancels it after a checkpoint."""
    folder = prepared.store.place("runs", prepared.key)
    copies = checkpoint_place(prepared.checkpoint_dir, prepared.spec.name)
    if copies:
        check_place(copies, folder)
    run = await prepared.backend.submit_run(prepared.spec)
    if run.cached and prepared.spec.logger.wandb and not (folder / "logs" / "wandb").exists():
        on_event("note", text="note: this training is from the store and was made without wandb; nothing is sent now")
    if not run.cached:
        on_event("note", text=f"training {prepared.spec.name} (key {prepared.key[:12]})")
    try:
        await run.wait(on_status=lambda status: _show(status, on_event))
    except asyncio.CancelledError:
        on_event("note", text="stopping after a checkpoint ...")
        await run.cancel()
        raise
    if copies:
        await asyncio.to_thread(copy_checkpoints, folder, copies)
        on_event("note", text=f"checkpoints in {copies}")
    return Trained(prepared.spec, prepared.key, run, folder)


def _show(status: JobStatus, on_event: OnEvent) -> None:
    if status.state is JobState.PENDING or status.extra.get("cached"):
        return
    on_event(
        "train",
        label="training",
        done=status.step,
        total=status.total_steps,
        metrics=status.metrics,
        phase=status.extra.get("phase"),
        tokens_per_second=status.extra.get("tokens_per_second"),
    )
