"""``organon evaluate``: run a suite on a run of ours, a base model, or any model that Inspect knows."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from organon.cli.hydra_verb import Invocation, run_verb
from organon.cli.interrupts import run_async
from organon.cli.progress import ProgressDisplay, configure_logging
from organon.config.schema import EvaluateConfig
from organon.pipeline.evaluate import Scored, evaluate
from organon.report.numbers import number


def main(arguments: Sequence[str]) -> int:
    """Run the verb; returns the exit code."""
    configure_logging()
    return run_verb("evaluate", arguments, one_point)


def one_point(config: EvaluateConfig, invocation: Invocation) -> None:
    """Evaluate one model on one suite, or take the scores from the store."""
    with ProgressDisplay() as display:
        scored = run_async(evaluate(config, on_event=display))
    if invocation.json_output:
        sys.stdout.write(json.dumps(scored.results.to_dict()) + "\n")
        return
    console = Console(highlight=False)
    console.print(_table(scored))
    source = "from the store" if scored.cached else "evaluated now"
    console.print(f"{scored.results.model_id}  ({source})", markup=False, soft_wrap=True)
    for task, log in scored.logs.items():
        console.print(f"{task:<16} {log}", markup=False, soft_wrap=True)


def _table(scored: Scored) -> Table:
    table = Table("task", "metric", "value", "samples", box=None, header_style="bold")
    for task, result in scored.results.results.items():
        failed = f" ({result['samples_failed']} failed)" if result["samples_failed"] else ""
        for metric, value in result["metrics"].items():
            table.add_row(task, metric, number(value), f"{result['samples_scored']}{failed}")
    return table
