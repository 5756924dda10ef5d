"""The comparison of base and tuned model: one row per task and metric, for terminals, Markdown and scripts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from organon.report.numbers import MISSING, count, direction, interval, is_rate, number, printable, rate_decimals
from organon.report.record import Metrics, strict_json

if TYPE_CHECKING:
    from rich.console import Console

HEADERS = ("task", "metric", "base", "tuned", "difference", "samples")
CAPTION = "difference = tuned - base, with its 95% interval"
GAP = 3  # columns of a terminal between two of the table


class Row(NamedTuple):
    """One row of the table, every cell as it is shown."""

    task: str
    metric: str
    base: str
    tuned: str
    difference: str  # such as +0.93 [+0.88, +0.97]
    samples: str
    clear: bool  # the interval leaves zero out

    @property
    def cells(self) -> tuple[str, ...]:
        return self.task, self.metric, self.base, self.tuned, self.difference, self.samples


def comparison_rows(metrics: Metrics) -> list[Row]:
    """The rows of the table, in the order of ``metrics``."""
    decimals = rate_decimals(cell for task in metrics.values() for cell in task.values())
    rows = []
    for task, cells in metrics.items():
        for metric, cell in cells.items():
            places = decimals if is_rate(cell) else None
            base, tuned = (number(cell.get(name), decimals=places) for name in ("base", "tuned"))
            difference = number(cell.get("difference"), decimals=places, signed=True)
            bounds = interval(cell, decimals=places)
            samples = cell.get("samples")
            rows.append(
                Row(
                    task=_line(task),
                    metric=_line(metric),
                    base=base,
                    tuned=tuned,
                    difference=f"{difference} {bounds}".strip(),
                    samples=MISSING if samples is None else count(samples),
                    clear=direction(cell) != 0,
                )
            )
    return rows


def render(metrics: Metrics, console: Console | None = None) -> None:
    """Print the table to ``console`` (default: stdout), in two lines per row where the terminal is narrow."""
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console as RichConsole
    from rich.table import Table
    from rich.text import Text

    console = console or RichConsole()
    rows = comparison_rows(metrics)
    columns = zip(HEADERS, *(row.cells for row in rows), strict=True)
    narrow = sum(max(map(cell_len, column)) + GAP for column in columns) - GAP > console.width
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold", caption_justify="left")
    for header in HEADERS:
        if not (narrow and header == "metric"):
            text = header in ("task", "metric")
            table.add_column(header, justify="left" if text else "right", overflow="fold", no_wrap=not text)
    for row in rows:
        cells = [Text(cell, style="bold" if row.clear and i == 4 else "") for i, cell in enumerate(row.cells)]
        if narrow:
            cells[4] = Text(row.difference.replace(" [", "\n["), style=cells[4].style)
            cells[0:2] = [Text.assemble(row.task, "\n", (row.metric, "dim"))]
        table.add_row(*cells)
    if any("[" in row.difference for row in rows):
        table.caption = CAPTION
    console.print(table)


def markdown(metrics: Metrics) -> str:
    """The table in GitHub's Markdown, its last line ended."""
    lines = ["| " + " | ".join(HEADERS) + " |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    for row in comparison_rows(metrics):
        names = (escaped(row.task), escaped(row.metric))
        lines.append("| " + " | ".join([*names, *row.cells[2:]]) + " |")
    return "\n".join(lines) + "\n"


def to_json(metrics: Metrics) -> str:
    """The numbers behind the table as strict JSON, NaN as ``"NaN"``."""
    return strict_json(metrics)


def escaped(text: str) -> str:
    """``text`` for Markdown: on one line, every character meant literally."""
    line = " ".join(printable(text).split())
    return re.sub(r"([\\`*\[\]<>|~]|(?<!\w)_|_(?!\w)|&(?=[#\w]+;)|^[#+-](?=\s))", r"\\\1", line)


def _line(text: str) -> str:
    return printable(text).replace("\n", " ").replace("\t", " ")
