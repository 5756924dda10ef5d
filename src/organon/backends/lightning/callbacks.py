"""Lightning callbacks: the guard against lost gradients, and all that follows an optimizer step."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from loguru import logger

from organon.backends.lightning.checkpoint_io import Checkpoints, TrainState
from organon.backends.lightning.datamodule import ChatDataModule, StepBatch
from organon.backends.lightning.faults import reached
from organon.backends.lightning.metrics import MetricsLog, WandbMirror
from organon.backends.lightning.module import CompletionModule
from organon.backends.lightning.workdir import Workdir
from organon.config.schema import CallbacksConfig
from organon.errors import TrainingError
from organon.store.files import sync_file, sync_folder

SPEED_SMOOTHING = 0.8  # weight of the past in the shown tokens per second


class GradientGuard(Callback):  # type: ignore[misc]  # mypy does not follow lightning
    """Ends the training if gradients are lost, which would otherwise pass in silence.

    A parameter without a gradient would stay as it is. A quantised layer that bitsandbytes has repacked
    for inference has no backward: where residual connections and other adapters pass it by, every
    parameter below still gets a gradient, but a wrong one (measured: relative error 1.0).
    """

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: CompletionModule, optimizer: Any) -> None:
        """Raises TrainingError naming the parameters or layers."""
        packed = [name for name, module in pl_module.model.named_modules() if _is_packed(module)]
        if packed:
            raise TrainingError(
                f"{len(packed)} quantised layers have been repacked for inference and pass no gradient: {packed[0]}",
                where="training",
                fix="this is a defect of organon's cure for bitsandbytes; adapter=lora trains without quantisation",
            )
        trainable = pl_module.trainable()
        dead = [name for name, parameter in trainable.items() if parameter.grad is None]
        if dead:
            shown = ", ".join(dead[:5]) + (" ..." if len(dead) > 5 else "")
            raise TrainingError(
                f"{len(dead)} of {len(trainable)} trainable parameters got no gradient: {shown}",
                where="training",
                fix="check adapter.target_modules: it names layers that do not take part in the forward pass, "
                "or that a layer without a backward cuts off from the loss",
            )


@dataclass(eq=False)
class StepEnd(Callback):  # type: ignore[misc]  # mypy does not follow lightning
    """What follows each optimizer step, in one fixed order: validate, log, save the epoch, checkpoint, report.

    A checkpoint of step n therefore means that everything of step n is done (or names what is
    ``pending``), and a resumed training starts with step n + 1.
    """

    workdir: Workdir
    module: CompletionModule
    data: ChatDataModule
    config: CallbacksConfig
    checkpoints: Checkpoints
    metrics_log: MetricsLog
    mirror: WandbMirror | None
    identity: str
    save_model: Callable[[Path], None]  # writes the model's files into a folder
    report: Callable[..., None]  # fields for status.json
    step: int = 0  # optimizer steps done
    tokens: int = 0  # real input tokens seen
    latest: dict[str, float] = field(default_factory=dict)
    pending: dict[str, Any] | None = None
    saved_step: int = 0
    _began: float = 0.0
    _speed: float | None = None

    def restore(self, state: TrainState) -> None:
        """Go on from a checkpoint; what was still to do after its step is done now."""
        self.module.load_state_tensors(state.tensors)
        self.step, self.tokens, self.latest = state.step, state.tokens, dict(state.metrics)
        self.saved_step, self.pending = state.step, state.pending
        self.data.first_step = state.step + 1
        self.data.halve(state.halvings)

    def finish_pending(self) -> None:
        """Do what an interrupt kept from being done after the last step."""
        if self.pending is not None:
            self._finish(self.pending)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: CompletionModule, batch: StepBatch, batch_idx: int
    ) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: CompletionModule, outputs: Any, batch: StepBatch, batch_idx: int
    ) -> None:
        """All that follows a step."""
        speed = batch.tokens / (time.perf_counter() - self._began)
        self._speed = speed if self._speed is None else SPEED_SMOOTHING * self._speed + (1 - SPEED_SMOOTHING) * speed
        self.step, self.tokens = batch.step, self.tokens + batch.tokens
        self._finish(
            {
                "step": batch.step,
                "epoch": round(batch.step / self.data.plan.steps_per_epoch, 6),
                **pl_module.metrics,
                "tokens": self.tokens,
                "tokens_per_second": round(speed, 1),
            }
        )

    def save(self) -> None:
        """Write a checkpoint of the last step, unless there is one."""
        if self.step > self.saved_step or self.pending is not None:
            self.metrics_log.sync()
            self.checkpoints.save(
                TrainState(
                    step=self.step,
                    tensors=self.module.state_tensors(),
                    identity=self.identity,
                    tokens=self.tokens,
                    metrics=self.latest,
                    pending=self.pending,
                    halvings=self.data.halvings,
                )
            )
            self.saved_step = self.step

    def _finish(self, row: dict[str, Any]) -> None:
        step, plan, config = self.step, self.data.plan, self.config
        self.pending = row
        ends = plan.ends_epoch(step)
        validates = ends or (config.run_val_every_n_steps > 0 and step % config.run_val_every_n_steps == 0)
        if validates and self.data.validation is not None:
            self.report(phase="validating", step=step)
            row = {**row, **self.module.validate(self.data.validation_batches())}
        self.latest |= {name: float(row[name]) for name in row if "/" in name or name in ("learning_rate", "grad_norm")}
        if ends or "val/loss" in row or step % config.log_every_n_steps == 0:
            row = {**row, "time": round(time.time(), 3)}
            self.metrics_log.write(row)
            if self.mirror:
                self.mirror.write(row)
        if ends:
            self.report(phase="saving", step=step)
            self._save_epoch(plan.epoch_of(step))
        self.pending = None
        if ends or step % config.checkpoint_every_n_steps == 0:
            self.save()
        self.report(
            phase="training",
            step=step,
            metrics=self.latest,
            tokens=self.tokens,
            tokens_per_second=None if self._speed is None else round(self._speed, 1),
        )

    def _save_epoch(self, epoch: int) -> None:
        """``epoch_N/``, written beside its place and renamed: a folder that is there is complete."""
        place = self.workdir.epoch(epoch)
        unfinished, old = place.with_name(f".{place.name}.new"), place.with_name(f".{place.name}.old")
        for leftover in (unfinished, old):
            shutil.rmtree(leftover, ignore_errors=True)
        unfinished.mkdir()
        self.save_model(unfinished)
        for file in unfinished.iterdir():
            sync_file(file)
        sync_folder(unfinished)
        reached(f"epoch_end:{epoch}:before_rename")
        if place.exists():  # of an attempt that died before the checkpoint that follows
            place.rename(old)
        unfinished.rename(place)
        sync_folder(place.parent)
        shutil.rmtree(old, ignore_errors=True)
        logger.info("epoch {} saved, metrics {}", epoch, {name: round(value, 6) for name, value in self.latest.items()})
        reached(f"epoch_end:{epoch}")


def _is_packed(module: Any) -> bool:
    weight = module._parameters.get("weight")  # its own: peft's layers show that of the layer they wrap
    return bool(getattr(getattr(weight, "quant_state", None), "packing_format_for_cpu", False))
