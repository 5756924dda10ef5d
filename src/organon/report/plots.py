"""The two figures of a report, each as a PNG file and as SVG to put into a page.

matplotlib is imported on use, without pyplot: every figure is an object of its own, so nothing is left
behind in the process and no display is needed. Colours: Okabe & Ito, "Color Universal Design" (2008).
"""

from __future__ import annotations

import importlib.util
import io
import math
import re
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from loguru import logger

from organon.report.numbers import is_rate, printable
from organon.report.record import Metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PNG_DPI = 144
WIDTH = 6.0  # inches; small enough that the text stays readable when a phone shrinks the figure
MAX_POINTS = 600  # of a curve; longer ones are averaged in buckets
MAX_ROWS = 60  # of the dot plot
FONT_SIZE = 11.5
INK, MUTED, GRID = "#1f2430", "#6a7280", "#e3e6ea"
BASE, TUNED, VALIDATION, SURFACE = "#8b919c", "#0072b2", "#d55e00", "#fefefe"
# In a page these follow its light or dark theme.
_PAGE_COLOURS = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    BASE: "base",
    TUNED: "tuned",
    VALIDATION: "validation",
    SURFACE: "surface",
}
_PAGE_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
_rc_lock = threading.Lock()

Series = tuple[list[float], list[float]]  # x, y


def available() -> bool:
    """Whether matplotlib is installed; a report without it has its tables and no plots (MO-66)."""
    if importlib.util.find_spec("matplotlib") is None:
        logger.warning("no plots in the report: matplotlib is not installed; pip install matplotlib")
        return False
    return True


def loss_curve(metrics_rows: Sequence[Mapping[str, Any]], path: Path) -> str | None:
    """Training and validation loss by step, the learning rate below; the SVG text, and a PNG at ``path``.

    Rows are those of ``metrics.jsonl``: ``step`` with ``train/loss``, ``val/loss``, ``learning_rate`` (any
    prefix). None, and no file, if no row has a loss.
    """
    train = _series(metrics_rows, lambda name: name == "train/loss")
    validation = _series(metrics_rows, lambda name: name == "val/loss")
    if not train[0] and not validation[0]:
        return None
    rates = _series(metrics_rows, lambda name: re.split(r"[/_.-]", name)[-1] == "lr" or name.endswith("learning_rate"))
    figure, axes = _figure(3.3 if rates[0] else 2.8, [4, 1] if rates[0] else [1])
    upper = axes[0]
    if train[0]:
        upper.plot(*_thinned(train), color=TUNED, linewidth=1.6, label="train")
    if validation[0]:
        upper.plot(
            *_thinned(validation), color=VALIDATION, linewidth=1.2, marker="o", markersize=4.5, label="validation"
        )
    upper.set_ylabel("loss")
    upper.set_ylim(bottom=0)
    _legend(figure, upper)
    if rates[0]:
        axes[1].plot(*_thinned(rates), color=MUTED, linewidth=1.2)
        axes[1].set_ylabel("learning\nrate")
        axes[1].set_ylim(bottom=0)
        axes[1].ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        axes[1].locator_params(axis="y", nbins=2)
    axes[-1].set_xlabel("step")
    return _saved(figure, path, name="loss", title="Loss")


def before_after(metrics: Metrics, path: Path) -> str | None:
    """Base and tuned value of every task as a dot plot, with the difference's interval around the tuned one.

    Metrics in 0..1 share one axis, each other metric has its own. Returns the SVG text and writes a PNG at
    ``path``; None, and no file, if nothing was measured. The first 60 rows are drawn.
    """
    panels = _panels(metrics)
    if not panels:
        return None
    heights = [len(panel.rows) for panel in panels]
    figure, axes = _figure(0.6 + sum(0.3 * rows + 0.65 for rows in heights), heights, share=False)
    for axis, panel in zip(axes, panels, strict=True):
        _dots(axis, panel)
    _legend(figure, axes[0])
    return _saved(figure, path, name="before-after", title="Base and tuned model")


class _Panel(NamedTuple):
    """Rows that share one axis."""

    label: str
    rates: bool
    rows: list[tuple[str, Mapping[str, Any]]]  # label, cell


def _panels(metrics: Metrics) -> list[_Panel]:
    measured = [
        (task, metric, cell)
        for task, cells in metrics.items()
        for metric, cell in cells.items()
        if _finite(cell.get("base")) or _finite(cell.get("tuned"))
    ][:MAX_ROWS]
    rates = [row for row in measured if is_rate(row[2])]
    others = [row for row in measured if not is_rate(row[2])]
    groups = [rates] if rates else []
    groups += [[row for row in others if row[1] == metric] for metric in dict.fromkeys(row[1] for row in others)]
    return [_panel(group, rates=group is rates) for group in groups]


def _panel(group: list[tuple[str, str, Mapping[str, Any]]], *, rates: bool) -> _Panel:
    names = {metric for _, metric, _ in group}
    single = names.pop() if len(names) == 1 else None
    rows = [(_shortened(task if single else f"{task} · {metric}"), cell) for task, metric, cell in group]
    return _Panel(_shortened(single) if single else "score", rates, rows)


def _dots(axis: Axes, panel: _Panel) -> None:
    for y, (_, cell) in enumerate(panel.rows):
        base, tuned = cell.get("base"), cell.get("tuned")
        if _finite(base) and _finite(tuned):
            axis.plot([base, tuned], [y, y], color=BASE, linewidth=1.2, zorder=1)
        if _finite(base) and _finite(cell.get("low")) and _finite(cell.get("high")):
            ends = [base + cell["low"], base + cell["high"]]
            axis.plot(ends, [y, y], color=TUNED, alpha=0.35, linewidth=6, solid_capstyle="butt", zorder=2)
        if _finite(base):
            axis.plot([base], [y], "o", color=BASE, markerfacecolor=SURFACE, markeredgewidth=1.6, zorder=3)
        if _finite(tuned):
            axis.plot([tuned], [y], "o", color=TUNED, zorder=4)
    # What the legend shows, whether or not the first row has it.
    axis.plot([], [], "o", color=BASE, markerfacecolor=SURFACE, markeredgewidth=1.6, linestyle="none", label="base")
    axis.plot([], [], "o", color=TUNED, linestyle="none", label="tuned")
    axis.plot([], [], color=TUNED, alpha=0.35, linewidth=6, solid_capstyle="butt", label="95% interval")
    axis.set_yticks(range(len(panel.rows)), [label for label, _ in panel.rows], parse_math=False)
    axis.set_ylim(len(panel.rows) - 0.4, -0.6)
    axis.set_xlabel(panel.label, parse_math=False)
    axis.grid(visible=False, axis="y")
    if panel.rates:
        axis.set_xlim(-0.03, 1.03)


def _figure(height: float, ratios: Sequence[float], *, share: bool = True) -> tuple[Figure, list[Axes]]:
    """An empty figure of ``WIDTH`` and ``height`` inches with one axis below the other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    grid = figure.subplots(len(ratios), 1, height_ratios=list(ratios), sharex=share, squeeze=False)
    axes = list(grid[:, 0])
    for axis in axes:
        axis.set_axisbelow(True)
        axis.grid(visible=True, color=GRID, linewidth=0.8)
        axis.tick_params(labelsize=FONT_SIZE - 1, colors=MUTED, labelcolor=INK, length=0)
        axis.xaxis.label.set(color=MUTED, size=FONT_SIZE - 0.5)
        axis.yaxis.label.set(color=MUTED, size=FONT_SIZE - 0.5)
        axis.xaxis.get_offset_text().set(color=MUTED, size=FONT_SIZE - 2)
        axis.yaxis.get_offset_text().set(color=MUTED, size=FONT_SIZE - 2)
        for side, spine in axis.spines.items():
            spine.set(visible=side == "bottom", color=MUTED, linewidth=0.8)
    return figure, axes


def _legend(figure: Figure, axis: Axes) -> None:
    """What ``axis`` shows, above the figure's axes, so that long row labels leave it its room."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper left",
        alignment="left",
        ncols=3,
        frameon=False,
        fontsize=FONT_SIZE - 0.5,
        labelcolor=INK,
        handlelength=1.4,
        borderaxespad=0.2,
    )


def _saved(figure: Figure, path: Path, *, name: str, title: str) -> str:
    """Write the PNG, titled; the same figure as SVG, untitled and in the page's own colours and font."""
    import matplotlib

    path.parent.mkdir(parents=True, exist_ok=True)
    legend = figure.legends[0]
    legend.set_title(title)
    legend.get_title().set(size=FONT_SIZE + 1.5, weight="bold", color=INK)
    buffer = io.StringIO()
    with warnings.catch_warnings(), _rc_lock:
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a box is drawn; the run goes on
        figure.savefig(path, dpi=PNG_DPI, format="png", facecolor="white")
        legend.set_title("")
        # Text as text, for the page's font and for readers; the salt makes equal figures equal bytes.
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
            figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_page(buffer.getvalue(), name, title)


def _for_page(svg: str, name: str, title: str) -> str:
    svg = svg[svg.index("<svg") :]
    # HTML needs no namespaces, and the style element would reach every element of the page.
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL).replace("xlink:href", "href")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)  # two figures in one page: ids must differ
    svg = re.sub(r"'DejaVu Sans'[^;\"]*sans-serif", _PAGE_FONT, svg)
    for colour, role in _PAGE_COLOURS.items():
        svg = svg.replace(colour, f"var(--plot-{role}, {colour})")
    head, body = svg.split(">", 1)
    head = re.sub(r'\s(?:width|height|version|xmlns(?::\w+)?)="[^"]*"', "", head)
    return f'{head} class="plot" role="img" aria-label="{title}">{body}'


def _series(rows: Sequence[Mapping[str, Any]], wanted: Callable[[str], bool]) -> Series:
    """The finite values of the metric whose name is ``wanted``, by step."""
    xs: list[float] = []
    ys: list[float] = []
    for row in rows:
        value = next((value for name, value in row.items() if wanted(name)), None)
        if "step" in row and _finite(value):
            xs.append(float(row["step"]))
            ys.append(float(value))
    return xs, ys


def _thinned(series: Series) -> Series:
    xs, ys = series
    width = math.ceil(len(xs) / MAX_POINTS)
    if width <= 1:
        return series
    starts = range(0, len(xs), width)
    return [fmean(xs[i : i + width]) for i in starts], [fmean(ys[i : i + width]) for i in starts]


def _finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _shortened(text: str, limit: int = 30) -> str:
    text = printable(text).replace("\n", " ")
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
