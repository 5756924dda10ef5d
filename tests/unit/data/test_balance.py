"""Balanced classes: MF-23."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from organon.data import balance, read_rows
from organon.errors import DataError

Row = dict[str, Any]


def labelled(**counts: int) -> list[Row]:
    """Rows of the classes in turn."""
    rows = [{"id": f"{name}{i}", "label": name} for name, count in counts.items() for i in range(count)]
    return sorted(rows, key=lambda row: str(row["id"])[::-1])


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 40), min_size=2),
    st.floats(1, 5),
    st.integers(0, 9),
)
def test_counts_are_within_the_ratio_and_nothing_is_invented(counts: dict[str, int], ratio: float, seed: int) -> None:
    rows = labelled(**counts)
    made = balance(rows, "label", ratio, seed)
    found = Counter(row["label"] for row in made.rows)
    assert max(found.values()) <= ratio * min(found.values())
    assert min(found.values()) == min(counts.values())  # the smallest class loses nothing
    assert made.rows == [row for row in rows if row in made.rows]  # in order, none twice
    assert found == made.counts
    assert {name: counts[name] - found[name] for name in counts if counts[name] > found[name]} == made.left_out


def test_no_more_is_left_out_than_the_ratio_asks_for() -> None:
    made = balance(labelled(positive=90, negative=20), "label", 1.5)
    assert made.counts == {"positive": 30, "negative": 20}
    assert made.left_out == {"positive": 60}
    assert str(made) == "classes `negative`: 20, `positive`: 30; left out 60 of `positive`"


def test_the_seed_decides() -> None:
    rows = labelled(positive=50, negative=10)
    made = balance(rows, "label", seed=3)
    assert made == balance(rows, "label", seed=3)
    assert made.rows != balance(rows, "label", seed=4).rows
    kept = [int(row["id"].removeprefix("positive")) for row in made.rows if row["label"] == "positive"]
    assert kept == [10, 20, 40, 44, 26, 7, 19, 29, 49, 9]  # these very rows, in every version of organon


def test_a_function_may_tell_the_class() -> None:
    made = balance([1, 2, 3, 5, 7], lambda number: number % 2)
    assert made.counts == {1: 1, 0: 1}
    assert 2 in made.rows


def test_balanced_rows_stay_as_they_are() -> None:
    rows = labelled(a=3, b=4)
    assert balance(rows, "label", 2).rows == rows
    assert str(balance(rows, "label", 2)).endswith("left out none")


@pytest.mark.parametrize("rows", [[], labelled(a=3)])
def test_one_class_cannot_be_balanced(rows: list[Row]) -> None:
    with pytest.raises(DataError) as caught:
        balance(rows, "label")
    assert caught.value.code == "DATA-022"


@pytest.mark.parametrize(
    ("row", "code", "cause"),
    [
        ({"lable": "a"}, "DATA-015", "`label` is missing; found keys [lable]"),
        ({"label": None}, "DATA-018", "the label is null"),
        ({"label": ""}, "DATA-018", "the label is empty"),
        ({"label": True}, "DATA-018", "the label is a boolean, expected text or an integer"),  # it would equal 1
        ({"label": 0.5}, "DATA-018", "the label is a number, expected text or an integer"),
    ],
)
def test_a_row_without_a_label_is_named(row: Row, code: str, cause: str) -> None:
    with pytest.raises(DataError) as caught:
        balance([*labelled(a=1), row], "label")
    assert (caught.value.code, caught.value.where) == (code, "rows[1] field label")
    assert cause in caught.value.cause


@pytest.mark.parametrize("ratio", [0, 0.99, -1, float("nan")])
def test_ratio_below_one(ratio: float) -> None:
    with pytest.raises(ValueError, match="expected >= 1"):
        balance(labelled(a=1, b=1), "label", ratio)


FORMATS: dict[str, list[Row]] = {
    "instruct": [{"input": f"q{i}", "output": "a", "label": i % 2} for i in range(4)],
    "text": [{"text": f"t{i}", "label": i % 2} for i in range(4)],
    "preference": [{"prompt": f"q{i}", "chosen": "a", "rejected": "b", "label": i % 2} for i in range(4)],
}


@pytest.mark.parametrize("format_", FORMATS)
def test_labels_are_read_beside_the_rows(write: Callable[..., Path], format_: str) -> None:
    """They do not become part of a row, so the dataset's hash does not depend on them."""
    path = write(FORMATS[format_])
    reader = read_rows(path, format_, label_key="label")
    assert list(reader) == list(read_rows(path, format_))
    assert reader.report.labels == [0, 1, 0, 1]
    assert reader.report.ignored_keys == {}


def test_labels_stand_for_used_rows_only(write: Callable[..., Path], make_row: Callable[..., Row]) -> None:
    rows = [make_row(f"q{i}", "a", label=f"c{i}") for i in range(20)]
    rows[3]["messages"][1]["content"] = ""
    del rows[5]["label"]
    reader = read_rows(write(rows), on_error="skip", label_key="label")
    assert len(list(reader)) == 18
    assert reader.report.labels == [f"c{i}" for i in range(20) if i not in (3, 5)]
    assert reader.report.rejected == {"DATA-017": 1, "DATA-015": 1}
