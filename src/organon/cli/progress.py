"""Shows what the pipeline does: one live line on a terminal, plain lines in a log. Goes to stderr."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from organon.errors import ConfigError, nearest

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class ProgressDisplay:
    """Call it with the pipeline's events: ``display("train", step=3, total_steps=100, ...)``."""

    def __init__(self, console: Console | None = None, log_every_seconds: float = 10.0) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self.live = self.console.is_terminal and "NO_COLOR" not in os.environ
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[detail]}"),
            console=self.console,
            transient=True,
        )
        self.tasks: dict[str, Any] = {}
        self.log_every_seconds = log_every_seconds
        self._last_line: dict[str, tuple[float, str]] = {}

    def __enter__(self) -> Self:
        if self.live:
            self.progress.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self.live:
            self.progress.stop()

    def __call__(self, kind: str, **data: Any) -> None:
        """Show one event: ``note`` prints its text, the others move a bar named by ``label``."""
        if kind == "note":
            self.console.print(data["text"], markup=False, soft_wrap=True)
            return
        label = str(data.get("label", kind))
        detail = _detail(data)
        if self.live:
            self._bar(label, data, detail)
        else:
            self._line(label, data, detail)

    def _bar(self, label: str, data: dict[str, Any], detail: str) -> None:
        if label not in self.tasks:
            for other in self.tasks.values():
                self.progress.update(other, visible=False)
            self.tasks[label] = self.progress.add_task(label, total=None, detail="")
        self.progress.update(self.tasks[label], completed=data.get("done", 0), total=data.get("total"), detail=detail)

    def _line(self, label: str, data: dict[str, Any], detail: str) -> None:
        """One line when a phase begins or ends, and one every ``log_every_seconds`` between."""
        done, total = data.get("done", 0), data.get("total")
        last_time, last_phase = self._last_line.get(label, (0.0, ""))
        phase = str(data.get("phase", ""))
        if phase == last_phase and time.monotonic() - last_time < self.log_every_seconds:
            return
        self._last_line[label] = (time.monotonic(), phase)
        count = f" {done}/{total}" if total else ""
        self.console.print(f"{label}{count}{'  ' + detail if detail else ''}", markup=False, soft_wrap=True)


def _detail(data: dict[str, Any]) -> str:
    parts = [str(data[name]) for name in ("phase", "detail") if data.get(name)]
    metrics = data.get("metrics") or {}
    for name, short in (("train/loss", "loss"), ("val/loss", "val")):
        if isinstance(metrics.get(name), float):
            parts.append(f"{short} {metrics[name]:.3f}")
    if data.get("tokens_per_second"):
        parts.append(f"{data['tokens_per_second']:,.0f} tok/s")
    return "  ".join(parts)


def configure_logging() -> None:
    """Log lines on stderr: INFO, or ORGANON_LOG's level; JSON lines with ORGANON_LOG_JSON=1.

    The lines for people leave out the lookups of single evaluations; DEBUG and JSON have them all.
    """
    from loguru import logger

    from organon.redact import redact

    def patch(record: Any) -> None:
        record["message"] = redact(record["message"])

    def for_people(record: Any) -> bool:
        return level == "DEBUG" or record["extra"].get("level") != "eval"

    level = os.environ.get("ORGANON_LOG", "INFO").upper()
    if level not in LEVELS:
        raise ConfigError(
            f"'{level}' is no log level.{nearest(level, LEVELS)} Allowed: {', '.join(LEVELS)}", where="ORGANON_LOG"
        )
    logger.remove()
    logger.configure(patcher=patch)
    if os.environ.get("ORGANON_LOG_JSON") == "1":
        logger.add(sys.stderr, level=level, serialize=True)
    else:
        line = "{time:HH:mm:ss} {level: <7} {message}"
        logger.add(sys.stderr, level=level, format=line, colorize=False, filter=for_people)
