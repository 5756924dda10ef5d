"""A dataset as tokens: encoded once, kept in the store, memory-mapped, and fitted to a length when it is read.

The store's entry does not depend on ``dataset.max_length`` and ``on_too_long``, so a sweep over these
encodes once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from loguru import logger
from numpy.typing import NDArray

from organon.config.schema import DatasetConfig
from organon.config.spec import BaseModel
from organon.errors import DataError, StoreError
from organon.models.chat import IGNORED, too_long, untrained
from organon.models.token_files import FORMAT, TRAINED, NumberedRow, Progress, TokenArrays, write_tokens
from organon.models.token_statistics import at_length
from organon.store.files import remove_tree
from organon.store.keys import canonical, sha256_text
from organon.store.store import Entry, Store

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BLOCK_BYTES = 2**20


@dataclass(frozen=True)
class TokenSummary:
    """What became of a dataset's rows; tokens count after cutting and dropping."""

    rows_read: int
    rows: int  # used
    documents: int
    tokens: int
    trained_tokens: int
    longest: int  # tokens of the longest document, before anything is cut
    truncated_rows: int
    cut_tokens: int
    rows_with_lost_answers: int  # in which one or more of the assistant's turns were cut away whole
    dropped_rows: int
    rows_with_special_tokens: int  # of all that were read; see `SpecialTexts`


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Documents of tokens within a dataset's ``max_length``. No copy of the tokens is held.

    ``lengths`` (D,): tokens; ``trained`` (D,): labels that count in the loss, those behind a document's
    first token. Of a preference row, document 2r is the chosen answer's and 2r + 1 the rejected one's.
    """

    arrays: TokenArrays
    kept: NDArray[np.int64]  # (D,) document numbers in ``arrays``
    lengths: NDArray[np.int32]
    trained: NDArray[np.int32]
    summary: TokenSummary

    @property
    def documents_per_row(self) -> int:
        """1; 2 for preference rows."""
        return self.arrays.documents_per_row

    def __len__(self) -> int:
        """Documents."""
        return len(self.kept)

    def ids(self, document: int) -> NDArray[np.int32]:
        """Its token ids, (length,)."""
        return self.arrays.ids_of(self.kept[document])[: self.lengths[document]]

    def labels(self, document: int) -> NDArray[np.int32]:
        """Its labels, (length,): the token where it is trained on, else -100."""
        ids = self.ids(document)
        labels = np.full(len(ids), IGNORED, dtype=np.int32)
        for start, end, kind in self.arrays.spans_of(self.kept[document]):
            if kind & TRAINED:
                labels[start:end] = ids[start:end]
        return labels

    def line(self, document: int) -> int:
        """The line of the dataset's JSON Lines file that it came from, counted from 1."""
        return int(self.arrays.lines[self.kept[document]])


def token_rows(
    path: str | Path,
    dataset_hash: str,
    base: BaseModel,
    dataset: DatasetConfig,
    *,
    store: Store | str | Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    on_progress: Progress | None = None,
) -> TokenRows:
    """The tokens of the canonical JSON Lines file ``path``, from the store or encoded into it.

    Two processes that ask for the same tokens at once encode them once. ``tokenizer``: that of ``base``,
    where it is at hand; else it is loaded when it is needed. ``on_progress(rows done, rows in all)`` is
    called while rows are encoded.

    Raises:
        DataError: DATA-027 and 028 (the file is gone, or not what was hashed), DATA-015, 016, 017 or 019 for a row that
            cannot be encoded, as ``encode_rows``; DATA-013, 019 or 020, as ``fit``.
        StoreError: CACHE-083 without a store; or it cannot be written.
    """
    if not isinstance(store, Store):
        if not str(store):
            raise StoreError(
                "no store is named, so tokens cannot be kept",
                code="CACHE-083",
                where="store",
                fix="store=outputs/store, or set ORGANON_STORE",
            )
        store = Store(Path(store))
    path = Path(path)
    key = tokens_key(dataset_hash, base, dataset.loss_on)
    entry = store.find("tokens", key)
    if entry is None:
        with store.lock("tokens", key):
            entry = store.find("tokens", key)  # another process was faster
            if entry is None:
                entry = _encode(path, dataset_hash, base, dataset, store, key, tokenizer, on_progress)
    rows = fit(TokenArrays.open(entry.path), max_length=dataset.max_length, on_too_long=dataset.on_too_long, path=path)
    _warn(rows, dataset.max_length, path)
    return rows


def tokens_key(dataset_hash: str, base: BaseModel, loss_on: str) -> str:
    """Key of a dataset's tokens: all that decides them. ``base.digest`` covers the tokenizer's files."""
    identity = {
        "format": FORMAT,
        "dataset": dataset_hash,
        "tokenizer": base.digest,
        "chat_template": base.chat_template,
        "loss_on": loss_on,
        "versions": {name: version(name) for name in ("transformers", "tokenizers", "jinja2")},
    }
    return sha256_text(canonical(identity))


def _encode(
    path: Path,
    dataset_hash: str,
    base: BaseModel,
    dataset: DatasetConfig,
    store: Store,
    key: str,
    tokenizer: PreTrainedTokenizerBase | None,
    on_progress: Progress | None,
) -> Entry:
    """Encode the file into the store. Under the key's lock."""
    total = _check_hash(path, dataset_hash)
    if tokenizer is None:
        from organon.models.load import load_tokenizer

        tokenizer = load_tokenizer(base)
    folder = store.staging("tokens", key)
    try:
        write_tokens(
            folder,
            _read(path, dataset_hash),
            tokenizer,
            loss_on=dataset.loss_on,
            total=total,
            place=lambda number: f"{path}:{number}",
            on_progress=on_progress,
        )
        return store.publish("tokens", key, folder, labels={"model": base.name, "dataset": dataset_hash[:12]})
    except BaseException:
        remove_tree(folder)  # half of it is of no use, and takes room
        raise


def _check_hash(path: Path, expected: str) -> int:
    """Compare the file with its hash, before its rows are looked at; how many lines it has."""
    digest, lines = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
                lines += block.count(b"\n")
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}", code="DATA-027", where=str(path), fix="run the same command again"
        ) from error
    _compare(path, expected, digest.hexdigest())
    return lines


def _read(path: Path, expected: str) -> Iterator[NumberedRow]:
    """The rows with their line numbers; at the end, whether these were the bytes that were hashed."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            digest.update(line)
            try:
                row = json.loads(line)
            except ValueError as error:
                for rest in file:
                    digest.update(rest)
                _compare(path, expected, digest.hexdigest())
                fix = "`organon cache clear --kind datasets`, then run the same command again"
                raise DataError(f"not JSON: {error}", code="DATA-001", where=f"{path}:{number}", fix=fix) from error
            yield number, row
    _compare(path, expected, digest.hexdigest())


def _compare(path: Path, expected: str, found: str) -> None:
    if found != expected:
        raise DataError(
            f"changed since it was stored (sha256 {expected[:12]} -> {found[:12]})",
            code="DATA-028",
            where=str(path),
            fix="`organon cache verify`, then run the same command again",
        )


def fit(arrays: TokenArrays, *, max_length: int, on_too_long: str, path: Path) -> TokenRows:
    """The documents within ``max_length`` tokens.

    ``on_too_long``: ``error``, ``truncate`` (the end is cut) or ``drop``. The two
    documents of a preference row are dropped together.

    Raises:
        DataError: DATA-020 (too long, and that is an error), DATA-019 (no token to train on, or none left
            after cutting), both for the first such row; DATA-013 (no row is left).
    """
    per_row = arrays.documents_per_row
    full = np.asarray(arrays.lengths)
    long = full > max_length
    lengths = np.minimum(full, max_length).astype(np.int32)
    keep = np.ones(len(full), dtype=np.bool_)
    if on_too_long == "drop":
        keep = ~np.repeat(long.reshape(-1, per_row).any(axis=1), per_row)
    elif on_too_long == "error" and long.any():
        raise _too_long(arrays, long, max_length, path)
    trained = arrays.trained_within(lengths)
    _check_trained(arrays, keep & (trained == 0), path)
    if not keep.any():
        raise DataError(
            f"all {len(keep) // per_row} rows are longer than {max_length} tokens: nothing to train on"
            if len(keep)
            else "0 rows: nothing to train on",
            code="DATA-013",
            where=str(path),
            fix="raise dataset.max_length, or set dataset.on_too_long=truncate",
        )
    cut = at_length(arrays, max_length, trained, keep)
    summary = TokenSummary(
        rows_read=len(full) // per_row,
        rows=int(keep.sum()) // per_row,
        documents=int(keep.sum()),
        tokens=int(lengths[keep].sum(dtype=np.int64)),
        trained_tokens=int(trained[keep].sum(dtype=np.int64)),
        longest=int(full.max(initial=0)),
        truncated_rows=cut.too_long_rows,
        cut_tokens=cut.cut_tokens,
        rows_with_lost_answers=cut.rows_with_lost_answers,
        dropped_rows=arrays.rows_of(~keep),
        rows_with_special_tokens=arrays.special.rows,
    )
    return TokenRows(arrays, np.flatnonzero(keep), lengths[keep], trained[keep], summary)


def _too_long(arrays: TokenArrays, long: NDArray[np.bool_], max_length: int, path: Path) -> DataError:
    first = int(np.argmax(long))
    count, rows = arrays.rows_of(long), len(long) // arrays.documents_per_row
    others = f"; {count:,} of {rows:,} rows are too long" if count > 1 else ""
    where = f"{path}:{arrays.lines[first]}"
    return too_long(int(arrays.lengths[first]), max_length, int(arrays.lengths.max()), where, others=others)


def _check_trained(arrays: TokenArrays, bad: NDArray[np.bool_], path: Path) -> None:
    if not bad.any():
        return
    first, needed = int(np.argmax(bad)), arrays.needed()[bad]
    count, rows = arrays.rows_of(bad), len(bad) // arrays.documents_per_row
    others = f"; so in {count:,} of {rows:,} rows" if count > 1 else ""
    where = f"{path}:{arrays.lines[first]}"
    long_enough = int(needed.max()) if needed.all() else None
    raise untrained(int(arrays.lengths[first]), long_enough, where, others=others)


def _warn(rows: TokenRows, max_length: int, path: Path) -> None:
    """Say what was left out, if anything was, and what is not read as text."""
    summary, special = rows.summary, rows.arrays.special
    if special.rows:
        logger.warning(
            "the text of {} of {} rows holds a special token of the tokenizer, which the model reads as that token: "
            "it may end a turn or forge one; the first is {!r} in {}:{}",
            special.rows,
            summary.rows_read,
            special.token,
            path,
            special.line,
        )
    if summary.dropped_rows:
        logger.warning("{} of {} rows are too long and left out ({})", summary.dropped_rows, summary.rows_read, path)
    if summary.truncated_rows:
        logger.warning(
            "{} of {} rows are longer than dataset.max_length={} and cut at the end: {} tokens less, the longest row "
            "has {} ({})",
            summary.truncated_rows,
            summary.rows_read,
            max_length,
            summary.cut_tokens,
            summary.longest,
            path,
        )
    if summary.rows_with_lost_answers:
        logger.warning("in {} rows one or more whole answers are cut away ({})", summary.rows_with_lost_answers, path)
