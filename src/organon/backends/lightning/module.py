"""The LightningModule: cross-entropy of a causal language model, one optimizer step per batch.

Shapes: B sequences, T tokens, H hidden size, V vocabulary, N labelled positions of a micro-batch.

Lightning's batch is one optimizer step with all its micro-batches, so the loss can be normalised over
the trained tokens of the whole step on all devices (accumulation does not change it, unlike a mean of
means) and there is no state between two batches but weights and optimizer. Random numbers (dropout) are
drawn from a seed of (seed, step, micro-batch): a resumed training draws the same ones, whatever ran in
between.
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
from organon.backends.lightning.ranks import Ranks
from organon.config.schema import OptimConfig
from organon.errors import TrainingError
from organon.models.chat import IGNORED

EXPONENTIAL_END = 0.01  # of the peak learning rate, where the exponential schedule leads


class CompletionModule(LightningModule):  # type: ignore[misc]  # mypy does not follow lightning
    """``model`` is a causal language model of transformers or peft; its trainable parameters are trained.

    ``bf16``: matrix products in bfloat16 (autocast), weights and sums as they are. ``check_stop`` is
    called between micro-batches and may raise to end the training. ``smaller`` is called when a step did
    not fit into memory: it returns the same step in smaller micro-batches, or raises.

    A recipe of one's own is a subclass: ``micro_loss`` and ``weight`` say what is minimised, ``names`` what
    ``micro_loss`` measures.
    """

    names: tuple[str, ...] = ("loss",)

    def __init__(
        self,
        model: torch.nn.Module,
        optim: OptimConfig,
        *,
        total_steps: int,
        seed: int,
        bf16: bool = False,
        ranks: Ranks = Ranks(),  # noqa: B008 - frozen
        check_stop: Callable[[], None] = lambda: None,
        smaller: Callable[[int], StepBatch] | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model, self.optim, self.total_steps, self.seed = model, optim, total_steps, seed
        self.bf16, self.ranks, self.check_stop, self.smaller = bf16, ranks, check_stop, smaller
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
        values = self._gradients(batch)
        parameters = list(self.trainable().values())
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.optim.gradient_clip or math.inf)
        rate = learning_rate(self.optim, batch.step, self.total_steps)
        self.metrics = {**values, "learning_rate": rate, "grad_norm": float(norm)}
        _check_finite(self.metrics, batch.step)
        optimizer = self.optimizers()
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        reached(f"step:{batch.step}")

    def weight(self, batch: StepBatch | MicroBatch) -> int:
        """What the summed loss is divided by, counted over the whole step: its trained tokens."""
        return batch.trained

    def micro_loss(self, micro: MicroBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss summed over a micro-batch (a scalar, nats), and sums of further metrics by their names."""
        return self.loss_sum(micro), {}

    def loss_sum(self, micro: MicroBatch) -> torch.Tensor:
        """Cross-entropy (nats) summed over the trained tokens; a scalar in float32."""
        input_ids, labels = micro.input_ids.to(self.device), micro.labels.to(self.device)  # B T
        target = functional.pad(labels[:, 1:], (0, 1), value=IGNORED)  # B T: position t predicts token t + 1
        wanted = target != IGNORED
        with _head_at(self.model, wanted), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.model(input_ids=input_ids, use_cache=False).logits[0]  # N V
        return functional.cross_entropy(logits.float(), target[wanted], reduction="sum")

    @torch.no_grad()
    def validate(self, batches: Iterable[MicroBatch]) -> dict[str, float]:
        """``val/loss`` (nats) and its kind without dropout: means over the ``batches`` of all devices."""
        self.model.eval()
        sums = dict.fromkeys((*self.names, "weight"), torch.zeros((), dtype=torch.float64))
        for number, micro in enumerate(batches, start=1):
            self.check_stop()
            reached(f"validation:{number}")
            loss, further = self.micro_loss(micro)
            counts = {"loss": loss, **further, "weight": torch.tensor(float(self.weight(micro)))}
            sums = {name: sums[name] + counts[name].double().cpu() for name in sums}
        self.model.train()
        *totals, weight = self.ranks.sum(torch.stack(list(sums.values())).to(self.device))
        return {f"val/{name}": float(total / weight) for name, total in zip(self.names, totals, strict=True)}

    def _gradients(self, batch: StepBatch) -> dict[str, float]:
        """Gradients of the whole step's mean loss, in ``.grad``; the step's metrics."""
        while True:
            sums = self._accumulate(batch)
            if not self.ranks.any(sums is None, self.device):
                break
            self.optimizer.zero_grad(set_to_none=True)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            assert self.smaller is not None
            batch = self.smaller(batch.step)
        assert sums is not None
        self.ranks.sum_gradients(self.trainable().values())
        total = self.ranks.sum(torch.stack([sums[name] for name in self.names]))
        return {f"train/{name}": float(value) for name, value in zip(self.names, total, strict=True)}

    def _accumulate(self, batch: StepBatch) -> dict[str, torch.Tensor] | None:
        """One forward and backward for each micro-batch; None if they did not fit into memory."""
        share = 1 / self.weight(batch)
        sums = dict.fromkeys(self.names, torch.zeros((), device=self.device))
        try:
            for index, micro in enumerate(batch.micro):
                self.check_stop()
                reached(f"micro:{batch.step}:{index}")
                torch.manual_seed(stream_seed(self.seed, batch.step, index, self.ranks.rank))
                loss, further = self.micro_loss(micro)
                self.manual_backward(loss * share)
                for name, value in {"loss": loss, **further}.items():
                    sums[name] = sums[name] + value.detach() * share
        except torch.OutOfMemoryError:
            if self.smaller is None:
                raise
            return None
        return sums

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


def stream_seed(seed: int, step: int, micro: int, rank: int = 0) -> int:
    """A seed of 63 bits for the random numbers of one micro-batch of one process."""
    text = f"{seed}/{step}/{micro}" if rank == 0 else f"{seed}/{step}/{rank}/{micro}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


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
