"""Data: chat rows, their checks, the file formats they come in, and the public ``Dataset``. No torch."""

from __future__ import annotations

from organon.data.dataset import Dataset
from organon.data.formats import ReadReport, RowReader, check_minimum, read_rows
from organon.data.messages import Message, Row, canonical_line, check_row, with_system_prompt
from organon.data.splits import check_overlap, find_overlap, repeats_warning, split_rows

__all__ = [
    "Dataset",
    "Message",
    "ReadReport",
    "Row",
    "RowReader",
    "canonical_line",
    "check_minimum",
    "check_overlap",
    "check_row",
    "find_overlap",
    "read_rows",
    "repeats_warning",
    "split_rows",
    "with_system_prompt",
]
