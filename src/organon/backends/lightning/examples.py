"""Encoded rows in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from loguru import logger

from organon.config.schema import DatasetConfig
from organon.errors import DataError
from organon.models.chat import IGNORED, encode, fit_length

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Examples:
    """Encoded rows. ``dropped``: rows left out as too long."""

    documents_per_row = 1

    def __init__(self, rows: Sequence[tuple[np.ndarray, np.ndarray]], dropped: int, lines: Sequence[int]) -> None:
        self.rows, self.dropped, self.lines = rows, dropped, lines
        self.lengths = np.array([len(ids) for ids, _ in rows])
        self.trained = np.array([int((labels[1:] != IGNORED).sum()) for _, labels in rows])

    def ids(self, document: int) -> np.ndarray:
        return self.rows[document][0]

    def labels(self, document: int) -> np.ndarray:
        return self.rows[document][1]

    def line(self, document: int) -> int:
        return self.lines[document]


def read_examples(
    path: Path, expected_hash: str, tokenizer: PreTrainedTokenizerBase, dataset: DatasetConfig
) -> Examples:
    """Encode a canonical JSON Lines file of the store.

    Raises:
        DataError: DATA-028 (the file is not what was hashed), DATA-016, DATA-019 or DATA-020 with the
            line, DATA-013 (every row was dropped).
    """
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != expected_hash:
        raise DataError(
            f"changed since it was stored (sha256 {expected_hash[:12]} -> {found[:12]})",
            code="DATA-028",
            where=str(path),
            fix="`organon cache verify`, then run the same command again",
        )
    rows, lines, dropped = [], [], 0
    for number, line in enumerate(content.splitlines(), start=1):
        where = f"{path}:{number}"
        ids, labels = encode(tokenizer, json.loads(line)["messages"], where=where)
        fitted = fit_length(ids, labels, max_length=dataset.max_length, on_too_long=dataset.on_too_long, where=where)
        if fitted is None:
            dropped += 1
        else:
            rows.append((np.array(fitted[0], dtype=np.int32), np.array(fitted[1], dtype=np.int32)))
            lines.append(number)
    if not rows:
        raise DataError(
            f"all {dropped} rows are longer than {dataset.max_length} tokens: nothing to train on",
            code="DATA-013",
            where=str(path),
            fix="raise dataset.max_length, or set dataset.on_too_long=truncate",
        )
    if dropped:
        logger.warning("{} of {} rows are too long and left out ({})", dropped, dropped + len(rows), path)
    return Examples(rows, dropped, lines)
