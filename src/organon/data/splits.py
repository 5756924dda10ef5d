"""Splitting rows into training and validation, and finding rows that occur twice."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from organon.data.messages import canonical_line
from organon.data.rows import answer_of, asked
from organon.errors import DataError

By = Literal["row", "prompt"]
R = TypeVar("R", bound=Mapping[str, Any])


@dataclass(frozen=True)
class Overlap:
    """Rows of one list that are also in another; the first pair, counted from 1."""

    count: int
    first: tuple[int, int]  # (row of the training list, row of the other list)


@dataclass(frozen=True)
class Repeats:
    """How much of a list says the same."""

    rows: int
    duplicated: int  # rows that equal an earlier one
    same_answer: int  # rows with the commonest last (of two, the preferred) answer

    @property
    def duplicated_fraction(self) -> float:
        return self.duplicated / self.rows if self.rows else 0.0


def split_rows(rows: Sequence[R], fraction: float, seed: int = 0) -> tuple[list[R], list[R]]:
    """Training and validation rows, each in the order of ``rows``.

    The same rows, fraction and seed give the same split. About ``fraction`` of the rows are validation, at
    least one where ``fraction`` > 0 and two different rows exist. Equal rows stay on one side, so the two
    sides never overlap.

    Raises:
        DataError: DATA-013 if no training or no validation row would be left.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction is {fraction}, expected 0 <= fraction < 1")
    if fraction == 0:
        return list(rows), []
    keys = [_digest(canonical_line(row)) for row in rows]
    sizes = Counter(keys)
    if len(sizes) < 2:
        raise DataError(
            f"{len(sizes)} different examples cannot be split into training and validation",
            code="DATA-013",
            fix="dataset.validation_fraction=0",
        )
    groups = list(sizes)  # in order of first appearance
    random.Random(seed).shuffle(groups)
    chosen: set[bytes] = set()
    wanted, taken = max(1, round(len(rows) * fraction)), 0
    for group in groups[:-1]:  # one group always stays for training
        if taken >= wanted:
            break
        chosen.add(group)
        taken += sizes[group]
    train = [row for row, key in zip(rows, keys, strict=True) if key not in chosen]
    return train, [row for row, key in zip(rows, keys, strict=True) if key in chosen]


def find_overlap(
    train: Iterable[Mapping[str, Any]], other: Iterable[Mapping[str, Any]], *, by: By = "row"
) -> Overlap | None:
    """Rows of ``other`` that are also in ``train``, or None.

    ``by="prompt"`` compares what comes before the last answer, without system messages: right for
    evaluation samples, which may be given as rows without an answer.
    """
    seen: dict[bytes, int] = {}
    for number, row in enumerate(train, 1):
        seen.setdefault(_key(row, by), number)
    pairs = [(seen[key], number) for number, row in enumerate(other, 1) if (key := _key(row, by)) in seen]
    return Overlap(len(pairs), pairs[0]) if pairs else None


def check_overlap(
    train: Iterable[Mapping[str, Any]],
    other: Iterable[Mapping[str, Any]],
    *,
    names: tuple[str, str] = ("train", "validation"),
    by: By = "row",
) -> None:
    """Refuse rows of ``other`` that were trained on; ``names`` are what messages call the two lists.

    Raises:
        DataError: DATA-021 with the count and the first pair.
    """
    overlap = find_overlap(train, other, by=by)
    if overlap is not None:
        mine, theirs = names
        first = f"{mine}:{overlap.first[0]} = {theirs}:{overlap.first[1]}"
        raise DataError(
            f"{overlap.count} {theirs} row{'s' if overlap.count > 1 else ''} also in {mine} (first: {first})",
            code="DATA-021",
            where=theirs,
            fix="remove them from one of the two",
        )


def count_repeats(rows: Iterable[Mapping[str, Any]]) -> Repeats:
    """Duplicates of whole rows, and the commonest last answer."""
    keys: set[bytes] = set()
    answers: Counter[bytes] = Counter()
    total = 0
    for row in rows:
        total += 1
        keys.add(_key(row, "row"))
        answer = answer_of(row)
        if answer is not None:
            answers[_digest(answer)] += 1
    return Repeats(total, total - len(keys), max(answers.values(), default=0))


def repeats_warning(
    rows: Iterable[Mapping[str, Any]],
    *,
    where: str = "dataset",
    max_duplicated_fraction: float = 0.2,
    strict: bool = False,
) -> str | None:
    """What to tell the user about repeated rows (DATA-022), or None.

    Raises:
        DataError: DATA-022, if ``strict``.
    """
    found = count_repeats(rows)
    causes = []
    if found.duplicated_fraction > max_duplicated_fraction:
        percent = round(100 * found.duplicated_fraction)
        causes.append(f"{found.duplicated} of {found.rows} rows ({percent}%) equal an earlier row")
    if found.rows > 1 and found.same_answer == found.rows:
        causes.append(f"all {found.rows} answers are the same")
    if not causes:
        return None
    cause = "; ".join(causes)
    if strict:
        raise DataError(cause, code="DATA-022", where=where, fix="remove the repeated rows")
    return f"DATA-022 {where}: {cause}"


def _key(row: Mapping[str, Any], by: By) -> bytes:
    if by == "row":
        return _digest(canonical_line(row))
    return _digest(json.dumps(asked(row)))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
