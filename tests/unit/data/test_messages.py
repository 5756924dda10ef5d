from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from organon.data import canonical_line, check_row, with_system_prompt
from organon.errors import DataError


def test_check_row_copies(make_row: Callable[..., Any]) -> None:
    row = make_row("a", "b", metadata=1)
    checked = check_row(row, "row")
    checked["messages"][0]["content"] = "changed"
    assert row["messages"][0]["content"] == "a"
    assert list(checked) == ["messages"]


def test_canonical_line_escapes_and_keeps_separators() -> None:
    """MO-46: json.dumps with default separators, ASCII only."""
    row = check_row({"messages": [{"content": "é\n😀", "role": "user"}, {"role": "assistant", "content": "b"}]}, "row")
    assert canonical_line(row) == (
        '{"messages": [{"role": "user", "content": "\\u00e9\\n\\ud83d\\ude00"}, '
        '{"role": "assistant", "content": "b"}]}\n'
    )


def test_system_prompt_is_added_to_a_copy(make_row: Callable[..., Any]) -> None:
    row = make_row("a", "b")
    added = with_system_prompt(row, "Be kind.")
    assert added["messages"][0] == {"role": "system", "content": "Be kind."}
    assert len(row["messages"]) == 2


def test_a_second_system_prompt_is_refused(make_row: Callable[..., Any]) -> None:
    row = with_system_prompt(make_row("a", "b"), "one")
    with pytest.raises(DataError, match="already has a system message") as caught:
        with_system_prompt(row, "two", "train.jsonl:3")
    assert caught.value.where == "train.jsonl:3 field messages[0]"


def test_an_empty_system_prompt_is_refused(make_row: Callable[..., Any]) -> None:
    with pytest.raises(DataError) as caught:
        with_system_prompt(make_row("a", "b"), " ")
    assert caught.value.code == "DATA-017"


def test_long_and_odd_values_are_shown_short() -> None:
    with pytest.raises(DataError) as caught:
        check_row({"messages": [{"role": "\x1b[31m\ud800" + "x" * 5000, "content": "a"}]}, "row")
    assert str(caught.value).encode()
    assert len(str(caught.value)) < 200
    assert "\x1b" not in str(caught.value)
