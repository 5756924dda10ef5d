"""The LightningModule of direct preference optimisation: two answers to one prompt, the better one first.

Rafailov, Sharma, Mitchell, Ermon, Manning and Finn 2023, "Direct Preference Optimization: Your Language
Model is Secretly a Reward Model", equation 7; with label smoothing as "conservative DPO" (Mitchell 2023).

Shapes: D documents of a micro-batch, P = D / 2 pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch.nn import functional

from organon.backends.lightning.datamodule import MicroBatch, StepBatch
from organon.backends.lightning.loss import document_log_probabilities
from organon.backends.lightning.module import CompletionModule
from organon.config.schema import OptimConfig
from organon.errors import ConfigError


class PreferenceModule(CompletionModule):
    """Trains the adapter of ``model`` to prefer each pair's first answer; the base without it is the reference.

    Documents 2i and 2i + 1 of a micro-batch are the chosen and the rejected answer of a pair, prompt included.
    The reward of an answer is ``beta`` times the log-probability that the adapter adds to it (nats, summed over
    its labelled tokens). ``label_smoothing`` is the assumed share of pairs that are the wrong way round.

    Losses and metrics are means over the pairs of the whole optimizer step: ``loss`` (nats),
    ``reward_accuracy`` (share of pairs whose chosen answer has the higher reward), ``reward_margin``.

    Raises:
        ConfigError: CFG-058, ``model`` has no adapter that can be switched off.
    """

    names = ("loss", "reward_accuracy", "reward_margin")

    def __init__(
        self,
        model: torch.nn.Module,
        optim: OptimConfig,
        *,
        beta: float = 0.1,
        label_smoothing: float = 0.0,
        **arguments: Any,
    ) -> None:
        if not adapter_modules(model):
            raise ConfigError(
                "the reference of method=dpo is the base model with its adapter off, and this model has none",
                code="CFG-058",
                where="adapter.kind",
                fix="adapter=lora or adapter=qlora",
            )
        super().__init__(model, optim, **arguments)
        self.beta, self.label_smoothing = beta, label_smoothing
        self.adapter_modules = adapter_modules(model)

    def weight(self, batch: StepBatch | MicroBatch) -> int:
        """Pairs: of a whole step on all devices, or of a micro-batch."""
        return batch.rows if isinstance(batch, StepBatch) else len(batch.rows) // 2

    def micro_loss(self, micro: MicroBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss (nats), and the metrics, summed over the pairs of a micro-batch."""
        margins = self.margins(micro)  # P
        right, wrong = functional.logsigmoid(margins), functional.logsigmoid(-margins)
        losses = -(1 - self.label_smoothing) * right - self.label_smoothing * wrong
        rewards = margins.detach()
        return losses.sum(), {"reward_accuracy": (rewards > 0).float().sum(), "reward_margin": rewards.sum()}

    def margins(self, micro: MicroBatch) -> torch.Tensor:
        """By how much the reward of each pair's chosen answer is above that of the rejected one; P, float32."""
        with torch.no_grad(), self._reference():
            reference = self.log_probabilities(micro)
        added = (self.log_probabilities(micro) - reference).view(-1, 2)  # P 2
        return self.beta * (added[:, 0] - added[:, 1])

    def log_probabilities(self, micro: MicroBatch) -> torch.Tensor:
        """The log-probability (nats) of each document's labelled tokens, summed; D, float32."""
        with self.forward_of(micro):
            return document_log_probabilities(self.model, **self.inputs(micro), lengths=micro.lengths)

    @contextmanager
    def _reference(self) -> Iterator[None]:
        """The base model: adapter off, and no dropout, which would make the reference a random one.

        Not by peft's ``disable_adapter``: on its way back that makes all of the adapter trainable, also what a
        recipe has frozen, and no parameter may change its kind between forward and backward where weights are
        sharded.
        """
        training = self.model.training
        self.model.eval()
        try:
            for module in self.adapter_modules:
                module._disable_adapters = True
            yield
        finally:
            for module in self.adapter_modules:
                module._disable_adapters = False
            self.model.train(training)


def adapter_modules(model: torch.nn.Module) -> list[Any]:
    """The modules of ``model`` that have an adapter which can be switched off, or are trained in full beside one."""
    return [module for module in model.modules() if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper))]
