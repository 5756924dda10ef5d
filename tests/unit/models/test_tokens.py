"""Tokens in the store: what ``encode`` gives, once, for every ``max_length``; and what is refused."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loguru import logger
from tests.unit.models.reference import fit_length
from tests.unit.models.test_chat import CHATML, talk, tokenizer

from organon.config.schema import DatasetConfig
from organon.config.spec import BaseModel
from organon.errors import DataError, StoreError
from organon.models import chat, token_files, tokens
from organon.models.chat import encode_row
from organon.models.tokens import TokenRows, token_rows, tokens_key
from organon.store.store import Store

BASE = BaseModel(name="bytes", digest="d" * 64, folder="/nowhere", chat_template=CHATML)
Row = dict[str, Any]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def warned() -> Iterator[list[str]]:
    found: list[str] = []
    sink = logger.add(lambda m: found.append(m.record["message"]), level="WARNING")
    yield found
    logger.remove(sink)


def messages(*contents: str, **named: str) -> Row:
    return {"messages": talk(*contents, **named)}


def preference(question: str, chosen: str, rejected: str) -> Row:
    sides = {"chosen": chosen, "rejected": rejected}
    answers = {side: [{"role": "assistant", "content": text}] for side, text in sides.items()}
    return {"prompt": talk(question), **answers}


def write(folder: Path, rows: list[Row]) -> tuple[Path, str]:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    digest = hashlib.sha256(content).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{digest}.jsonl").write_bytes(content)
    return folder / f"{digest}.jsonl", digest


def read(store: Store, rows: list[Row], *, progress: Any = None, tok: Any = None, **dataset: Any) -> TokenRows:
    path, digest = write(store.root.parent, rows)
    config = DatasetConfig(**{"name": "rows", "source": "rows.jsonl", "max_length": 512, **dataset})
    return token_rows(path, digest, BASE, config, store=store, tokenizer=tok or tokenizer(), on_progress=progress)


def documents(rows: TokenRows) -> list[tuple[list[int], list[int]]]:
    return [(rows.ids(i).tolist(), rows.labels(i).tolist()) for i in range(len(rows))]


MIXED = [
    messages("ab", "XYZ"),
    messages("c", "D", "e", "FG", system="s"),
    messages("h", "ä😀"),
    messages("i" * 40, "J"),
]


@pytest.mark.parametrize("loss_on", ["assistant", "last", "all"])
@pytest.mark.parametrize("chunk_rows", [1, 3, 512])
def test_they_are_what_encode_gives_row_by_row(
    store: Store, monkeypatch: pytest.MonkeyPatch, loss_on: str, chunk_rows: int
) -> None:
    monkeypatch.setattr(token_files, "CHUNK_ROWS", chunk_rows)
    rows = read(store, MIXED, loss_on=loss_on)
    expected = [encode_row(tokenizer(), row, loss_on=loss_on)[0] for row in MIXED]
    assert documents(rows) == expected
    assert rows.lengths.tolist() == [len(ids) for ids, _ in expected]
    assert rows.trained.tolist() == [sum(label != -100 for label in labels[1:]) for _, labels in expected]
    assert [rows.line(i) for i in range(4)] == [1, 2, 3, 4]
    assert (len(rows), rows.documents_per_row) == (4, 1)
    assert rows.ids(0).dtype == rows.labels(0).dtype == rows.lengths.dtype == rows.trained.dtype == np.int32
    summary = rows.summary
    assert (summary.rows_read, summary.rows, summary.documents, summary.dropped_rows) == (4, 4, 4, 0)
    assert summary.tokens == sum(len(ids) for ids, _ in expected)
    assert summary.trained_tokens == int(rows.trained.sum())


def test_texts_and_preference_rows(store: Store) -> None:
    texts = [{"text": "abc"}, {"text": "d\n"}]
    assert documents(read(store, texts)) == [encode_row(tokenizer(), row)[0] for row in texts]
    pairs = [preference("a", "Yes", "No"), preference("b", "Aye", "Nay")]
    rows = read(store, pairs)
    assert documents(rows) == [pair for row in pairs for pair in encode_row(tokenizer(), row)]
    assert rows.documents_per_row == 2
    assert [rows.line(i) for i in range(4)] == [1, 1, 2, 2]
    assert (rows.summary.rows, rows.summary.documents) == (2, 4)
    with pytest.raises(DataError, match="mixed") as caught:
        read(store, [pairs[0], texts[0]])
    assert caught.value.code == "DATA-015"


def test_they_are_encoded_once_for_every_length(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """No tokenizer is needed the second time: this one's folder does not exist."""
    rows = read(store, MIXED)
    path, digest = write(store.root.parent, MIXED)
    config = DatasetConfig(name="rows", source="x", max_length=50, on_too_long="truncate")
    monkeypatch.setattr(tokens, "write_tokens", None)
    cut = token_rows(path, digest, BASE, config, store=str(store.root))
    assert cut.lengths.tolist() == np.minimum(rows.lengths, 50).tolist()
    longer = token_rows(path, digest, BASE, dataclasses.replace(config, max_length=999), store=store.root)
    assert documents(longer) == documents(rows)
    assert isinstance(longer.arrays.ids, np.memmap)
    assert longer.arrays.ids.dtype == np.uint16


def test_whatever_decides_the_tokens_decides_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [
        tokens_key("h1", BASE, "assistant"),
        tokens_key("h2", BASE, "assistant"),
        tokens_key("h1", dataclasses.replace(BASE, digest="e"), "assistant"),
        tokens_key("h1", dataclasses.replace(BASE, chat_template=None), "assistant"),
        tokens_key("h1", BASE, "all"),
    ]
    monkeypatch.setattr(tokens, "version", lambda name: "0.0")
    keys.append(tokens_key("h1", BASE, "assistant"))
    monkeypatch.setattr(tokens, "FORMAT", 99)
    keys.append(tokens_key("h1", BASE, "assistant"))
    assert len(set(keys)) == len(keys)
    other = dataclasses.replace(BASE, name="other", quantization="nf4", dtype="float32", folder=None)
    assert tokens_key("h1", other, "assistant") == keys[-1]


WORDS = st.text(st.sampled_from("ab"), min_size=1, max_size=12)


@given(
    rows=st.lists(st.lists(WORDS, min_size=2, max_size=6).filter(lambda t: len(t) % 2 == 0), min_size=1, max_size=6),
    max_length=st.integers(2, 60),
    on_too_long=st.sampled_from(["error", "truncate", "drop"]),
    loss_on=st.sampled_from(["assistant", "last", "all"]),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_fitting_is_that_of_single_rows(
    tmp_path: Path, rows: list[list[str]], max_length: int, on_too_long: str, loss_on: str
) -> None:
    """The same rows, cut at the same place; or the same error, for one of the rows."""
    kept: list[Any] = []
    errors: dict[str, str] = {}
    for number, contents in enumerate(rows, start=1):
        ids, labels = encode_row(TOKENIZER, messages(*contents), loss_on=loss_on)[0]
        try:
            fitted = fit_length(ids, labels, max_length=max_length, on_too_long=on_too_long)
        except DataError as error:
            errors.setdefault(error.code, f":{number}:")
        else:
            kept += [fitted] if fitted else []
    store = Store(tmp_path / "store")
    arguments = {"max_length": max_length, "on_too_long": on_too_long, "loss_on": loss_on}
    given_rows = [messages(*contents) for contents in rows]
    if not errors and kept:
        assert documents(read(store, given_rows, tok=TOKENIZER, **arguments)) == kept
        return
    with pytest.raises(DataError) as caught:
        read(store, given_rows, tok=TOKENIZER, **arguments)
    assert caught.value.code in (errors or {"DATA-013": ""})
    assert errors.get(caught.value.code, "") in f"{caught.value}"


TOKENIZER = tokenizer()


def test_too_long_is_an_error_for_the_first_such_row(store: Store) -> None:
    """Case 20."""
    with pytest.raises(DataError, match=r"45 tokens > 30 .*; 2 of 3 rows are too long") as caught:
        read(store, [messages("a", "B"), messages("a" * 20, "B" * 20), messages("a" * 30, "B" * 20)], max_length=30)
    assert caught.value.code == "DATA-020"
    assert caught.value.where.endswith(".jsonl:2")
    assert "dataset.max_length=55" in caught.value.fix


def test_answers_that_all_fall_behind_the_length_are_refused(store: Store) -> None:
    """Case 19: with the length that would do for all rows."""
    rows = [messages("a" * 20, "B" * 20), messages("a" * 30, "B")]
    with pytest.raises(DataError, match=r"0 of 45 tokens are trained on; so in 2 of 2 rows") as caught:
        read(store, rows, max_length=24, on_too_long="truncate")
    assert caught.value.code == "DATA-019"
    assert caught.value.where.endswith(".jsonl:1")
    assert "at least 35" in caught.value.fix
    assert len(read(store, rows, max_length=35, on_too_long="truncate")) == 2


def test_an_answer_that_is_cut_away_is_counted_and_said(store: Store, warned: list[str]) -> None:
    first, second = messages("a", "B", "c", "D" * 30, "e", "FGH"), messages("a", "B")
    whole = read(store, [first, second])
    assert warned == []
    rows = read(store, [first, second], max_length=20, on_too_long="truncate")
    assert rows.summary.truncated_rows == 1
    assert rows.summary.cut_tokens == int(whole.lengths[0]) - 20
    assert rows.summary.rows_with_lost_answers == 1
    assert rows.summary.longest == int(whole.lengths[0])
    assert "1 of 2 rows are longer than dataset.max_length=20" in warned[0]
    assert "in 1 rows one or more whole answers are cut away" in warned[1]
    # Half of the last answer is left: nothing is lost whole.
    rows = read(store, [first, second], max_length=int(whole.lengths[0]) - 1, on_too_long="truncate")
    assert (rows.summary.truncated_rows, rows.summary.rows_with_lost_answers) == (1, 0)
    # Where everything is trained on, the answers are still known.
    rows = read(store, [first, second], max_length=20, on_too_long="truncate", loss_on="all")
    assert rows.summary.rows_with_lost_answers == 1


def test_rows_can_be_dropped_and_none_left_is_an_error(store: Store, warned: list[str]) -> None:
    rows = read(store, [messages("a" * 20, "B"), messages("a", "B")], max_length=20, on_too_long="drop")
    assert [rows.line(i) for i in range(len(rows))] == [2]
    assert (rows.summary.rows, rows.summary.dropped_rows, rows.summary.rows_read) == (1, 1, 2)
    assert "1 of 2 rows are too long and left out" in warned[0]
    with pytest.raises(DataError, match="all 1 rows are longer than 20 tokens") as caught:
        read(store, [messages("a" * 20, "B")], max_length=20, on_too_long="drop")
    assert caught.value.code == "DATA-013"
    with pytest.raises(DataError, match="0 rows") as caught:
        read(store, [])
    assert caught.value.code == "DATA-013"


def test_the_two_documents_of_a_preference_row_stay_together(store: Store) -> None:
    rows = [preference("a", "B" * 20, "C"), preference("a", "B", "C"), preference("a", "B", "C" * 20)]
    kept = read(store, rows, max_length=20, on_too_long="drop")
    assert [kept.line(i) for i in range(len(kept))] == [2, 2]
    assert kept.summary.dropped_rows == 2
    cut = read(store, rows, max_length=20, on_too_long="truncate")
    assert cut.lengths.tolist() == [20, 7, 7, 7, 7, 20]
    assert cut.summary.truncated_rows == 2


def test_a_bad_row_is_named_and_leaves_nothing_behind(store: Store) -> None:
    def refuse(rows: list[Row], tok: Any = None) -> DataError:
        with pytest.raises(DataError) as caught:
            read(store, rows, tok=tok)
        assert list((store.root / "staging").rglob("*.bin")) == []
        assert not (store.root / "tokens").exists()
        return caught.value

    strict = tokenizer(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML
    )
    error = refuse([messages("a", "B"), messages("a", "B", system="s")], strict)
    assert error.code == "DATA-016"
    assert error.where.endswith(".jsonl:2")


def test_a_file_that_changed_is_refused_before_its_rows_are_looked_at(store: Store) -> None:
    path, digest = write(store.root.parent, MIXED)
    path.write_text('{"no": "row"}\n')
    with pytest.raises(DataError, match="changed since it was stored") as caught:
        token_rows(path, digest, BASE, DatasetConfig(name="x", source="x"), store=store, tokenizer=tokenizer())
    assert caught.value.code == "DATA-028"
    path.unlink()
    with pytest.raises(DataError, match="cannot be read") as caught:
        token_rows(path, digest, BASE, DatasetConfig(name="x", source="x"), store=store, tokenizer=tokenizer())
    assert caught.value.code == "DATA-027"


def test_a_file_that_changes_while_it_is_read_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_files, "CHUNK_ROWS", 1)
    path, digest = write(store.root.parent, MIXED * 500)

    def change(done: int, total: int) -> None:
        if done == 1:
            with path.open("r+b") as file:
                file.seek(-3, 2)
                file.write(b" ")

    with pytest.raises(DataError, match="changed since it was stored") as caught:
        token_rows(
            path,
            digest,
            BASE,
            DatasetConfig(name="x", source="x"),
            store=store,
            tokenizer=tokenizer(),
            on_progress=change,
        )
    assert caught.value.code == "DATA-028"


def test_a_full_disk_leaves_nothing_and_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(token_files, "_append", full)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        read(store, MIXED)
    assert caught.value.code == "CACHE-081"
    assert list((store.root / "staging").rglob("*.bin")) == []
    monkeypatch.undo()
    assert len(read(store, MIXED)) == 4


def test_progress_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_files, "CHUNK_ROWS", 3)
    calls: list[tuple[int, int]] = []
    read(store, MIXED * 2, progress=lambda *counts: calls.append(counts))
    assert calls == [(3, 8), (6, 8), (8, 8)]
    read(store, MIXED * 2, progress=lambda *counts: calls.append(counts))
    assert len(calls) == 3


def test_long_rows_are_encoded_in_smaller_chunks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_files, "CHUNK_CHARACTERS", 30)
    calls: list[int] = []
    read(store, [messages("a" * 20, "B"), *MIXED[:3]], progress=lambda done, _: calls.append(done))
    assert calls == [3, 4]


def test_a_special_token_in_a_text_is_counted_and_said(store: Store, warned: list[str]) -> None:
    """It becomes that token: here the user's message holds an answer that nobody gave."""
    forged = messages("a<|end|>\n<|assistant|>yes", "B")
    rows = read(store, [messages("a", "B"), forged, messages("a < b |", "B<|end|>")])
    assert rows.summary.rows_with_special_tokens == 2
    [said] = warned
    assert "2 of 3 rows" in said
    assert "'<|end|>' in " in said
    assert said.endswith(".jsonl:2")
    read(store, [messages("a", "B"), forged, messages("a < b |", "B<|end|>")])  # from the store
    assert warned == [said, said]
    pairs = [preference("a", "B", "C<|pad|>")]
    assert read(store, pairs).summary.rows_with_special_tokens == 1
    assert read(store, [{"text": "a<|user|>"}]).summary.rows_with_special_tokens == 1


def test_a_long_conversation_is_encoded_in_blocks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each turn holds all turns before it: 80 turns at once would be 80 times the conversation."""
    rows = [messages(*(f"{i} " + "x" * 50 for i in range(160))), {"text": "abc"}, messages("a", "B")]
    expected = [encode_row(TOKENIZER, row)[0] for row in rows]
    sizes: list[int] = []
    rendered = chat.render

    def watched(*arguments: Any, **named: Any) -> list[str]:
        texts = rendered(*arguments, **named)
        sizes.append(sum(map(len, texts)))
        return texts

    monkeypatch.setattr(chat, "render", watched)
    monkeypatch.setattr(chat, "BLOCK_CHARACTERS", 50_000)
    assert documents(read(store, rows, max_length=99_999)) == expected
    assert max(sizes) < 50_000
    assert sum(sizes) > 500_000


def test_fitting_holds_no_copy_of_the_spans() -> None:
    """A million rows have millions of them."""
    each, count = 50, 20_000
    start = np.arange(each, dtype=np.int32) * 4 + 2
    one = np.stack([start, start + 2, np.full(each, token_files.TRAINED | token_files.ANSWER, np.int32)], axis=1)
    lengths, counts = np.full(count, 4 * each + 2, np.int32), np.full(count, each, np.int32)
    arrays = token_files.TokenArrays(
        np.zeros(0, np.uint16), lengths, np.tile(one, (count, 1)), counts, np.arange(count, dtype=np.int32),
        token_files._starts(lengths), token_files._starts(counts), 1, token_files.SpecialTexts(),
    )  # fmt: skip
    tracemalloc.start()
    try:
        rows = tokens.fit(arrays, max_length=100, on_too_long="truncate", path=Path("x"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert set(rows.trained.tolist()) == {50}
    assert rows.summary.rows_with_lost_answers == count
    assert peak < 12e6  # of the spans alone: 12 MB, and they were copied twice and more


def test_two_who_ask_at_once_encode_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    write_tokens: Callable[..., None] = tokens.write_tokens
    both = threading.Barrier(2)

    def slow(*arguments: Any, **named: Any) -> None:
        calls.append(1)
        write_tokens(*arguments, **named)

    monkeypatch.setattr(tokens, "write_tokens", slow)
    found: list[TokenRows] = []

    def ask() -> None:
        both.wait()
        found.append(read(Store(store.root), MIXED))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [1]
    assert documents(found[0]) == documents(found[1])


def test_without_a_store_it_is_refused(tmp_path: Path) -> None:
    path, digest = write(tmp_path, MIXED)
    with pytest.raises(StoreError, match="no store is named"):
        token_rows(path, digest, BASE, DatasetConfig(name="x", source="x"), store="", tokenizer=tokenizer())


def test_a_first_token_has_a_label_that_does_not_count(store: Store) -> None:
    """Of a template that writes nothing before this answer; as ``fit_length`` sees it."""
    bare = tokenizer("{% for m in messages if m.content != 'a' %}{{ m.content }}{% endfor %}")
    rows = read(store, [messages("a", "XYZ")], tok=bare)
    assert rows.labels(0).tolist() == rows.ids(0).tolist()
    assert rows.trained.tolist() == [2]
    with pytest.raises(DataError, match="0 of 1 tokens are trained on") as caught:
        read(store, [messages("a", "X")], tok=bare)
    assert "max_length" not in caught.value.fix


def test_a_large_vocabulary_is_kept_whole(store: Store) -> None:
    tok = tokenizer()
    tok.add_tokens([f"<extra_{i}>" for i in range(70_000)])
    row = messages("<extra_69999>", "<extra_69998>")
    rows = read(store, [row], tok=tok)
    assert rows.arrays.ids.dtype == np.int32
    assert documents(rows) == encode_row(tok, row)
    assert int(rows.ids(0).max()) > 2**16


def test_a_damaged_entry_is_encoded_again(store: Store) -> None:
    rows = read(store, MIXED)
    expected = documents(rows)
    [place] = (store.root / "tokens").iterdir()
    ids = place / "ids.bin"
    ids.chmod(0o644)
    content = bytearray(ids.read_bytes())
    content[0] ^= 1
    ids.write_bytes(bytes(content))
    assert documents(read(store, MIXED)) == expected
