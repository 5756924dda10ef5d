"""Data: chat rows, their checks, the file formats they come in, and the public ``Dataset``. No torch."""

from __future__ import annotations

from organon.data.balance import Balanced, balance
from organon.data.dataset import Dataset
from organon.data.formats import ReadReport, RowReader, check_minimum, read_rows
from organon.data.messages import Message, Row, canonical_line, check_row, with_system_prompt
from organon.data.rows import (
    PreferenceRow,
    TextRow,
    add_system_prompt,
    check_preference_row,
    check_text_row,
    kind_of_row,
)
from organon.data.splits import check_overlap, find_overlap, repeats_warning, split_rows

__all__ = [
    "Balanced",
    "Dataset",
    "Message",
    "PreferenceRow",
    "ReadReport",
    "Row",
    "RowReader",
    "TextRow",
    "add_system_prompt",
    "balance",
    "canonical_line",
    "check_minimum",
    "check_overlap",
    "check_preference_row",
    "check_row",
    "check_text_row",
    "find_overlap",
    "kind_of_row",
    "read_rows",
    "repeats_warning",
    "split_rows",
    "with_system_prompt",
]
