"""The report of a run: ``report.html``, one file that opens anywhere, and ``report.md``.

Samples, names and configuration come from models and datasets, so they are hostile until escaped: jinja2
escapes every value, control characters are made visible, and the page's policy lets nothing load or run.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from organon.redact import redact, redact_tree
from organon.report import plots
from organon.report.markdown import markdown_report
from organon.report.numbers import count, printable
from organon.report.record import RunRecord, strict_json
from organon.report.samples import Samples, cut, filters, shown
from organon.report.summary import Content, headline, provenance_facts, training_facts
from organon.report.table import comparison_rows
from organon.store.files import write_atomic

MAX_DIFF = 200_000  # characters of the git diff shown; provenance.json has all of it
PLOTS = "plots"


def write_report(
    run_folder: Path,
    record: RunRecord,
    *,
    config_yaml: str,
    metrics_rows: Sequence[Mapping[str, Any]],
    samples: Samples,
    logs: Mapping[str, str],
    provenance: Mapping[str, Any],
) -> None:
    """Write ``report.html``, ``report.md``, ``provenance.json`` and ``plots/*.png`` into the run's folder.

    Args:
        run_folder: must exist.
        record: the outcome, as in ``result.json``.
        config_yaml: the resolved configuration.
        metrics_rows: the lines of ``metrics.jsonl``.
        samples: task -> samples with ``input target base_output tuned_output base_score tuned_score``, the
            base's two absent or None where it was not evaluated.
        logs: label -> path of an ``.eval`` log, relative to ``run_folder``.
        provenance: what ``provenance.collect`` gave.

    Secrets are taken out of everything that is written. Raises StoreError where the folder cannot be written.
    """
    provenance = redact_tree(provenance)
    content = Content(
        record=record,
        headline=redact(headline(record)),
        training=training_facts(record),
        provenance=provenance_facts(record, provenance),
        config_yaml=redact(config_yaml),
        log_links=[(label, quote(path), path) for label, path in logs.items()],
        view_commands=_view_commands(list(logs.values())),
        tasks=shown(redact_tree(samples)),
    )
    figures = {"loss": f"{PLOTS}/loss.png", "before_after": f"{PLOTS}/before_after.png"}
    drawn = plots.available()
    loss_svg = plots.loss_curve(metrics_rows, run_folder / figures["loss"]) if drawn else None
    before_after_svg = plots.before_after(record.metrics, run_folder / figures["before_after"]) if drawn else None
    html = _html(
        content=content,
        record=record,
        rows=comparison_rows(record.metrics),
        loss_svg=loss_svg,
        before_after_svg=before_after_svg,
        sizes={task: len(rows) for task, rows in samples.items()},
        filters=filters(content.tasks),
        **_code(provenance),
    )
    text = markdown_report(
        content,
        loss_plot=figures["loss"] if loss_svg else None,
        before_after_plot=figures["before_after"] if before_after_svg else None,
    )
    for name, body in (("report.html", html), ("report.md", text)):
        write_atomic(run_folder / name, body.encode("utf-8", "replace"))
    write_atomic(run_folder / "provenance.json", strict_json(provenance) + "\n")


def _code(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The software behind a run, as the template takes it."""
    git = provenance.get("git") or {}
    return {
        "versions": provenance.get("versions") or {},
        "packages": provenance.get("packages") or {},
        "untracked": git.get("untracked") or [],
        "diff": cut(git.get("diff") or "", MAX_DIFF),
        "diff_truncated": bool(git.get("diff_truncated")),
    }


def _view_commands(paths: list[str]) -> list[str]:
    """The commands that open the logs, to be given in the run's folder."""
    folders = list(dict.fromkeys(str(PurePosixPath(path).parent) for path in paths))
    if len(folders) > 3:
        folders = [os.path.commonpath(folders) or "."]
    return [f"inspect view start --log-dir {shlex.quote(folder)}" for folder in folders]


def _html(**values: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("organon.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )
    environment.filters["count"] = count
    values = {name: Markup(value) if name.endswith("_svg") and value else value for name, value in values.items()}
    return environment.get_template("page.html.jinja").render(**values)
