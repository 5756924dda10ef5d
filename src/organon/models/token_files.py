"""Encoded rows as flat arrays in a folder: written in one pass in constant memory, read as a memory map.

D documents, T tokens of all of them, S spans of all of them:

    ids.bin      uint16 (vocabularies up to 65,536) or int32 (T,)   documents one behind another
    lengths.bin  int32 (D,)      tokens of each document
    spans.bin    int32 (S, 3)    start, end (tokens of its document) and kind: TRAINED | ANSWER
    counts.bin   int32 (D,)      spans of each document
    lines.bin    int32 (D,)      the line of the JSON Lines file that the document came from
    tokens.json  what they hold, and how many rows have a special token's text in them
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from organon.config.spec import TOKENS_FORMAT
from organon.errors import DataError
from organon.models.chat import Document, encode_rows, special_texts
from organon.store.files import report_disk_errors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT = TOKENS_FORMAT
TRAINED, ANSWER = 1, 2  # bits of a span's kind
META = "tokens.json"
FILES = ("ids", "lengths", "spans", "counts", "lines")
CHUNK_ROWS, CHUNK_CHARACTERS = 512, 2**20  # that are encoded at once
BLOCK_SPANS = 2**16  # that are looked at together

Progress = Callable[[int, int], None]  # rows done, rows in all
NumberedRow = tuple[int, Mapping[str, Any]]


@dataclass
class SpecialTexts:
    """How many ``rows`` hold the text of a special token, which was read as that token; the first such row."""

    rows: int = 0
    token: str = ""
    line: int = 0


@dataclass(frozen=True, eq=False)
class TokenArrays:
    """The arrays of one folder. ``offsets`` (D + 1,): where each document's tokens begin; ``first_span`` likewise."""

    ids: NDArray[Any]
    lengths: NDArray[np.int32]
    spans: NDArray[np.int32]
    counts: NDArray[np.int32]
    lines: NDArray[np.int32]
    offsets: NDArray[np.int64]
    first_span: NDArray[np.int64]
    documents_per_row: int
    special: SpecialTexts

    @classmethod
    def open(cls, folder: Path) -> TokenArrays:
        """Map the files of ``folder`` into memory; nothing but the lengths is read."""
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        ids = _map(folder / "ids.bin", meta["dtype"])
        lengths, counts, lines = (_map(folder / f"{name}.bin", "<i4") for name in ("lengths", "counts", "lines"))
        spans = _map(folder / "spans.bin", "<i4").reshape(-1, 3)
        starts = _starts(lengths), _starts(counts)
        special = SpecialTexts(**meta["special"])
        return cls(ids, lengths, spans, counts, lines, *starts, int(meta["documents_per_row"]), special)

    def ids_of(self, document: int) -> NDArray[np.int32]:
        """(length,) The tokens of one document, copied."""
        return np.asarray(self.ids[self.offsets[document] : self.offsets[document + 1]]).astype(np.int32)

    def spans_of(self, document: int) -> list[tuple[int, int, int]]:
        """Start, end and kind of one document's spans."""
        first, behind = self.first_span[document : document + 2]
        return [tuple(span) for span in self.spans[first:behind].tolist()]

    def rows_of(self, documents: NDArray[np.bool_]) -> int:
        """How many rows have one of these documents (D,)."""
        return int(documents.reshape(-1, self.documents_per_row).any(axis=1).sum())

    def trained_within(self, lengths: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """(D,) Tokens trained on within ``lengths`` (D,) of each document; never its first, which nothing predicts."""
        trained = np.zeros(len(self.lengths), dtype=np.int32)
        for document, spans in self._of_kind(TRAINED):
            inside = np.minimum(spans[:, 1], lengths[document]) - np.maximum(spans[:, 0], 1)
            np.add.at(trained, document, np.maximum(inside, 0).astype(np.int32))
        return trained

    def needed(self) -> NDArray[np.int64]:
        """(D,) The shortest length at which each document has a token to train on; 0 where it never has."""
        never = np.iinfo(np.int64).max
        first = np.full(len(self.lengths), never)
        for document, spans in self._of_kind(TRAINED):
            start = np.maximum(spans[:, 0], 1)
            useful = spans[:, 1] > start
            np.minimum.at(first, document[useful], start[useful] + 1)
        return np.where(first == never, 0, first)

    def answers_beyond(self, lengths: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """(D,) Whether one of the assistant's turns begins behind the first ``lengths`` (D,) tokens."""
        found = np.zeros(len(self.lengths), dtype=np.bool_)
        for document, spans in self._of_kind(ANSWER):
            found[document[spans[:, 0] >= lengths[document]]] = True
        return found

    def _of_kind(self, kind: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32]]]:
        """Documents (n,) and spans (n, 3) of one kind, in blocks: all of them at once would be a copy of the file."""
        start = 0
        while start < len(self.lengths):
            full = int(np.searchsorted(self.first_span, self.first_span[start] + BLOCK_SPANS, side="right")) - 1
            behind = max(start + 1, min(full, len(self.lengths)))
            spans = self.spans[self.first_span[start] : self.first_span[behind]]
            chosen = (spans[:, 2] & kind) != 0
            yield np.repeat(np.arange(start, behind), self.counts[start:behind])[chosen], spans[chosen]
            start = behind


def _map(path: Path, dtype: str) -> NDArray[Any]:
    if path.stat().st_size == 0:  # cannot be mapped
        return np.empty(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")


def _starts(sizes: NDArray[np.int32]) -> NDArray[np.int64]:
    starts = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=starts[1:])
    return starts


def write_tokens(
    folder: Path,
    rows: Iterable[NumberedRow],
    tokenizer: PreTrainedTokenizerBase,
    *,
    loss_on: str,
    total: int,
    place: Callable[[int], str],
    on_progress: Progress | None = None,
) -> None:
    """Encode numbered rows into the files of ``folder``, which exists.

    ``place`` names a row by its number in errors. Memory does not grow with the rows.

    Raises:
        DataError, SecurityError, ConfigError: as ``encode_rows``; DATA-015 for rows of several kinds.
        StoreError: the disk is full or not writable.
    """
    dtype = "<u2" if max(tokenizer.get_vocab().values(), default=0) < 2**16 else "<i4"
    per_row, done = 0, 0
    names, special = special_texts(tokenizer), SpecialTexts()
    with contextlib.ExitStack() as stack, report_disk_errors(folder / "ids.bin"):
        files = {name: stack.enter_context((folder / f"{name}.bin").open("wb")) for name in FILES}
        for chunk in _chunks(rows):
            places = [place(number) for number, _ in chunk]
            encoded = encode_rows(tokenizer, [row for _, row in chunk], places, loss_on=loss_on)
            per_row = per_row or len(encoded[0])
            _check_alike(encoded, places, per_row)
            _count_special(special, chunk, names)
            _append(files, encoded, [number for number, _ in chunk], dtype)
            done += len(chunk)
            if on_progress:
                on_progress(done, total)
        meta: dict[str, Any] = {"format": FORMAT, "dtype": dtype, "documents_per_row": max(per_row, 1), "rows": done}
        meta["special"] = dataclasses.asdict(special)
        (folder / META).write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")


def _chunks(rows: Iterable[NumberedRow]) -> Iterator[list[NumberedRow]]:
    chunk: list[NumberedRow] = []
    size = 0
    for number, row in rows:
        chunk.append((number, row))
        size += _characters(row)
        if len(chunk) == CHUNK_ROWS or size > CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _characters(row: Mapping[str, Any]) -> int:
    """About how long a row is."""
    return sum(len(text) for text in _texts(row))


def _texts(row: Mapping[str, Any]) -> Iterator[str]:
    for part in row.values():
        if isinstance(part, str):
            yield part
        elif isinstance(part, list):
            yield from (str(message.get("content", "")) for message in part)


def _count_special(special: SpecialTexts, chunk: Sequence[NumberedRow], names: re.Pattern[str] | None) -> None:
    """Count the rows in whose text one of these ``names`` stands."""
    if names is None:
        return
    for number, row in chunk:
        found = next((found for text in _texts(row) if (found := names.search(text))), None)
        if found:
            special.rows += 1
            if not special.line:
                special.token, special.line = found.group(), number


def _check_alike(encoded: Sequence[Sequence[Document]], places: Sequence[str], per_row: int) -> None:
    for documents, place in zip(encoded, places, strict=True):
        if len(documents) != per_row:
            raise DataError(
                "preference rows and other rows are mixed in one dataset",
                code="DATA-015",
                where=place,
                fix="put them into datasets of their own",
            )


def _append(
    files: Mapping[str, BinaryIO], encoded: Sequence[Sequence[Document]], numbers: Sequence[int], dtype: str
) -> None:
    documents = [document for row in encoded for document in row]
    spans = [_spans(document) for document in documents]
    columns: dict[str, tuple[list[Any], str]] = {
        "ids": ([token for document in documents for token in document.ids], dtype),
        "lengths": ([len(document.ids) for document in documents], "<i4"),
        "spans": ([value for found in spans for span in found for value in span], "<i4"),
        "counts": ([len(found) for found in spans], "<i4"),
        "lines": ([number for number, row in zip(numbers, encoded, strict=True) for _ in row], "<i4"),
    }
    for name, (values, kind) in columns.items():
        files[name].write(np.asarray(values, dtype=kind).tobytes())


def _spans(document: Document) -> list[tuple[int, int, int]]:
    kinds = dict.fromkeys(document.answers, ANSWER)
    for span in document.trained:
        kinds[span] = kinds.get(span, 0) | TRAINED
    return sorted((start, end, kind) for (start, end), kind in kinds.items())
