"""The public Dataset: MO-04, MO-07 to MO-11, MO-13, MO-46, DL-23, DL-37."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import string
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from organon.data import Dataset, canonical_line, check_row, read_rows
from organon.errors import DataError

GOLDEN = [
    ("What is 15 + 27?", "15 + 27 = 42"),
    ("Calculate 8 * 9", "8 * 9 = 72"),
]

text = st.text(
    st.one_of(st.sampled_from('\n\t\r é😀\u2028\ufeff"\\'), st.characters(exclude_categories=["Cs", "Cc"])), max_size=30
).filter(lambda s: s.strip())
answer = st.fixed_dictionaries({"role": st.just("assistant"), "content": text}, optional={"weight": st.just(1)})
question = st.fixed_dictionaries({"role": st.just("user"), "content": text})
turns = st.lists(st.tuples(question, answer).map(list), min_size=1, max_size=3).map(
    lambda pairs: list(itertools.chain(*pairs))
)
system = st.lists(st.fixed_dictionaries({"role": st.just("system"), "content": text}), max_size=1)
valid_rows = st.lists(st.builds(lambda s, t: {"messages": s + t}, system, turns), min_size=1, max_size=5)


def dataset(n: int, make: type[Dataset] = Dataset) -> Dataset:
    return make([json.loads(line(i)) for i in range(n)])


def line(i: int) -> str:
    turns = [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": f"a{i}"}]
    return json.dumps({"messages": turns})


def test_golden_hash(make_row: Callable[..., Any]) -> None:
    """MO-46: the dataset hash of MOTools, requirements.md 3.2."""
    data = Dataset([make_row(q, a, metadata="x") for q, a in GOLDEN])
    assert data.content_hash == "8a790ef2622260d81f99f7ce810ddde8777309c846583be5f99189e42a8ab5f2"


def test_to_openai_format() -> None:
    """MO-07."""
    data = dataset(2)
    rows = data.to_openai_format()
    assert rows == [json.loads(line(0)), json.loads(line(1))]
    rows[0]["messages"][0]["content"] = "changed"
    assert data == dataset(2)


async def test_save_writes_json_lines(tmp_path: Path) -> None:
    """MO-08: one object a line, trailing newline, UTF-8; the file's hash is the dataset's."""
    data = Dataset([json.loads(line(0).replace("q0", "é😀"))])
    await data.save(tmp_path / "new" / "data.jsonl")
    raw = (tmp_path / "new" / "data.jsonl").read_bytes()
    assert raw.decode("utf-8") == canonical_line(data[0])
    assert raw.count(b"\n") == 1
    assert raw.endswith(b"}\n")
    assert hashlib.sha256(raw).hexdigest() == data.content_hash
    assert os.listdir(tmp_path / "new") == ["data.jsonl"]  # noqa: PTH208


async def test_load_skips_blank_lines(tmp_path: Path) -> None:
    """MO-09."""
    path = tmp_path / "data.jsonl"
    path.write_text(f"\n{line(0)}\n\n   \n{line(1)}\n")
    assert await Dataset.load(str(path)) == dataset(2)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(valid_rows)
async def test_save_then_load_gives_equal_rows(tmp_path: Path, rows: list[Any]) -> None:
    """MO-09, for any valid rows."""
    data = Dataset(rows)
    await data.save(tmp_path / "data.jsonl")
    again = await Dataset.load(tmp_path / "data.jsonl")
    assert again == data
    assert again.content_hash == data.content_hash
    assert again.to_openai_format() == rows


@given(valid_rows)
def test_canonical_line_round_trip(rows: list[Any]) -> None:
    for row in rows:
        made = canonical_line(check_row(row, "row"))
        assert made.isascii()
        assert made.count("\n") == 1
        assert check_row(json.loads(made), "row") == row


async def test_a_large_row_survives_the_round_trip(tmp_path: Path) -> None:
    """Escapes make a line of 1 MiB up to three times as long."""
    path = tmp_path / "data.jsonl"
    row = json.loads(line(0))
    row["messages"][0]["content"] = "😀" * 200_000
    path.write_text(json.dumps(row, ensure_ascii=False))
    data = Dataset(read_rows(path))
    await data.save(path)
    assert path.stat().st_size > 2 * 2**20
    assert await Dataset.load(path) == data


async def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.jsonl"
    await dataset(1).save(path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="cannot be written: No space left") as caught:
        await dataset(2).save(path)
    assert (caught.value.code, caught.value.where) == ("DATA-027", str(path))
    assert await Dataset.load(path) == dataset(1)
    assert os.listdir(tmp_path) == ["data.jsonl"]  # noqa: PTH208


async def test_save_refuses_what_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        await dataset(1).save(tmp_path)
    assert caught.value.code == "DATA-026"


async def test_save_follows_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real.jsonl")
    await dataset(1).save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real.jsonl").read_text() == line(0) + "\n"


def test_sample() -> None:
    """MO-10: original unchanged, no duplicates, clamped, repeatable, private random numbers."""
    data = dataset(30)
    whole = data.content_hash
    state = random.getstate()
    drawn = data.sample(10, seed=3)
    assert random.getstate() == state
    assert data == dataset(30)
    questions = [row["messages"][0]["content"] for row in drawn]
    assert len(set(questions)) == 10
    assert set(questions) <= {f"q{i}" for i in range(30)}
    assert data.sample(10, seed=3) == drawn
    assert data.sample(10, seed=4) != drawn
    assert len(data.sample(99)) == 30
    assert len(data.sample(0)) == 0
    assert drawn.content_hash == Dataset(list(drawn)).content_hash != whole
    with pytest.raises(ValueError, match="n is -1"):
        data.sample(-1)


def test_len_iteration_and_slices() -> None:
    """MO-11."""
    data = dataset(3)
    assert len(data) == 3
    assert list(data)[2] == data[2] == json.loads(line(2))
    assert data[1:] == Dataset(list(data)[1:])
    assert isinstance(data[:1], Dataset)
    with pytest.raises(IndexError):
        data[3]


def test_rows_cannot_be_changed_through_what_is_handed_out() -> None:
    data = dataset(1)
    before = data.content_hash
    data[0]["messages"].clear()
    next(iter(data))["messages"].clear()
    assert Dataset(list(data)).content_hash == before == data.content_hash


async def test_path_and_rows_give_one_hash(tmp_path: Path) -> None:
    """MO-13 and DL-23: a file and the rows in it are the same data; spacing, key order and extras do not count."""
    path = tmp_path / "data.jsonl"
    turns = '[{"content":"q0","role":"user"},{"content":"a0","role":"assistant"}]'
    path.write_text(f'{{"id":1,"messages":{turns}}}\n')
    assert (await Dataset.load(path)).content_hash == dataset(1).content_hash
    assert dataset(2).content_hash != dataset(1).content_hash
    assert dataset(2).content_hash != Dataset(reversed(list(dataset(2)))).content_hash


def test_an_empty_dataset_exists() -> None:
    """DL-37: it is refused when it is trained on (check_minimum), not here."""
    assert len(Dataset([])) == 0
    assert Dataset([]).content_hash == hashlib.sha256(b"").hexdigest()


def test_a_bad_row_is_named() -> None:
    """DL-37."""
    with pytest.raises(DataError) as caught:
        Dataset([json.loads(line(0)), {"messages": [{"role": "bot", "content": "x"}]}])
    assert (caught.value.code, caught.value.where) == ("DATA-016", "rows[1] field messages[0].role")


@pytest.mark.parametrize("rows", ["data.jsonl", {"messages": []}, None, 5])
def test_what_is_no_list_of_rows_is_refused(rows: Any) -> None:
    with pytest.raises(DataError, match=r"Dataset.load\(path\)"):
        Dataset(rows)


def test_system_prompt() -> None:
    data = dataset(2).with_system_prompt("Be kind.")
    assert [row["messages"][0]["content"] for row in data] == ["Be kind."] * 2
    assert data.content_hash != dataset(2).content_hash
    with pytest.raises(DataError, match="already has a system message") as caught:
        data.with_system_prompt("again")
    assert caught.value.where == "rows[0] field messages[0]"


class Tagged(Dataset):
    """A user's own dataset, with another constructor."""

    def __init__(self, tag: str, n: int) -> None:
        super().__init__(dataset(n))
        self.tag = tag


def test_a_subclass_stays_itself() -> None:
    """MO-04."""
    data = Tagged("mine", 5)
    for made in (data.sample(2, seed=0), data[1:], data.with_system_prompt("s")):
        assert type(made) is Tagged
        assert made.tag == "mine"
    assert data == dataset(5)


def test_importing_the_data_layer_is_light() -> None:
    """No heavy library, no asyncio, and little time: what a cache hit pays."""
    code = (
        "import sys, re, json, typing, pathlib, dataclasses, hashlib, random, time\n"
        "t = time.process_time(); import organon.data; t = time.process_time() - t\n"
        "heavy = {'torch', 'numpy', 'pandas', 'datasets', 'transformers', 'aiofiles', 'asyncio', 'loguru', 'hydra'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_alphabet_of_content_is_wide() -> None:
    """Every printable character is data, not an error."""
    content = string.printable.replace("\x0b", "").replace("\x0c", "") + "\u0085\u2028\ufeff\U0001f600"
    assert Dataset([{"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "a"}]}])
