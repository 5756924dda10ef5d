"""What a dataset is made of in tokens: lengths, share trained on, and what a ``max_length`` would do to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from organon.models.token_files import TokenArrays

BINS = 12


@dataclass(frozen=True)
class Bin:
    """Documents of ``low`` to ``high`` tokens, both included."""

    low: int
    high: int
    documents: int


@dataclass(frozen=True)
class AtLength:
    """What a ``max_length`` would do. Rows that are too long are refused, cut or dropped, as ``on_too_long`` says."""

    max_length: int
    too_long_rows: int
    cut_tokens: int
    rows_with_lost_answers: int  # a whole turn of the assistant's would be cut away
    rows_without_trained_tokens: int  # refused when cut


@dataclass(frozen=True)
class Statistics:
    """Counts and lengths (tokens) of a dataset's documents, before anything is cut."""

    rows: int
    documents: int
    tokens: int
    trained_tokens: int
    min: int
    median: int
    p95: int
    max: int
    histogram: tuple[Bin, ...]
    at_length: AtLength
    rows_with_special_tokens: int  # whose text holds a special token's, which the model reads as that token

    @property
    def trained_fraction(self) -> float:
        return self.trained_tokens / self.tokens if self.tokens else 0.0


def statistics(arrays: TokenArrays, max_length: int) -> Statistics:
    """The statistics of at least one document."""
    lengths = np.asarray(arrays.lengths)
    # A value that occurs, not one between two: half a token is no length.
    low, median, p95, high = np.percentile(lengths, [0, 50, 95, 100], method="nearest").astype(int).tolist()
    return Statistics(
        rows=len(lengths) // arrays.documents_per_row,
        documents=len(lengths),
        tokens=int(lengths.sum(dtype=np.int64)),
        trained_tokens=int(arrays.trained_within(lengths).sum(dtype=np.int64)),
        min=low,
        median=median,
        p95=p95,
        max=high,
        histogram=_histogram(lengths, low, high),
        at_length=at_length(arrays, max_length, arrays.trained_within(np.minimum(lengths, max_length))),
        rows_with_special_tokens=arrays.special.rows,
    )


def _histogram(lengths: NDArray[Any], low: int, high: int) -> tuple[Bin, ...]:
    """Bins of one width, all but the last, which may be narrower."""
    width = max(1, -(-(high - low + 1) // BINS))
    counts = np.bincount((lengths - low) // width)
    return tuple(
        Bin(low + i * width, min(low + (i + 1) * width - 1, high), int(count)) for i, count in enumerate(counts)
    )


def at_length(
    arrays: TokenArrays, max_length: int, trained: NDArray[Any], among: NDArray[np.bool_] | None = None
) -> AtLength:
    """The counts for ``max_length``, which leaves ``trained`` (D,) tokens; ``among`` (D,): of these documents only."""
    full = np.asarray(arrays.lengths)
    among = np.ones(len(full), dtype=np.bool_) if among is None else among
    long, lengths = (full > max_length) & among, np.minimum(full, max_length)
    return AtLength(
        max_length=max_length,
        too_long_rows=arrays.rows_of(long),
        cut_tokens=int((full - lengths)[long].sum(dtype=np.int64)),
        rows_with_lost_answers=arrays.rows_of(long & arrays.answers_beyond(lengths)),
        rows_without_trained_tokens=arrays.rows_of((trained == 0) & among),
    )
