"""One training in this process, from spec to adapter: a script that reads from top to bottom."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException
from loguru import logger

from organon.backends.lightning.callbacks import GradientGuard, StepEnd
from organon.backends.lightning.checkpoint_io import Checkpoints
from organon.backends.lightning.compute import compute_of
from organon.backends.lightning.datamodule import ChatDataModule, StepBatch, row_lengths
from organon.backends.lightning.examples import read_examples
from organon.backends.lightning.metrics import MetricsLog, WandbMirror
from organon.backends.lightning.module import CompletionModule
from organon.backends.lightning.plan import Geometry, Plan
from organon.backends.lightning.ranks import Ranks
from organon.backends.lightning.stop import Stopped, StopRequest
from organon.backends.lightning.workdir import CHECKPOINTS, Workdir
from organon.config.spec import TrainSpec, identity
from organon.errors import ConfigError, TrainingError
from organon.models.folder import hidden_size
from organon.models.load import load_base, load_tokenizer, named_dtype, new_adapter, save_adapter, save_full

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Up to this length plain attention beats torch's fused one on a CPU (docs: performance.md, section 1.4).
PLAIN_ATTENTION_TOKENS = 512

SINGLE = Ranks()

Report = Callable[..., None]


def train(
    spec: TrainSpec, key: str, workdir: Workdir, *, report: Report, stop: StopRequest, ranks: Ranks = SINGLE
) -> None:
    """Train ``spec`` in ``workdir``, from its last checkpoint if there is one, to its last ``epoch_N/``.

    ``report`` takes fields of the status file.

    Raises:
        UserError: data, model or config are wrong; nothing has been trained.
        TrainingError: the training failed (diverged, lost gradients, out of memory).
        Stopped: it was asked to stop; a checkpoint has been written.
    """
    compute = spec.compute or compute_of(spec.trainer, hidden_size(spec.base))
    with _memory_errors(spec):
        _set_up(spec, compute)
        report(phase="loading", device=compute["device"])
        tokenizer = load_tokenizer(spec.base)
        data = _data(spec, tokenizer, ranks)
        report(total_steps=data.plan.total_steps, epochs=spec.trainer.epochs, dropped_rows=data.train.dropped)  # type: ignore[attr-defined]
        _log_start(spec, key, data, compute)
        steps = _steps(spec, key, workdir, data, compute, report, stop, _model(spec, compute), tokenizer)
        stop.saving = True
        try:
            steps.finish_pending()
            if steps.step < data.plan.total_steps:
                _trainer(compute, workdir, [GradientGuard(), steps]).fit(steps.module, datamodule=data)
        except (Stopped, SIGTERMException) as error:
            steps.save()
            raise Stopped from error
        finally:
            stop.saving = False
            if steps.mirror:
                steps.mirror.finish()


def training_identity(spec: TrainSpec, compute: dict[str, Any]) -> str:
    """Names what a checkpoint belongs to: another spec, device or library version cannot go on from it."""
    text = json.dumps([identity(spec), compute], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _set_up(spec: TrainSpec, compute: dict[str, Any]) -> None:
    """Threads, devices, determinism and quiet of this process."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", category=FutureWarning)  # Lightning's own
    warnings.filterwarnings(
        "ignore", message="The `srun` command is available"
    )  # a caller under SLURM starts one worker
    warnings.filterwarnings("error", message=".*an autograd kernel was not registered")  # the gradient would be lost
    if compute["device"] == "cuda":
        _check_gpu(compute["precision"])
    else:
        torch.set_num_threads(compute["threads"])
    if spec.trainer.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # NVIDIA: without it cuBLAS may vary
        torch.use_deterministic_algorithms(True)
        # A help in debugging that costs 8 % of a step.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cuda.enable_mem_efficient_sdp(False)  # its backward has no deterministic form


def _check_gpu(precision: str) -> None:
    if not torch.cuda.is_available():
        raise ConfigError(
            "a GPU is there, but torch cannot use it",
            code="CFG-060",
            where="trainer.accelerator",
            fix="trainer=cpu, or compare the driver (`nvidia-smi`) with torch.version.cuda",
        )
    if precision == "bf16" and torch.cuda.get_device_capability()[0] < 8:
        raise ConfigError(
            f"{torch.cuda.get_device_name()} has no bfloat16",
            code="CFG-060",
            where="trainer.precision",
            fix="trainer.precision=32",
        )


def _data(spec: TrainSpec, tokenizer: PreTrainedTokenizerBase, ranks: Ranks = SINGLE) -> ChatDataModule:
    train = read_examples(Path(spec.dataset_path), spec.dataset_hash, tokenizer, spec.dataset)
    validation = None
    if spec.validation_path is not None and spec.validation_hash is not None:
        validation = read_examples(Path(spec.validation_path), spec.validation_hash, tokenizer, spec.dataset)
    trainer = spec.trainer
    plan = Plan(
        row_lengths(train),
        seed=spec.seed,
        epochs=trainer.epochs,
        global_batch_size=trainer.global_batch_size,
        bucketed=trainer.batching == "bucketed",
        max_steps=trainer.max_steps,
    )
    geometry = Geometry(trainer.micro_batch_size, trainer.micro_batch_tokens, packed=False)
    ends = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)  # any token will do
    padding = next(token for token in ends if token is not None)
    return ChatDataModule(train, validation, plan, geometry, padding=padding, ranks=ranks)


def _model(spec: TrainSpec, compute: dict[str, Any]) -> Any:
    """The model with what is to be trained marked so: adapter weights in float32, or every weight."""
    device, full = torch.device(compute["device"]), spec.adapter.kind == "full"
    short = device.type == "cpu" and spec.dataset.max_length <= PLAIN_ATTENTION_TOKENS
    model = load_base(
        spec.base,
        device=device,
        # Small updates vanish in 16 bits, so weights that are trained are kept in 32.
        dtype=torch.float32 if full else named_dtype(spec.base.dtype, device),
        compute_dtype=torch.bfloat16 if compute["precision"] == "bf16" else torch.float32,
        attention="eager" if short else "sdpa",
    )
    if full:
        model.requires_grad_(True)
    else:
        model = new_adapter(model, spec.adapter, seed=spec.seed)
    return model.train()


def _steps(
    spec: TrainSpec,
    key: str,
    workdir: Workdir,
    data: ChatDataModule,
    compute: dict[str, Any],
    report: Report,
    stop: StopRequest,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
) -> StepEnd:
    """Module, checkpoints and logs, at the position of the last checkpoint."""

    def save_model(folder: Path) -> None:
        if spec.adapter.kind == "full":
            save_full(model, tokenizer, folder)
        else:
            save_adapter(model, folder, spec.base)

    module = CompletionModule(
        model,
        spec.optim,
        total_steps=data.plan.total_steps,
        seed=spec.seed,
        bf16=compute["precision"] == "bf16",
        ranks=data.ranks,
        check_stop=stop.check,
        smaller=_smaller(data, spec.trainer.oom_retries),
    )
    checkpoints = Checkpoints(workdir.path / CHECKPOINTS, spec.callbacks.keep_checkpoints)
    name = training_identity(spec, compute)
    state = checkpoints.latest(name)
    steps = StepEnd(
        workdir=workdir,
        module=module,
        data=data,
        config=spec.callbacks,
        checkpoints=checkpoints,
        metrics_log=MetricsLog(workdir, resumed_step=state.logged_step if state else 0, with_csv=spec.logger.csv),
        mirror=WandbMirror(spec, key, workdir) if spec.logger.wandb else None,
        identity=name,
        save_model=save_model,
        report=report,
    )
    if state is not None:
        steps.restore(state)
        report(resumed_from_step=state.step, step=state.step, metrics=state.metrics, tokens=state.tokens)
        logger.info("going on after step {} of {}", state.step, data.plan.total_steps)
    return steps


def _smaller(data: ChatDataModule, retries: int) -> Callable[[int], StepBatch]:
    """What to do when a step does not fit into memory: half the micro-batch, a few times."""

    def smaller(step: int) -> StepBatch:
        before = data.geometry
        if data.halvings >= retries or before.rows == 1:
            raise TrainingError(
                f"out of memory at step {step}, with {before.rows} rows in a forward pass",
                where="training",
                fix="trainer.activation_checkpointing=true, a smaller dataset.max_length, or adapter=qlora",
            )
        data.halve()
        logger.warning(
            "out of memory at step {}: {} rows in a forward pass from here on, not {}; the global batch stays",
            step, data.geometry.rows, before.rows,
        )  # fmt: skip
        return data.step_batch(step)

    return smaller


def _log_start(spec: TrainSpec, key: str, data: ChatDataModule, compute: dict[str, Any]) -> None:
    logger.info("training {} (key {}) on {}", spec.name or "a model", key[:12], compute)
    logger.info(
        "{} rows, {} tokens, {} steps in epochs of {}",
        len(data.plan.lengths), int(data.train.lengths.sum()), data.plan.total_steps, data.plan.steps_per_epoch,
    )  # fmt: skip


def _trainer(compute: dict[str, Any], workdir: Workdir, callbacks: list[Any]) -> Trainer:
    """Lightning with its own logging, checkpoints and progress bar off: ``StepEnd`` has them all."""
    return Trainer(
        accelerator="gpu" if compute["device"] == "cuda" else "cpu",
        devices=1,
        max_epochs=1,  # see `datamodule.Steps`
        callbacks=callbacks,
        plugins=[LightningEnvironment()],  # else a SLURM job's variables would make it requeue and relaunch
        default_root_dir=workdir.path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )


@contextlib.contextmanager
def _memory_errors(spec: TrainSpec) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"out of GPU memory: {str(error).split('.')[0]}",
            where="training",
            fix=f"trainer.micro_batch_size={max(1, spec.trainer.micro_batch_size // 2)} (same result, less memory), "
            "a smaller dataset.max_length, or adapter=qlora",
        ) from error
