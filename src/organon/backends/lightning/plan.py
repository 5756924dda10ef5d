"""Which rows each optimizer step sees. No torch.

A pure function of (row lengths, seed, epoch), so that a resumed training needs only its step number.
Batches are drawn from windows of rows of similar length (as ``group_by_length`` of transformers
does): little padding, still in random order. Micro-batches only split a step's rows: which rows a
step sees, and so its gradient, does not depend on their size.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

WINDOW = 50  # batches whose rows are sorted by length together


class Plan:
    """Steps count from 1, epochs from 0. ``lengths``: tokens of each row."""

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        seed: int,
        epochs: int,
        global_batch_size: int,
        micro_batch_size: int,
        max_steps: int | None = None,
    ) -> None:
        self.lengths, self.seed = lengths, seed
        self.global_batch_size, self.micro_batch_size = global_batch_size, micro_batch_size
        self.steps_per_epoch = math.ceil(len(lengths) / global_batch_size)
        every = epochs * self.steps_per_epoch
        self.total_steps = every if max_steps is None else min(every, max_steps)
        self._drawn: tuple[int, list[list[int]]] = (-1, [])

    def epoch_of(self, step: int) -> int:
        """The epoch that ``step`` is part of."""
        return (step - 1) // self.steps_per_epoch

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch ends with ``step``; the last step also ends one that ``max_steps`` cuts short."""
        return step % self.steps_per_epoch == 0 or step == self.total_steps

    def micro_batches(self, step: int) -> list[list[int]]:
        """The rows of one optimizer step, split for the forward passes."""
        epoch = self.epoch_of(step)
        if self._drawn[0] != epoch:
            self._drawn = (epoch, self._draw(epoch))
        rows = self._drawn[1][(step - 1) % self.steps_per_epoch]
        return split(rows, self.micro_batch_size)

    def _draw(self, epoch: int) -> list[list[int]]:
        rng = random.Random(f"{self.seed}/{epoch}")  # a text seed does not depend on PYTHONHASHSEED
        rows = list(range(len(self.lengths)))
        rng.shuffle(rows)
        batches: list[list[int]] = []
        for window in split(rows, WINDOW * self.global_batch_size):
            window.sort(key=self.lengths.__getitem__)
            batches += split(window, self.global_batch_size)
        rng.shuffle(batches)
        return batches


def split(rows: list[int], size: int) -> list[list[int]]:
    """``rows`` in order, in parts of ``size``; the last may be smaller."""
    return [rows[i : i + size] for i in range(0, len(rows), size)]
