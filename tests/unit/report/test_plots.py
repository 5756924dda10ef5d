from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from organon.report import plots

PNG_HEADER = b"\x89PNG\r\n\x1a\n"


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(PNG_HEADER)
    return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])


def texts(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in ElementTree.fromstring(svg).iter("text")]


def test_the_loss_curve_shows_train_validation_and_learning_rate(
    tmp_path: Path, metrics_rows: list[dict[str, float]]
) -> None:
    svg = plots.loss_curve(metrics_rows, tmp_path / "plots" / "loss.png")
    assert svg is not None
    assert png_size(tmp_path / "plots" / "loss.png") == (864, 475)  # 6.0 x 3.3 inches at 144 dpi
    assert {"train", "validation", "loss", "step", "learning", "rate"} <= set(texts(svg))


def test_validation_points_lie_where_they_were_measured(metrics_rows: list[dict[str, float]]) -> None:
    xs, ys = plots._series(metrics_rows, lambda name: name == "val/loss")
    assert xs == [30, 60, 90, 120, 150]
    assert ys == [row["val/loss"] for row in metrics_rows if "val/loss" in row]


def test_no_loss_gives_no_plot(tmp_path: Path) -> None:
    assert plots.loss_curve([], tmp_path / "loss.png") is None
    assert plots.loss_curve([{"step": 1, "train/loss": float("nan")}], tmp_path / "loss.png") is None
    assert plots.before_after({}, tmp_path / "dots.png") is None
    assert plots.before_after({"t": {"m": {"tuned": float("nan")}}}, tmp_path / "dots.png") is None
    assert not list(tmp_path.iterdir())


def test_a_long_curve_is_averaged_not_cut() -> None:
    xs, ys = plots._thinned(([float(i) for i in range(100_000)], [1.0, 3.0] * 50_000))
    assert len(xs) <= plots.MAX_POINTS
    assert xs[0] < 200
    assert xs[-1] > 99_800
    assert max(abs(y - 2) for y in ys) < 0.01


@pytest.mark.parametrize("count", [1, 6, 30])
def test_the_dot_plot_names_every_task(tmp_path: Path, count: int) -> None:
    metrics = {
        f"task {i}": {"accuracy": {"base": 0.1, "tuned": 0.5, "difference": 0.4, "low": 0.3, "high": 0.5}}
        for i in range(count)
    }
    svg = plots.before_after(metrics, tmp_path / "dots.png")
    assert svg is not None
    assert {*metrics, "accuracy", "base", "tuned", "95% interval"} <= set(texts(svg))
    width, height = png_size(tmp_path / "dots.png")
    assert width == 864
    assert 200 < height < 1800


def test_each_metric_outside_0_to_1_has_its_own_axis(metrics: dict[str, Any]) -> None:
    panels = plots._panels(metrics)
    assert [(panel.label, panel.rates, [label for label, _ in panel.rows]) for panel in panels] == [
        ("accuracy", True, ["capitalize_5", "capitalize_8", "only_tuned"]),
        ("mean", False, ["perplexity"]),
    ]


def test_rows_name_the_metric_where_an_axis_has_several() -> None:
    panels = plots._panels({"t": {"accuracy": {"tuned": 0.5}, "f1": {"tuned": 0.4}}})
    assert [(panel.label, [label for label, _ in panel.rows]) for panel in panels] == [
        ("score", ["t · accuracy", "t · f1"])
    ]


def test_the_svg_fits_into_a_page(
    tmp_path: Path, metrics: dict[str, Any], metrics_rows: list[dict[str, float]]
) -> None:
    """No address, no style for other elements, ids apart, the page's colours, and hostile names as text."""
    hostile = '--></text><script> $\\x^2$ "'
    metrics = {hostile: metrics["capitalize_5"], "日本語": metrics["capitalize_8"]}
    dots = plots.before_after(metrics, tmp_path / "dots.png")
    curve = plots.loss_curve(metrics_rows, tmp_path / "loss.png")
    assert dots is not None
    assert curve is not None
    for svg in (dots, curve):
        assert "http" not in svg
        assert "<style" not in svg
        assert "<script" not in svg
        assert "var(--plot-tuned, #0072b2)" in svg
    assert hostile in texts(dots)
    assert "日本語" in texts(dots)
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (dots, curve)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for svg, known in zip((dots, curve), ids, strict=True):
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', svg)) <= known


def test_equal_numbers_give_equal_bytes(tmp_path: Path, metrics: dict[str, Any]) -> None:
    first = plots.before_after(metrics, tmp_path / "a.png")
    assert plots.before_after(metrics, tmp_path / "b.png") == first
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_plotting_leaves_no_trace_in_the_process(tmp_path: Path) -> None:
    """No pyplot, no display, no changed settings."""
    code = """
import sys
from pathlib import Path
import matplotlib
def settings():  # but for the backend, which asking for sets
    return {name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != "backend"}
before = settings()
from organon.report import plots
plots.loss_curve([{"step": 1, "train/loss": 2.0}, {"step": 2, "train/loss": 1.0}], Path(sys.argv[1]))
assert settings() == before
assert "matplotlib.pyplot" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path / "p.png")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
