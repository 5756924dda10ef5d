"""Preference rows: their forms, their checks, and what splits and repeats make of them (case 30)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from organon.data import (
    add_system_prompt,
    canonical_line,
    check_overlap,
    check_preference_row,
    find_overlap,
    read_rows,
    repeats_warning,
    split_rows,
)
from organon.errors import DataError

USER = {"role": "user", "content": "Name a colour."}
GOOD = {"role": "assistant", "content": "Blue."}
BAD = {"role": "assistant", "content": "No."}
CANONICAL = {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}


def pair(prompt: Any = "Name a colour.", chosen: Any = "Blue.", rejected: Any = "No.", **extra: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **extra}


def pairs(count: int) -> list[dict[str, Any]]:
    return [dict(check_preference_row(pair(f"q{i}", f"good{i}", f"bad{i}"), "row")) for i in range(count)]


@pytest.mark.parametrize(
    "row",
    [pair(), pair([USER], [GOOD], [BAD]), pair([USER], "Blue.", [BAD]), {"rejected": "No.", **pair(id=7)}],
    ids=["strings", "messages", "mixed", "other order and keys"],
)
def test_all_forms_have_one_canonical_line(row: dict[str, Any]) -> None:
    checked = check_preference_row(row, "row")
    assert checked == CANONICAL
    assert list(checked) == ["prompt", "chosen", "rejected"]


def test_canonical_line_is_pinned() -> None:
    """The hash of these rows must not change: cached trainings are found by it."""
    line = canonical_line(check_preference_row(pair(), "row"))
    assert line == (
        '{"prompt": [{"role": "user", "content": "Name a colour."}], '
        '"chosen": [{"role": "assistant", "content": "Blue."}], '
        '"rejected": [{"role": "assistant", "content": "No."}]}\n'
    )
    assert hashlib.sha256(line.encode()).hexdigest()[:16] == "d99dc79bc17057ff"
    assert check_preference_row(json.loads(line), "row") == CANONICAL


def test_longer_conversations() -> None:
    prompt = [{"role": "system", "content": "Be brief."}, USER, GOOD, {"role": "user", "content": "Another."}]
    answer = [GOOD, {"role": "user", "content": "Thanks."}, {"role": "assistant", "content": "Welcome."}]
    row = check_preference_row(pair(prompt, answer, "No."), "row")
    assert row["prompt"] == prompt
    assert row["chosen"] == answer


def test_rows_are_copied() -> None:
    given = pair([dict(USER)], [dict(GOOD)], "No.")
    check_preference_row(given, "row")["prompt"][0]["content"] = "changed"
    assert given["prompt"][0] == USER


LINES: list[tuple[str, Any, str, str, str, str]] = [
    ("equal", pair(rejected="Blue."), "DATA-030", " field rejected", "chosen and rejected are equal", "worse answer"),
    ("equal, two forms", pair(rejected=[GOOD]), "DATA-030", " field rejected", "are equal", "worse answer"),
    ("no object", [1], "DATA-003", "", "a list, expected an object with `prompt`, `chosen`", "one object per line"),
    ("number", 5, "DATA-015", "", "an integer, expected an object with `prompt`, `chosen` and", "one object per line"),
    ("no prompt", {"chosen": "a", "rejected": "b"}, "DATA-015", "", "`prompt` is missing; found keys [chosen", "every"),
    ("prompt inside", {"chosen": [USER, GOOD], "rejected": [USER, BAD]}, "DATA-015", "", "`prompt` is missing",
     "begin with alike out of both"),
    ("openai", {"input": "a", "preferred_output": "b", "non_preferred_output": "c"}, "DATA-015", "",
     "`prompt` and `chosen` and `rejected` are missing", "rename `input` to `prompt`, `preferred_output` to `chosen`"),
    ("typing error", pair() | {"choosen": "a"} | {"chosen": None}, "DATA-015", " field chosen", "null", "role"),
    ("near key", {"prompt": "a", "choosen": "b", "rejected": "c"}, "DATA-015", "", "`chosen` is missing",
     "rename `choosen` to `chosen`"),
    ("messages", {"messages": [USER, GOOD]}, "DATA-015", "", "are missing; found keys [messages]",
     "dataset.format=messages"),
    ("tools", pair(tools=[1]), "DATA-018", " field tools", "`tools` is not supported", "system message"),
    ("empty prompt", pair(prompt=" "), "DATA-017", " field prompt", "user message is empty", "fill it in"),
    ("empty chosen", pair(chosen=""), "DATA-017", " field chosen", "assistant message is empty", "fill it in"),
    ("blank rejected", pair(rejected="\n"), "DATA-017", " field rejected", "assistant message is empty", "fill it in"),
    ("empty list", pair(chosen=[]), "DATA-015", " field chosen", "`chosen` is an empty list", "write"),
    ("number answer", pair(rejected=3), "DATA-015", " field rejected", "`rejected` is an integer, expected", "write"),
    ("empty content", pair(chosen=[{"role": "assistant", "content": ""}]), "DATA-017", " field chosen[0].content",
     "assistant message is empty", "fill"),
    ("prompt ends with assistant", pair([USER, GOOD]), "DATA-016", " field prompt[1].role",
     "the prompt ends with the assistant's message", "go into `chosen` and `rejected`"),
    ("prompt of system only", pair([{"role": "system", "content": "s"}]), "DATA-016", " field prompt[0].role",
     "the prompt ends with the system's", "user's message"),
    ("answer by user", pair(chosen=[{"role": "user", "content": "x"}]), "DATA-016", " field chosen[0].role",
     "two user messages in a row", "join"),
    ("answer repeats", pair(chosen=[USER, GOOD]), "DATA-016", " field chosen", "`chosen` repeats the prompt",
     "take the prompt's messages out"),
    ("answer ends with user", pair(rejected=[BAD, USER]), "DATA-016", " field rejected[1].role",
     "the last message is the user's", "assistant's answer"),
    ("unknown role", pair(chosen=[{"role": "bot", "content": "x"}]), "DATA-016", " field chosen[0].role",
     "`bot` is not a role. Did you mean 'assistant'?", "use"),
    ("weight", pair(chosen=[{**GOOD, "weight": 1}]), "DATA-018", " field chosen[0].weight", "`weight` in a preference",
     "remove it"),
    ("surrogate", pair(chosen="a\ud800"), "DATA-008", " field chosen", "unpaired surrogate U+D800", "pair"),
    ("NUL", pair([{"role": "user", "content": "\0"}]), "DATA-009", " field prompt[0].content", "U+0000", "remove"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "code", "where", "cause", "fix"), [case[1:] for case in LINES], ids=[c[0] for c in LINES]
)
def test_bad_rows(write: Callable[..., Path], row: Any, code: str, where: str, cause: str, fix: str) -> None:
    """Each with file, line, field, cause and fix."""
    path = write([pair(), row])
    with pytest.raises(DataError) as caught:
        list(read_rows(path, "preference"))
    error = caught.value
    assert (error.code, error.where) == (code, f"train.jsonl:2{where}")
    assert cause in error.cause
    assert fix in error.fix


def test_skipped_rows_are_counted(write: Callable[..., Path]) -> None:
    path = write([pair(f"q{i}") for i in range(20)] + [pair(rejected="Blue.")])
    reader = read_rows(path, "preference", on_error="skip")
    assert len(list(reader)) == 20
    assert reader.report.rejected == {"DATA-030": 1}


def test_what_else_a_row_holds_is_counted(write: Callable[..., Path]) -> None:
    reader = read_rows(write([pair(source="x"), pair()]), "preference")
    assert list(reader) == [CANONICAL] * 2
    assert reader.report.ignored_keys == {"source": 1}


def test_messages_reader_points_at_the_right_format(write: Callable[..., Path]) -> None:
    with pytest.raises(DataError) as caught:
        list(read_rows(write([pair()])))
    assert caught.value.fix == "dataset=preference method=dpo"


def test_split_keeps_every_row_and_never_overlaps() -> None:
    rows = pairs(40)
    train, validation = split_rows(rows, 0.25, seed=1)
    assert (len(train), len(validation)) == (30, 10)
    check_overlap(train, validation)
    assert split_rows(rows, 0.25, seed=1) == (train, validation)


def test_overlap_and_repeats() -> None:
    rows = pairs(4)
    with pytest.raises(DataError) as caught:
        check_overlap(rows, rows[2:3])
    assert caught.value.code == "DATA-021"
    sample = {"messages": [{"role": "user", "content": "q2"}]}
    assert find_overlap(rows, [sample], by="prompt") is not None
    assert find_overlap(rows, [check_preference_row(pair("q9"), "row")], by="prompt") is None
    assert repeats_warning(rows) is None
    assert "3 of 7 rows (43%) equal an earlier row" in str(repeats_warning([*rows, *rows[:3]]))
    assert "all 2 answers are the same" in str(
        repeats_warning([check_preference_row(pair(f"q{i}"), "") for i in (1, 2)])
    )


def test_system_prompt_goes_before_the_prompt() -> None:
    row = check_preference_row(pair(), "row")
    added = add_system_prompt(row, "Be kind.", "row")
    assert added == {**CANONICAL, "prompt": [{"role": "system", "content": "Be kind."}, USER]}
    assert row == CANONICAL
    with pytest.raises(DataError, match="already has a system message"):
        add_system_prompt(added, "again", "rows[0]")
