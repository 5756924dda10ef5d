"""Documents as token batches. Shapes: B sequences, T tokens.

Padded batches have their padding on the right and no attention mask: in a causal model no real token
sees what stands behind it, and padding is never a label. Packed batches hold the documents one behind
another in a single sequence; positions start anew in each, and attention stays within (`attention.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray

from organon.backends.lightning.plan import Geometry, Plan, share
from organon.backends.lightning.ranks import Ranks
from organon.models.chat import IGNORED


class Documents(Protocol):
    """Encoded documents, such as ``organon.models.tokens.TokenRows``. A row has one, or two to compare."""

    @property
    def lengths(self) -> NDArray[np.int32]: ...  # (D,) tokens of each document

    @property
    def trained(self) -> NDArray[np.int32]: ...  # (D,) labels of each that count in the loss

    @property
    def documents_per_row(self) -> int: ...

    def ids(self, document: int) -> NDArray[np.int32]: ...

    def labels(self, document: int) -> NDArray[np.int32]: ...

    def line(self, document: int) -> int: ...


@dataclass(frozen=True)
class MicroBatch:
    """The documents of one forward pass.

    ``input_ids`` and ``labels`` are (B, T) padded, or (1, T) packed; ``position_ids`` (1, T) if packed, else
    None. ``lengths``: tokens of each document, in order. ``rows``: the documents' numbers in the data.
    ``tokens``: real input tokens. ``trained``: labels that count (a document's first token has no prediction).
    ``idle``: it counts for nothing, and is there because other processes have one more.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    position_ids: torch.Tensor | None
    lengths: tuple[int, ...]
    rows: tuple[int, ...]
    trained: int
    idle: bool = False

    @property
    def tokens(self) -> int:
        return sum(self.lengths)


@dataclass(frozen=True)
class StepBatch:
    """This process's micro-batches of optimizer step ``step`` (from 1); the counts are those of all processes.

    ``trained``: labels that count. ``rows``: rows of the data.
    """

    step: int
    micro: list[MicroBatch]
    tokens: int
    trained: int
    rows: int


def micro_batch(documents: Documents, chosen: Sequence[int], *, packed: bool, padding: int) -> MicroBatch:
    """The documents with these numbers in one batch."""
    ids = [documents.ids(number) for number in chosen]
    marks = [documents.labels(number) for number in chosen]
    lengths = tuple(len(part) for part in ids)
    trained = int(documents.trained[list(chosen)].sum())
    if packed:
        labels = np.concatenate(marks)
        labels[np.cumsum((0, *lengths[:-1]))] = IGNORED  # else the document before would predict it
        places = np.concatenate([np.arange(length) for length in lengths])
        tensors = [torch.from_numpy(part.astype(np.int64))[None] for part in (np.concatenate(ids), labels, places)]
        return MicroBatch(tensors[0], tensors[1], tensors[2], lengths, tuple(chosen), trained)
    shape = (len(ids), max(lengths))
    input_ids, label_ids = np.full(shape, padding, dtype=np.int64), np.full(shape, IGNORED, dtype=np.int64)
    for place, length in enumerate(lengths):
        input_ids[place, :length], label_ids[place, :length] = ids[place], marks[place]
    return MicroBatch(torch.from_numpy(input_ids), torch.from_numpy(label_ids), None, lengths, tuple(chosen), trained)


class ChatDataModule(LightningDataModule):  # type: ignore[misc]  # mypy does not follow lightning
    """This process's share of the training steps, in the plan's order from ``first_step`` on, and of the validation."""

    def __init__(
        self,
        train: Documents,
        validation: Documents | None,
        plan: Plan,
        geometry: Geometry,
        *,
        padding: int,
        ranks: Ranks = Ranks(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        self.train, self.validation, self.plan, self.geometry = train, validation, plan, geometry
        self.padding, self.ranks = padding, ranks
        # Once: of a million pairs of answers, adding them up takes longer than all else of a batch.
        self._train_lengths = row_lengths(train)
        self._validation_lengths = None if validation is None else row_lengths(validation)
        self.first_step = 1
        self.halvings = 0  # of the geometry, for want of memory

    def train_dataloader(self) -> Steps:
        """One item per optimizer step that is still to do."""
        return Steps(self)

    def transfer_batch_to_device(self, batch: StepBatch, device: torch.device, dataloader_idx: int) -> StepBatch:
        """Not here: the module moves one micro-batch at a time."""
        return batch

    def halve(self, times: int = 1) -> None:
        """Half as many rows in a forward pass from now on; the steps' rows and gradients stay."""
        for _ in range(times):
            self.geometry = self.geometry.halved()
            self.halvings += 1

    def step_batch(self, step: int) -> StepBatch:
        """The rows of one optimizer step."""
        rows = self.plan.rows(step)
        every = self._documents(self.train, rows)
        return StepBatch(
            step,
            list(self._batches(self.train, rows)),
            tokens=int(self.train.lengths[every].sum()),
            trained=int(self.train.trained[every].sum()),
            rows=len(rows),
        )

    def validation_batches(self) -> Iterator[MicroBatch]:
        """This process's share of the validation rows, in order of their length."""
        if self.validation is None:
            return
        yield from self._batches(self.validation, np.argsort(-self._lengths(self.validation), kind="stable").tolist())

    def padded_validation(self) -> Iterator[MicroBatch]:
        """All validation rows, padded: a model takes such batches without knowing where documents end."""
        if self.validation is None:
            return
        geometry = replace(self.geometry, packed=False)
        lengths = self._lengths(self.validation)
        for part in geometry.split(np.argsort(-lengths, kind="stable").tolist(), lengths):
            chosen = self._documents(self.validation, part)
            yield micro_batch(self.validation, chosen, packed=False, padding=self.padding)

    def _batches(self, documents: Documents, rows: Sequence[int]) -> Iterator[MicroBatch]:
        """This process's share of ``rows``; of sharded weights, as many batches as each of the others has."""
        parts = self._split(documents, share(rows, self.ranks.rank, self.ranks.world))
        for part in parts:
            yield self._batch(documents, part)
        if self.ranks.sharded:
            others = (self._split(documents, share(rows, rank, self.ranks.world)) for rank in range(self.ranks.world))
            for _ in range(max(map(len, others)) - len(parts)):
                yield replace(self._batch(documents, rows[-1:]), idle=True)

    def _split(self, documents: Documents, rows: Sequence[int]) -> list[list[int]]:
        return self.geometry.split(rows, self._lengths(documents))

    def _lengths(self, documents: Documents) -> np.ndarray:
        lengths = self._train_lengths if documents is self.train else self._validation_lengths
        assert lengths is not None
        return lengths

    def _batch(self, documents: Documents, rows: Sequence[int]) -> MicroBatch:
        chosen = self._documents(documents, rows)
        return micro_batch(documents, chosen, packed=self.geometry.packed, padding=self.padding)

    @staticmethod
    def _documents(documents: Documents, rows: Sequence[int]) -> list[int]:
        each = documents.documents_per_row
        return [row * each + part for row in rows for part in range(each)]


class Steps:
    """Iterates over the steps that are left. An epoch of Lightning's is the whole rest of the training."""

    def __init__(self, data: ChatDataModule) -> None:
        self.data = data
        self.steps = range(data.first_step, data.plan.total_steps + 1)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Any]:
        return map(self.data.step_batch, self.steps)


def row_lengths(documents: Documents) -> np.ndarray:
    """Tokens of each row, all its documents together."""
    if documents.documents_per_row == 1:
        return documents.lengths
    total: np.ndarray = documents.lengths.reshape(-1, documents.documents_per_row).sum(axis=1)
    return total
