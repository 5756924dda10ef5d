"""``report.md``: the report as plain Markdown, for repositories, terminals and review tools."""

from __future__ import annotations

import re
from collections.abc import Sequence

from organon.report.numbers import MISSING, printable
from organon.report.samples import Output, Sample
from organon.report.summary import Content, Facts
from organon.report.table import escaped, markdown

MAX_SAMPLES = 5  # of a task
MAX_CELL = 80  # characters


def markdown_report(content: Content, *, loss_plot: str | None, before_after_plot: str | None) -> str:
    """The whole text; the plots by their paths, if there are any."""
    record = content.record
    sections = [f"# {escaped(record.name)}\n\n{escaped(content.headline)}\n"]
    if record.metrics:
        plot = _image("Base and tuned model", before_after_plot)
        sections.append(f"## Before and after\n\n{markdown(record.metrics)}{plot}")
    if content.training or loss_plot:
        sections.append(f"## Training\n\n{_list(content.training)}{_image('Loss', loss_plot)}")
    if content.tasks:
        tables = "\n".join(_samples(task, rows) for task, rows in content.tasks.items())
        sections.append(f"## Sample outputs\n\n{tables}")
    if content.log_links:
        links = "".join(f"- [{escaped(label)}]({url})\n" for label, url, _ in content.log_links)
        commands = _fenced("\n".join(content.view_commands), "sh")
        sections.append(f"## Evaluation logs\n\n{links}\nOpen them from this folder:\n\n{commands}")
    sections.append(f"## Configuration\n\n{_fenced(content.config_yaml, 'yaml')}")
    sections.append(f"## Provenance\n\n{_list(content.provenance)}")
    return "\n".join(sections)


def _image(title: str, path: str | None) -> str:
    return f"\n![{title}]({path})\n" if path else ""


def _list(facts: Facts) -> str:
    return "".join(f"- {label}: {escaped(value)}\n" for label, value in facts)


def _fenced(text: str, language: str) -> str:
    text = printable(text)
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall(r"`+", text))])
    return f"{fence}{language}\n{text.rstrip()}\n{fence}\n"


def _samples(task: str, rows: Sequence[Sample]) -> str:
    lines = [f"### {escaped(task)}\n", "| input | expected | base | tuned |", "| --- | --- | --- | --- |"]
    for row in rows[:MAX_SAMPLES]:
        cells = [_cell(row.input.text), _cell(row.target.text), _answer(row.base), _answer(row.tuned)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _answer(output: Output | None) -> str:
    if output is None:
        return MISSING
    mark = {True: "✓ ", False: "✗ ", None: ""}[output.right]
    return mark + _cell(output.text.text)


def _cell(text: str) -> str:
    return escaped(text if len(text) <= MAX_CELL else f"{text[:MAX_CELL]} …") or "*(empty)*"
