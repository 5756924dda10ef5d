"""Reading good files: both formats, skipping on request, counts, memory."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from organon.data import ReadReport, read_rows
from organon.data.formats import document_splits
from organon.errors import ConfigError, DataError, NotFoundError

PAIR = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "A"}]


def contents(path: Path, kind: str = "instruct", **options: Any) -> list[list[str]]:
    return [[m["content"] for m in row["messages"]] for row in read_rows(path, kind, **options)]


def test_messages_rows_come_in_canonical_form(write: Callable[..., Path]) -> None:
    """Keys in order, extra keys left out and counted, null keys ignored, blank lines skipped."""
    odd = {"metadata": {"x": 1}, "messages": [{"content": "a", "role": "user", "name": None}, {**PAIR[1], "weight": 1}]}
    path = write(json.dumps(odd) + "\r\n\n" + json.dumps({"messages": PAIR}))
    reader = read_rows(path)
    rows = list(reader)
    assert [list(m) for m in rows[0]["messages"]] == [["role", "content"], ["role", "content", "weight"]]
    assert rows[1] == {"messages": PAIR}
    report = reader.report
    assert (report.used, report.blank, dict(report.ignored_keys)) == (2, 1, {"metadata": 1})
    assert report.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_tool_turns_and_system_are_allowed(write: Callable[..., Path]) -> None:
    roles = ["system", "user", "assistant", "tool", "tool", "assistant", "user", "assistant"]
    row = {"messages": [{"role": role, "content": role} for role in roles]}
    assert list(read_rows(write([row]))) == [row]


def test_an_empty_tool_result_is_allowed(write: Callable[..., Path]) -> None:
    turns = [*PAIR, {"role": "tool", "content": ""}, {"role": "assistant", "content": "none"}]
    assert list(read_rows(write([{"messages": turns}]))) == [{"messages": turns}]


@pytest.mark.parametrize(
    "row",
    [
        {"input": "a", "output": "A"},
        {"prompt": "a", "completion": "A"},
        {"instruction": "a", "output": "A"},
        {"instruction": "", "input": "a", "output": "A", "id": 7},
        {"instruction": "a", "input": "", "output": "A"},
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_instruct_lines(write: Callable[..., Path], row: dict[str, str], name: str) -> None:
    assert contents(write([row, row], name)) == [["a", "A"]] * 2


def test_an_instruction_goes_before_the_input(write: Callable[..., Path]) -> None:
    assert contents(write([{"instruction": "Spell", "input": "a", "output": "A"}])) == [["Spell\n\na", "A"]]


def test_instruct_lines_with_other_keys(write: Callable[..., Path]) -> None:
    path = write([{"question": "a", "answer": "A"}])
    assert contents(path, input_key="question", output_key="answer") == [["a", "A"]]
    with pytest.raises(DataError, match=r"`input` and `output` or .* missing; found keys \[question, answer\]"):
        contents(path)


def test_one_other_key_beside_a_usual_one(write: Callable[..., Path]) -> None:
    """The column that is named is read, though a usual one is there too."""
    path = write([{"input": "a", "question": "b", "output": "A"}])
    assert contents(path, input_key="question") == [["b", "A"]]
    assert contents(write([{"question": "b", "completion": "B"}]), input_key="question") == [["b", "B"]]
    path = write([{"prompt": "a", "completion": "A", "best": "B"}])
    assert contents(path, output_key="best") == [["a", "B"]]
    with pytest.raises(DataError, match=r"`input` and `bset` or `prompt` and `bset` missing"):
        contents(path, output_key="bset")
    with pytest.raises(DataError, match="missing"):
        contents(write([{"input": "a", "output": "A"}]), output_key="input")  # no question answers itself


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_instruct_document(write: Callable[..., Path], indent: int | None, name: str) -> None:
    """CK-27."""
    document = {"train": [{"input": "a", "output": "A"}], "validation": [{"input": "b", "output": "B"}], "test": []}
    path = write(json.dumps(document, indent=indent), name)
    assert contents(path) == [["a", "A"]]
    assert contents(path, split="validation") == [["b", "B"]]
    with pytest.raises(DataError) as caught:
        contents(path, split="test")
    assert (caught.value.code, caught.value.where) == ("DATA-013", f"{name} split test")


def test_other_splits_and_columns_named_like_one(write: Callable[..., Path]) -> None:
    path = write('{"validation_ood_0": [{"input": "a", "output": "A"}]}', "a.json")
    assert contents(path, split="validation_ood_0") == [["a", "A"]]
    assert contents(write([{"input": "a", "output": "A", "test": "no"}])) == [["a", "A"]]


def test_a_bare_list_is_the_train_split(write: Callable[..., Path]) -> None:
    path = write(json.dumps([{"input": "a", "output": "A"}]), "a.json")
    assert contents(path) == [["a", "A"]]
    with pytest.raises(DataError, match="split `test` is missing"):
        contents(path, split="test")


def test_names_of_splits(write: Callable[..., Path]) -> None:
    """CK-27: which splits a document has, before one is chosen."""
    document = {"metadata": {}, "train": [], "validation": [{"input": "a", "output": "A"}]}
    assert document_splits(write(json.dumps(document, indent=1), "a.json")) == ["train", "validation"]
    assert document_splits(write('{"input": "a", "output": "A"}\n' * 2, "a.json")) == []
    assert document_splits(write('[{"input": "a", "output": "A"}]', "a.json")) == ["train"]
    with pytest.raises(DataError) as caught:
        document_splits(write('{\n "train": [', "a.json"))
    assert (caught.value.code, caught.value.where) == ("DATA-001", "a.json:2:12")


def test_missing_split(write: Callable[..., Path]) -> None:
    """CK-27."""
    path = write('{"train": [], "metadata": {}}', "a.json")
    with pytest.raises(DataError) as caught:
        contents(path, split="validation")
    assert caught.value.code == "DATA-015"
    assert caught.value.cause == "split `validation` is missing; found [train, metadata]"


@pytest.mark.parametrize(
    ("content", "code", "where", "cause"),
    [
        ('{"train": {}}\n', "DATA-015", "", "split `train` is an object, expected a list"),
        ('{"train": 5, "test": []}', "DATA-015", "", "split `train` is an integer, expected a list"),
        ('{\n "train": [\n  {"input": "a"', "DATA-001", ":3:16", "JSON ends early"),
        ('{\n "train": [],\n "train": []}', "DATA-005", "", "key `train` twice"),
        ('{\n "train": [{"input": "a", "output": "b", "x": NaN}]}', "DATA-004", " field train[0].x", "not a finite"),
        ('{\n "train": [{"input": "a", "output": 5}]}', "DATA-018", " train[0] field output", "content is an integer"),
        ('{\n "train": [{"input": "", "output": "b"}]}', "DATA-017", " train[0] field input", "user message is empty"),
        ('{\n "train": [{"messages": []}]}', "DATA-015", " train[0]", "found keys [messages]"),
        ('{\n "train": [[]]}', "DATA-003", " train[0]", "the row is a list"),
        ("{\n" + '"a":' + "[" * 100_000, "DATA-010", "", "nesting > 64"),
        (b'{\n "train": [\xff]}', "DATA-007", ":2", "not UTF-8 at byte 12 (0xff)"),
        ("{\n}", "DATA-015", "", "split `train` is missing; found []"),
    ],
)
def test_bad_documents(write: Callable[..., Path], content: str | bytes, code: str, where: str, cause: str) -> None:
    with pytest.raises(DataError) as caught:
        contents(write(content, "a.json"))
    assert (caught.value.code, caught.value.where) == (code, f"a.json{where}")
    assert cause in caught.value.cause


def test_each_format_names_the_other(write: Callable[..., Path]) -> None:
    """Case 15: the fix for the wrong format is the override to type."""
    for content, kind, other in [
        ('{"input": "a", "output": "b"}', "messages", "instruct"),
        ('{"train": [{"input": "a", "output": "b"}]}', "messages", "instruct"),
        (json.dumps({"messages": PAIR}), "instruct", "messages"),
    ]:
        with pytest.raises(DataError) as caught:
            contents(write(content), kind)
        assert (caught.value.code, caught.value.fix) == ("DATA-015", f"dataset.format={other}")


def test_unknown_format_and_policy(write: Callable[..., Path], good_line: str) -> None:
    with pytest.raises(NotFoundError, match="Known: instruct, messages"):
        read_rows(write(good_line), "instrct")
    with pytest.raises(ConfigError, match="on_error is `ignore`"):
        read_rows(write(good_line), on_error="ignore")


def test_skipping_counts_every_row(write: Callable[..., Path], good_line: str) -> None:
    """D4: rows in = used + rejected, per reason."""
    bad = ["{", '{"messages": []}', '{"messages": []}', "x" * (2**20 + 1), '{"a": NaN}']
    path = write("\n".join([*[good_line] * 20, *bad, *[good_line] * 5]))
    reader = read_rows(path, on_error="skip", max_skipped_fraction=0.2)
    assert len(list(reader)) == 25
    report: ReadReport = reader.report
    assert dict(report.rejected) == {"DATA-001": 1, "DATA-015": 2, "DATA-012": 1, "DATA-004": 1}
    assert report.rows == report.used + report.rejected.total() == 30
    assert report.first_rejection is not None
    assert report.first_rejection.where == "train.jsonl:21:2"
    assert "5 of 30 rows rejected" in report.notices[0]


def test_skipping_too_much_is_an_error(write: Callable[..., Path], good_line: str) -> None:
    """D4."""
    path = write("\n".join([*[good_line] * 8, "{}", "{}"]))
    reader = read_rows(path, on_error="skip", max_skipped_fraction=0.1)
    with pytest.raises(DataError, match=r"2 of 10 rows rejected \(DATA-015: 2\), more than") as caught:
        list(reader)
    assert (caught.value.code, caught.value.where) == ("DATA-015", "train.jsonl:9")
    assert "raise dataset.max_skipped_fraction" in caught.value.fix
    assert len(list(read_rows(path, on_error="skip", max_skipped_fraction=0.2))) == 8


def test_the_default_is_to_refuse(write: Callable[..., Path], good_line: str) -> None:
    with pytest.raises(DataError):
        list(read_rows(write("\n".join([*[good_line] * 99, "{}"]))))


def test_a_file_of_bad_rows_only(write: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="2 of 2 rows rejected"):
        list(read_rows(write("{}\n{}\n"), on_error="skip", max_skipped_fraction=0.5))


def test_limit_stops_reading(write: Callable[..., Path], good_line: str) -> None:
    reader = read_rows(write(f"{good_line}\n{good_line}\nbad\n"), limit=2)
    assert len(list(reader)) == 2
    assert reader.report.source_sha256 is None


def test_memory_does_not_grow_with_the_file(write: Callable[..., Path], make_row: Callable[..., Any]) -> None:
    """D2: 12 MB of rows are read within 4 MiB."""
    path = write((json.dumps(make_row("q" * 500, "a" * 500)) + "\n") * 11_000)
    assert path.stat().st_size > 11 * 2**20
    for _ in read_rows(path, limit=1):
        pass
    tracemalloc.start()
    count = sum(1 for _ in read_rows(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 11_000
    assert peak < 4 * 2**20
