"""Rows of raw text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from organon.data import (
    add_system_prompt,
    canonical_line,
    check_overlap,
    check_text_row,
    find_overlap,
    kind_of_row,
    read_rows,
    repeats_warning,
    split_rows,
)
from organon.errors import DataError


def test_rows_keep_their_text_to_the_letter(write: Callable[..., Path]) -> None:
    text = "  Zwölf Boxkämpfer\n\tjagten 😀  \n"
    rows = list(read_rows(write([{"id": 1, "text": text}]), "text"))
    assert rows == [{"text": text}]
    assert canonical_line(rows[0]).isascii()
    assert kind_of_row(rows[0]) == "text"


BAD: list[tuple[Any, str, str, str, str]] = [
    ({"text": ""}, "DATA-017", " field text", "text is empty: nothing to learn", "fill it in, or remove the row"),
    ({"text": " \n"}, "DATA-017", " field text", "text is empty", "fill"),
    ({"text": 3}, "DATA-018", " field text", "content is an integer, expected a string", "JSON string"),
    ({"text": ["a"]}, "DATA-018", " field text", "a list, expected a string", "join the text parts"),
    ({"text": "a\x07"}, "DATA-009", " field text", "control character U+0007 at character 2", "remove"),
    ({"content": "a"}, "DATA-015", "", "`text` is missing; found keys [content]", "rename `content` to `text`"),
    ({"texts": "a"}, "DATA-015", "", "`text` is missing; found keys [texts]", "rename `texts` to `text`"),
    ({"a": "b"}, "DATA-015", "", "`text` is missing; found keys [a]", "give every row `text`"),
    ({"messages": []}, "DATA-015", "", "`text` is missing", "dataset.format=messages"),
    ("a", "DATA-015", "", "the row is a string, expected an object with `text`", "one object per line"),
]


@pytest.mark.parametrize(("row", "code", "where", "cause", "fix"), BAD)
def test_bad_rows(write: Callable[..., Path], row: Any, code: str, where: str, cause: str, fix: str) -> None:
    path = write([{"text": "good"}, row])
    with pytest.raises(DataError) as caught:
        list(read_rows(path, "text"))
    assert (caught.value.code, caught.value.where) == (code, f"train.jsonl:2{where}")
    assert cause in caught.value.cause
    assert fix in caught.value.fix


def test_messages_reader_points_at_the_right_format(write: Callable[..., Path]) -> None:
    with pytest.raises(DataError) as caught:
        list(read_rows(write([{"text": "a"}])))
    assert caught.value.fix == "dataset.format=text"


def test_splits_overlap_and_repeats() -> None:
    rows = [check_text_row({"text": f"text {i}"}, "row") for i in range(20)]
    train, validation = split_rows(rows, 0.2)
    assert (len(train), len(validation)) == (16, 4)
    check_overlap(train, validation)
    assert find_overlap(rows, rows[3:4], by="prompt") is not None
    assert find_overlap(rows[:3], rows[3:], by="prompt") is None
    assert repeats_warning(rows) is None
    assert str(repeats_warning([rows[0]] * 3)) == "DATA-022 dataset: 2 of 3 rows (67%) equal an earlier row"


def test_a_system_prompt_is_refused() -> None:
    with pytest.raises(DataError, match="raw text has no messages") as caught:
        add_system_prompt({"text": "a"}, "Be kind.", "rows[0]")
    assert caught.value.where == "rows[0]"
