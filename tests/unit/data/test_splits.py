from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from organon.data import check_overlap, find_overlap, repeats_warning, split_rows
from organon.data.messages import Row
from organon.data.splits import count_repeats
from organon.errors import DataError


def row(question: str, answer: str = "x") -> Row:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def rows(*questions: Any) -> list[Row]:
    return [row(str(q)) for q in questions]


def test_split_is_pinned() -> None:
    """The same rows, fraction and seed give this very split, in every version of organon."""
    train, validation = split_rows(rows(*range(20)), 0.2, seed=0)
    assert [r["messages"][0]["content"] for r in validation] == ["10", "14", "16", "18"]
    assert len(train) == 16


@given(st.lists(st.integers(0, 30), min_size=2, max_size=60), st.floats(0.01, 0.99), st.integers(0, 99))
def test_split_keeps_every_row_and_never_overlaps(numbers: list[int], fraction: float, seed: int) -> None:
    data = rows(*numbers)
    if len(set(numbers)) < 2:
        with pytest.raises(DataError) as caught:
            split_rows(data, fraction, seed)
        assert caught.value.fix == "dataset.validation_fraction=0"
        return
    train, validation = split_rows(data, fraction, seed)
    assert train
    assert validation
    assert find_overlap(train, validation) is None
    order = {str(n): i for i, n in reversed(list(enumerate(numbers)))}
    for part in (train, validation):
        seen = [order[r["messages"][0]["content"]] for r in part]
        assert [s for i, s in enumerate(seen) if s not in seen[:i]] == sorted(set(seen))
    key = lambda r: r["messages"][0]["content"]  # noqa: E731
    assert sorted(train + validation, key=key) == sorted(data, key=key)


def test_split_by_another_seed_differs() -> None:
    data = rows(*range(50))
    assert split_rows(data, 0.2, 0)[1] != split_rows(data, 0.2, 1)[1]


def test_fraction_zero_keeps_all_for_training() -> None:
    assert split_rows(rows(1), 0.0) == (rows(1), [])


def test_fraction_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"0 <= fraction < 1"):
        split_rows(rows(1, 2), 1.0)


def test_overlap_names_the_first_pair() -> None:
    """Case 21."""
    train, evaluation = rows("a", "b", "c", "d"), rows("x", "y", "c", "a")
    with pytest.raises(DataError) as caught:
        check_overlap(train, evaluation, names=("train", "eval"))
    assert caught.value.code == "DATA-021"
    assert caught.value.cause == "2 eval rows also in train (first: train:3 = eval:3)"
    check_overlap(train, rows("x"))


def test_overlap_of_prompts_sees_other_answers_and_no_system_prompt() -> None:
    """Case 21: an evaluation sample without an answer, whose question was trained on."""
    system = {"role": "system", "content": "s"}
    train: list[Any] = [{"messages": [system, *row("a", "A")["messages"]]}]
    sample = {"messages": [{"role": "user", "content": "a"}]}
    assert find_overlap(train, [sample], by="prompt") is not None
    assert find_overlap(train, [row("a", "other")], by="prompt") is not None
    assert find_overlap(train, [row("a", "other")], by="row") is None
    assert find_overlap(train, [row("b")], by="prompt") is None


def test_repeats(make_row: Callable[..., Any]) -> None:
    """Case 22."""
    varied = [row(str(i), str(i)) for i in range(8)]
    assert repeats_warning(varied) is None
    assert repeats_warning([*varied, *varied[:2]]) is None
    repeated = [*varied, *varied[:4]]
    assert repeats_warning(repeated, where="F") == "DATA-022 F: 4 of 12 rows (33%) equal an earlier row"
    assert count_repeats(repeated).duplicated == 4
    with pytest.raises(DataError) as caught:
        repeats_warning(repeated, strict=True)
    assert caught.value.code == "DATA-022"
    assert "all 3 answers are the same" in str(repeats_warning(rows(1, 2, 3)))
    assert repeats_warning(rows(1)) is None
