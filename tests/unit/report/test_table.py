from __future__ import annotations

import io
import json
import math
from typing import Any

import pytest
from rich.console import Console

from organon.report import table
from organon.report.numbers import duration, number, printable, rate_decimals, size


def shown(metrics: dict[str, Any], width: int = 100, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=width, **options)
    table.render(metrics, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_known_metrics_give_exact_cells(metrics: dict[str, Any]) -> None:
    assert [row.cells for row in table.comparison_rows(metrics)] == [
        ("capitalize_5", "accuracy", "0.03", "0.96", "+0.93 [+0.88, +0.97]", "200"),
        ("capitalize_8", "accuracy", "0.00", "0.07", "+0.07 [-0.02, +0.12]", "1,500"),
        ("perplexity", "mean", "1,234", "12.2", "-1,222 [-1,300, -1,100]", "50"),
        ("only_tuned", "accuracy", "-", "0.50", "-", "10"),
        ("nothing_scored", "accuracy", "n/a", "n/a", "n/a", "0"),
    ]
    assert [row.clear for row in table.comparison_rows(metrics)] == [True, False, True, False, False]


@pytest.mark.parametrize("end", [0.998, 0.003])
def test_a_rate_never_rounds_to_a_false_end(end: float) -> None:
    metrics = {
        "t": {"m": {"base": 0.5, "tuned": end, "difference": end - 0.5}},
        "u": {"m": {"base": 0.0, "tuned": 1.0}},
    }
    rows = table.comparison_rows(metrics)
    assert rows[0].tuned == f"{end:.3f}"
    assert (rows[1].base, rows[1].tuned) == ("0.000", "1.000")
    assert rate_decimals([{"base": 0.0, "tuned": 1.0}]) == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (math.nan, "n/a"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (0, "0"),
        (0.0532, "0.0532"),
        (0.00012345, "1.23e-04"),
        (1.5, "1.50"),
        (99.96, "100"),
        (123456.7, "123,457"),
        (-2.0, "-2.00"),
        (7e12, "7.00e+12"),
    ],
)
def test_numbers_have_three_significant_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_zero_has_no_minus() -> None:
    assert number(-0.001, decimals=2, signed=True) == "+0.00"
    assert number(-0.01, decimals=2, signed=True) == "-0.01"


def test_a_wide_table_has_one_line_for_a_row(metrics: dict[str, Any]) -> None:
    lines = shown(metrics).splitlines()
    assert lines[0].split() == ["task", "metric", "base", "tuned", "difference", "samples"]
    assert lines[2].split() == ["capitalize_5", "accuracy", "0.03", "0.96", "+0.93", "[+0.88,", "+0.97]", "200"]
    ends = [line.rstrip().__len__() for line in (lines[0], *lines[2:7])]
    assert len(set(ends)) == 1  # aligned at the right


def test_a_narrow_table_keeps_every_value_whole(metrics: dict[str, Any]) -> None:
    text = shown(metrics, width=60)
    assert max(map(len, text.splitlines())) <= 60
    for value in ("capitalize_5", "accuracy", "0.03", "0.96", "+0.93", "[+0.88, +0.97]", "[-1,300, -1,100]", "1,500"):
        assert value in text
    lines = text.splitlines()
    row = next(i for i, line in enumerate(lines) if line.startswith("capitalize_5"))
    assert lines[row + 1].split() == ["accuracy", "[+0.88,", "+0.97]"]


def test_no_escape_codes_without_a_terminal_and_no_colour_anywhere(metrics: dict[str, Any]) -> None:
    assert "\x1b" not in shown(metrics)
    styled = shown(metrics, force_terminal=True, color_system="truecolor", no_color=True)
    assert "\x1b[1m" in styled  # bold is no colour
    assert "\x1b[3" not in styled.replace("\x1b[3m", "")  # 30..39 are


def test_bold_marks_an_interval_without_zero(metrics: dict[str, Any]) -> None:
    styled = shown(metrics, force_terminal=True, color_system="standard").splitlines()
    five, eight = (next(line for line in styled if name in line) for name in ("capitalize_5", "capitalize_8"))
    assert "\x1b[1m" in five
    assert "\x1b[1m" not in eight


def test_names_cannot_steer_the_terminal_or_the_markup() -> None:
    metrics = {"[red]evil[/red]\x1b[2J\u202e": {"a\nb": {"tuned": 1.0}}}
    text = shown(metrics, width=120)
    assert "[red]evil[/red]␛[2J�" in text
    assert "a b" in text
    assert "\x1b" not in text


def test_markdown(metrics: dict[str, Any]) -> None:
    text = table.markdown({"a|b <i> *x*": {"m": {"tuned": 0.5}}, "capitalize_5": metrics["capitalize_5"]})
    assert text.splitlines() == [
        "| task | metric | base | tuned | difference | samples |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        r"| a\|b \<i\> \*x\* | m | - | 0.50 | - | - |",
        "| capitalize_5 | accuracy | 0.03 | 0.96 | +0.93 [+0.88, +0.97] | 200 |",
    ]


def test_json_holds_the_numbers_themselves(metrics: dict[str, Any]) -> None:
    data = json.loads(table.to_json(metrics))
    assert data["capitalize_5"]["accuracy"]["tuned"] == 0.96
    assert data["nothing_scored"]["accuracy"]["tuned"] == "NaN"
    assert data["only_tuned"]["accuracy"]["base"] is None


def test_durations_sizes_and_hostile_characters() -> None:
    assert [duration(s) for s in (0.42, 5.04, 59.96, 192, 7500)] == [
        "0.42 s",
        "5.0 s",
        "1 min 0 s",
        "3 min 12 s",
        "2 h 5 min",
    ]
    assert [size(n) for n in (12, 2048, 812 * 2**20, 3 * 2**30)] == ["12 bytes", "2 KiB", "812 MiB", "3.0 GiB"]
    assert printable("a\r\nb\tc\x00\x1b\x9b\ud800é\u202eE") == "a\nb\tc␀␛��é�E"
