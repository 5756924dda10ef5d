"""``organon doctor``: what this machine can do for a training, tried out, and what would help where it cannot."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from organon.cli.progress import configure_logging
from organon.pipeline.checkup import Finding, examine

STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def main(arguments: Sequence[str]) -> int:
    """Run the verb; 1 if something that a training needs does not work."""
    configure_logging()
    options = _parser().parse_args(list(arguments))
    output_dir = Path(options.output_dir).expanduser().absolute()
    store = Path(options.store or os.environ.get("ORGANON_STORE") or output_dir / "store").expanduser().absolute()
    findings = examine(store, output_dir, fast=options.fast)
    if options.json:
        found = list(findings)
        problems = sum(finding.state == "problem" for finding in found)
        document = {"ok": problems == 0, "findings": [dataclasses.asdict(finding) for finding in found]}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        problems = _show(findings)
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="organon doctor", description=__doc__)
    parser.add_argument("--fast", action="store_true", help="leave torch out: no kernels are tried, done in a second")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--store", help="folder of the store (default: ORGANON_STORE, else <output-dir>/store)")
    parser.add_argument("--output-dir", default="outputs", help="where run folders go (default: outputs)")
    return parser


def _show(findings: Iterator[Finding]) -> int:
    """Each finding as soon as it is made; how many are problems."""
    console, problems, warnings = Console(highlight=False), 0, 0
    with Console(stderr=True).status("looking; torch takes some seconds ..."):
        for finding in findings:
            problems += finding.state == "problem"
            warnings += finding.state == "warning"
            line = Text.assemble((f"{finding.state:<8}", STYLES[finding.state]), f"{finding.topic:<12} {finding.text}")
            console.print(line, soft_wrap=True)
            if finding.fix:
                console.print(Text(f"{'':<20} fix: {finding.fix}"), soft_wrap=True)
    if problems or warnings:
        console.print(f"{problems} problems, {warnings} warnings")
    else:
        console.print("all is well: `organon run experiment=capitalization` trains a first model")
    return problems
