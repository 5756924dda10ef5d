"""The LightningModule: completion-only loss of a causal language model, one optimizer step per batch.

Shapes: B sequences, T tokens, H hidden size, V vocabulary, N labelled positions of a micro-batch.

Lightning's batch is one optimizer step with all its micro-batches, so the loss can be normalised over
the trained tokens of the whole step (accumulation does not change it, unlike a mean of means) and there
is no state between two batches but weights and optimizer. Random numbers (dropout) are drawn from a
seed of (seed, step, micro-batch): a resumed training draws the same ones, whatever ran in between.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch import LightningModule
from torch.nn import functional

from organon.backends.lightning.datamodule import MicroBatch, StepBatch
from organon.backends.lightning.faults import reached
from organon.config.schema import OptimConfig
from organon.errors import TrainingError
from organon.models.chat import IGNORED

EXPONENTIAL_END = 0.01  # of the peak learning rate, where the exponential schedule leads


class CompletionModule(LightningModule):  # type: ignore[misc]  # mypy does not follow lightning
    """``model`` is a causal language model of transformers or peft; its trainable parameters are trained.

    ``bf16``: matrix products in bfloat16 (autocast), weights and sums as they are. ``check_stop`` is
    called between micro-batches and may raise to end the training.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optim: OptimConfig,
        *,
        total_steps: int,
        seed: int,
        bf16: bool = False,
        check_stop: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model, self.optim, self.total_steps, self.seed = model, optim, total_steps, seed
        self.bf16, self.check_stop = bf16, check_stop
        self.optimizer = adamw(self.trainable(), optim)
        self.metrics: dict[str, float] = {}  # of the last step

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that are trained, by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over the trainable parameters; its rate is set anew at each step."""
        return self.optimizer

    def training_step(self, batch: StepBatch, batch_idx: int) -> None:
        """One optimizer step. Raises TrainingError if loss or gradient is not finite."""
        self.model.train()
        trained, loss = batch.trained, torch.zeros((), device=self.device)
        for index, micro in enumerate(batch.micro):
            self.check_stop()
            reached(f"micro:{batch.step}:{index}")
            torch.manual_seed(stream_seed(self.seed, batch.step, index))
            share = self.loss_sum(micro) / trained
            self.manual_backward(share)
            loss += share.detach()
        parameters = list(self.trainable().values())
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.optim.gradient_clip or math.inf)
        rate = learning_rate(self.optim, batch.step, self.total_steps)
        self.metrics = {"train/loss": float(loss), "learning_rate": rate, "grad_norm": float(norm)}
        _check_finite(self.metrics, batch.step)
        optimizer = self.optimizers()
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        reached(f"step:{batch.step}")

    def loss_sum(self, micro: MicroBatch) -> torch.Tensor:
        """Cross-entropy (nats) summed over the trained tokens; a scalar in float32."""
        input_ids, labels = micro.input_ids.to(self.device), micro.labels.to(self.device)  # B T
        target = functional.pad(labels[:, 1:], (0, 1), value=IGNORED)  # B T: position t predicts token t + 1
        wanted = target != IGNORED
        with _head_at(self.model, wanted), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.model(input_ids=input_ids, use_cache=False).logits[0]  # N V
        return functional.cross_entropy(logits.float(), target[wanted], reduction="sum")

    @torch.no_grad()
    def validation_loss(self, batches: Iterable[MicroBatch]) -> float:
        """Mean cross-entropy (nats) over the trained tokens of ``batches``, without dropout."""
        self.model.eval()
        total, trained = 0.0, 0
        for number, micro in enumerate(batches, start=1):
            self.check_stop()
            reached(f"validation:{number}")
            total += float(self.loss_sum(micro))
            trained += micro.trained
        self.model.train()
        return total / trained

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """Trainable parameters and optimizer state by name, for a checkpoint."""
        tensors: dict[str, torch.Tensor] = {}
        for name, parameter in self.trainable().items():
            tensors[f"model/{name}"] = parameter.detach()
            for part, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{name}/{part}"] = value
        return tensors

    def load_state_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Undo ``state_tensors``. Raises KeyError if a parameter is missing."""
        for name, parameter in self.trainable().items():
            parameter.data.copy_(tensors[f"model/{name}"])
            start = f"optimizer/{name}/"
            # AdamW counts steps in a CPU tensor; its moments live beside the parameter.
            self.optimizer.state[parameter] = {
                key.removeprefix(start): value if key.endswith("/step") else value.to(parameter.device)
                for key, value in tensors.items()
                if key.startswith(start)
            }


def adamw(parameters: dict[str, torch.nn.Parameter], optim: OptimConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019). Weight decay is for matrices, not for norms and biases."""
    matrices = [p for p in parameters.values() if p.ndim > 1]
    others = [p for p in parameters.values() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": optim.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=optim.learning_rate,
        betas=(optim.beta1, optim.beta2),
        eps=optim.epsilon,
    )


def learning_rate(optim: OptimConfig, step: int, total_steps: int) -> float:
    """The rate of optimizer step ``step`` (from 1): linear warm-up, then the schedule to the last step.

    The first step after the warm-up has the full rate. Cosine and linear fall to just above 0, exponential
    to just above 1 % of the peak.
    """
    warmup = min(optim.warmup_steps, total_steps)
    if step <= warmup:
        return optim.learning_rate * step / (warmup + 1)
    progress = (step - warmup - 1) / max(1, total_steps - warmup)  # 0 <= progress < 1
    factors = {
        "constant": 1.0,
        "linear": 1 - progress,
        "cosine": (1 + math.cos(math.pi * progress)) / 2,
        "exponential": math.pow(EXPONENTIAL_END, progress),
    }
    return optim.learning_rate * factors[optim.schedule]


def stream_seed(seed: int, step: int, micro: int) -> int:
    """A seed of 63 bits for the random numbers of one micro-batch."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}/{micro}".encode()).digest()[:8], "big") >> 1


@contextmanager
def _head_at(model: torch.nn.Module, wanted: torch.Tensor) -> Iterator[None]:
    """Compute logits at the ``wanted`` positions (B, T) only: the output layer gets (1, N, H) for (B, T, H).

    A hook, and not a call of the layer: whatever else a model does to its logits (soft-capping, scaling)
    stays in place.
    """

    def select(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (arguments[0][wanted].unsqueeze(0), *arguments[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(select)  # type: ignore[operator]
    try:
        yield
    finally:
        handle.remove()


def _check_finite(metrics: dict[str, float], step: int) -> None:
    bad = [name for name in ("train/loss", "grad_norm") if not math.isfinite(metrics[name])]
    if bad:
        raise TrainingError(
            f"{bad[0]} is {metrics[bad[0]]} at step {step}: the training has diverged",
            where="training",
            fix=f"a lower optim.learning_rate (it is {metrics['learning_rate']:g} at this step), "
            "optim.warmup_steps, or trainer.precision=32",
        )
