"""Which rows each optimizer step sees, and how they are split into forward passes. No torch.

A step's rows are a pure function of (row lengths, seed, epoch), so that a resumed training needs only
its step number. How they are split over devices and forward passes does not change them: the gradient
of a step is the same up to rounding, whatever the micro-batches are.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FEWEST_WARMUPS = 3
WINDOW = 50  # bucketed: batches whose rows are sorted by length together, as transformers' group_by_length does


@dataclass(frozen=True)
class Geometry:
    """How many rows one forward pass takes: at most ``rows``, and at most ``tokens`` unless it is one row."""

    rows: int
    tokens: int | None = None
    packed: bool = True  # one behind another without padding; else padded to the longest

    def halved(self) -> Geometry:
        """Half of both limits, at least one row."""
        tokens = None if self.tokens is None else max(1, self.tokens // 2)
        return Geometry(max(1, self.rows // 2), tokens, self.packed)

    def split(self, rows: Sequence[int], lengths: Sequence[int] | np.ndarray) -> list[list[int]]:
        """``rows`` in order, in parts within the limits. ``lengths``: tokens of each row of the data."""
        parts: list[list[int]] = []
        for row in rows:
            if parts and self._fits([*parts[-1], row], lengths):
                parts[-1].append(row)
            else:
                parts.append([row])
        return parts

    def _fits(self, rows: list[int], lengths: Sequence[int] | np.ndarray) -> bool:
        if self.tokens is None or len(rows) > self.rows:
            return len(rows) <= self.rows
        sizes = [int(lengths[row]) for row in rows]
        return (sum(sizes) if self.packed else len(sizes) * max(sizes)) <= self.tokens


class Plan:
    """Steps count from 1, epochs from 0. ``lengths``: tokens of each row.

    ``bucketed``: a step's rows are of similar length (little padding, but short rows come together);
    else they are drawn at random.
    """

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray,
        *,
        seed: int,
        epochs: int,
        global_batch_size: int,
        bucketed: bool = False,
        max_steps: int | None = None,
    ) -> None:
        self.lengths, self.seed, self.bucketed = np.asarray(lengths), seed, bucketed
        self.global_batch_size = global_batch_size
        self.steps_per_epoch = math.ceil(len(self.lengths) / global_batch_size)
        every = epochs * self.steps_per_epoch
        self.total_steps = every if max_steps is None else min(every, max_steps)
        self._drawn: tuple[int, np.ndarray, np.ndarray] | None = None

    def epoch_of(self, step: int) -> int:
        """The epoch that ``step`` is part of."""
        return (step - 1) // self.steps_per_epoch

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch ends with ``step``; the last step also ends one that ``max_steps`` cuts short."""
        return step % self.steps_per_epoch == 0 or step == self.total_steps

    @property
    def epochs(self) -> int:
        """How many epochs there are, a last one that ``max_steps`` cuts short included."""
        return self.epoch_of(self.total_steps) + 1

    def rows(self, step: int) -> list[int]:
        """The rows of one optimizer step, longest first."""
        epoch = self.epoch_of(step)
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = (epoch, *self._draw(epoch))
        _, order, batches = self._drawn
        start = int(batches[(step - 1) % self.steps_per_epoch]) * self.global_batch_size
        rows = order[start : start + self.global_batch_size]
        return [int(row) for row in rows[np.argsort(-self.lengths[rows], kind="stable")]]

    def _draw(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The order of all rows in an epoch, and the order of its batches."""
        random = np.random.RandomState(_seeds(f"{self.seed}/{epoch}"))
        order = random.permutation(len(self.lengths))
        batches = np.arange(self.steps_per_epoch)
        if self.bucketed:
            width = WINDOW * self.global_batch_size
            for start in range(0, len(order), width):
                window = order[start : start + width]
                order[start : start + width] = window[np.argsort(self.lengths[window], kind="stable")]
            batches = random.permutation(batches)
        return order, batches


def too_few_steps(total_steps: int, warmup_steps: int) -> str | None:
    """A warning where most of a training would be warm-up: fewer steps than three warm-ups (as cruijff_kit has it)."""
    if total_steps >= FEWEST_WARMUPS * warmup_steps:
        return None
    return (
        f"{total_steps} steps are fewer than {FEWEST_WARMUPS} times optim.warmup_steps={warmup_steps}: the learning "
        f"rate is hardly ever at its full value. Try optim.warmup_steps={total_steps // (2 * FEWEST_WARMUPS)}, "
        "or more trainer.epochs"
    )


def share(rows: Sequence[int], rank: int, world: int) -> list[int]:
    """One device's part of ``rows``, which are sorted by length: dealt to and fro, so that the parts are even."""
    if world == 1:
        return list(rows)
    return [row for place, row in enumerate(rows) if _turn(place, world) == rank]


def _turn(place: int, world: int) -> int:
    lap, at = divmod(place, world)
    return at if lap % 2 == 0 else world - 1 - at


def _seeds(text: str) -> np.ndarray:
    """numpy keeps the stream of a RandomState for ever (NEP 19), which it does not promise of a Generator."""
    return np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype="<u4")
