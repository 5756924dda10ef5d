"""The rows as token batches. Shapes: B sequences, T tokens of the longest one.

Rows are padded on the right and no attention mask is made: in a causal model no real token sees what
stands behind it, and padding is never a label.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningDataModule
from loguru import logger

from organon.backends.lightning.plan import Plan, split
from organon.config.schema import DatasetConfig
from organon.errors import DataError
from organon.models.chat import IGNORED, encode, fit_length

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class MicroBatch:
    """Rows of one forward pass: ``input_ids`` and ``labels`` (B, T); ``tokens`` counts real input tokens."""

    input_ids: torch.Tensor
    labels: torch.Tensor
    tokens: int

    @property
    def trained(self) -> int:
        """Labels that count in the loss: a row's first token has no prediction."""
        return int((self.labels[:, 1:] != IGNORED).sum())


@dataclass(frozen=True)
class StepBatch:
    """All micro-batches of optimizer step ``step`` (from 1)."""

    step: int
    micro: list[MicroBatch]

    @property
    def tokens(self) -> int:
        return sum(m.tokens for m in self.micro)

    @property
    def trained(self) -> int:
        return sum(m.trained for m in self.micro)


class Examples:
    """Encoded rows. ``dropped``: rows left out as too long."""

    def __init__(self, rows: Sequence[tuple[array[int], array[int]]], dropped: int) -> None:
        self.rows, self.dropped = rows, dropped
        self.lengths = [len(ids) for ids, _ in rows]

    def batch(self, rows: Sequence[int], padding: int) -> MicroBatch:
        """The rows with these numbers, padded to the longest."""
        longest = max(self.lengths[row] for row in rows)
        input_ids = torch.full((len(rows), longest), padding, dtype=torch.long)
        labels = torch.full((len(rows), longest), IGNORED, dtype=torch.long)
        for place, row in enumerate(rows):
            ids, marks = self.rows[row]
            input_ids[place, : len(ids)] = torch.tensor(ids, dtype=torch.long)
            labels[place, : len(ids)] = torch.tensor(marks, dtype=torch.long)
        return MicroBatch(input_ids, labels, sum(self.lengths[row] for row in rows))


def read_examples(
    path: Path, expected_hash: str, tokenizer: PreTrainedTokenizerBase, dataset: DatasetConfig
) -> Examples:
    """Encode a canonical JSON Lines file of the store.

    Raises:
        DataError: DATA-028 (the file is not what was hashed), DATA-016, DATA-019 or DATA-020 with the
            line, DATA-013 (every row was dropped).
    """
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != expected_hash:
        raise DataError(
            f"changed since it was stored (sha256 {expected_hash[:12]} -> {found[:12]})",
            code="DATA-028",
            where=str(path),
            fix="`organon cache verify`, then run the same command again",
        )
    rows, dropped = [], 0
    for number, line in enumerate(content.splitlines(), start=1):
        where = f"{path}:{number}"
        ids, labels = encode(tokenizer, json.loads(line)["messages"], where=where)
        fitted = fit_length(ids, labels, max_length=dataset.max_length, on_too_long=dataset.on_too_long, where=where)
        if fitted is None:
            dropped += 1
        else:
            rows.append((array("i", fitted[0]), array("i", fitted[1])))
    if not rows:
        raise DataError(
            f"all {dropped} rows are longer than {dataset.max_length} tokens: nothing to train on",
            code="DATA-013",
            where=str(path),
            fix="raise dataset.max_length, or set dataset.on_too_long=truncate",
        )
    if dropped:
        logger.warning("{} of {} rows are too long and left out ({})", dropped, dropped + len(rows), path)
    return Examples(rows, dropped)


class ChatDataModule(LightningDataModule):  # type: ignore[misc]  # mypy does not follow lightning
    """Training steps in the plan's order from ``first_step`` on, and the validation batches."""

    def __init__(self, train: Examples, validation: Examples | None, plan: Plan, *, padding: int) -> None:
        super().__init__()
        self.train, self.validation, self.plan, self.padding = train, validation, plan, padding
        self.first_step = 1

    def train_dataloader(self) -> Steps:
        """One item per optimizer step that is still to do."""
        return Steps(self)

    def transfer_batch_to_device(self, batch: StepBatch, device: torch.device, dataloader_idx: int) -> StepBatch:
        """Not here: the module moves one micro-batch at a time."""
        return batch

    def validation_batches(self) -> Iterator[MicroBatch]:
        """All validation rows, in order of their length."""
        if self.validation is None:
            return
        order = sorted(range(len(self.validation.rows)), key=self.validation.lengths.__getitem__)
        for rows in split(order, self.plan.micro_batch_size):
            yield self.validation.batch(rows, self.padding)

    def step_batch(self, step: int) -> StepBatch:
        """The rows of one optimizer step."""
        return StepBatch(step, [self.train.batch(rows, self.padding) for rows in self.plan.micro_batches(step)])


class Steps:
    """Iterates over the steps that are left. An epoch of Lightning's is the whole rest of the training."""

    def __init__(self, data: ChatDataModule) -> None:
        self.data = data
        self.steps = range(data.first_step, data.plan.total_steps + 1)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Any]:
        return map(self.data.step_batch, self.steps)
