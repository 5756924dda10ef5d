"""``organon model check PATH``: what a folder of weights is, whether it is sound, and whether it was trained."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from organon.cli.progress import configure_logging
from organon.config.devices import default_device
from organon.errors import UserError
from organon.evals.target import PROVIDER, resolve_target
from organon.models.checkpoint import Found, look_at, named_base
from organon.models.folder import model_folder, public_name
from organon.models.inspection import LOGIT_THRESHOLD, PERPLEXITY_THRESHOLD, Report, inspect
from organon.report.numbers import number, size
from organon.store.store import Store


def main(arguments: Sequence[str]) -> int:
    """Run one action; ``check --expect`` fails with 1 if the verdict is another one."""
    configure_logging()
    options = _parser().parse_args(list(arguments))
    action: Callable[[argparse.Namespace], int] = options.action
    return action(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="organon model", description=__doc__)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    check = actions.add_parser("check", help="is it sound, which base does it need, does it differ from it?")
    check.set_defaults(action=_check)
    check.add_argument("path", help="folder of a model, an adapter, an epoch or a run; name or key of a run; preset")
    check.add_argument("--base", help="preset or folder to compare with, where the files do not tell")
    check.add_argument("--data", type=Path, metavar="FILE", help="texts to compare on: .txt, or rows as for a training")
    check.add_argument("--prompts", type=_positive, default=8, metavar="N", help="at most so many texts (default 8)")
    check.add_argument(
        "--perplexity-threshold", type=_threshold, default=PERPLEXITY_THRESHOLD, metavar="X",
        help=f"the same below this difference of perplexities (default {PERPLEXITY_THRESHOLD})",
    )  # fmt: skip
    check.add_argument(
        "--logit-threshold", type=_threshold, default=LOGIT_THRESHOLD, metavar="Y",
        help=f"and below this mean squared difference of logits (default {LOGIT_THRESHOLD})",
    )  # fmt: skip
    check.add_argument("--expect", choices=("same", "different"), help="exit with 1 if it is otherwise, or unknown")
    check.add_argument("--no-compare", action="store_true", help="check the files, load no model")
    check.add_argument("--device", choices=("cpu", "cuda"), help="cpu or cuda (default: the GPU, if there is one)")
    check.add_argument("--store", help="folder of the store (default: ORGANON_STORE, else outputs/store)")
    check.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser


def _check(options: argparse.Namespace) -> int:
    if options.device == "cuda" and default_device() != "cuda":
        raise UserError(
            "needs a CUDA GPU, and a torch built for it; this machine has not both",
            code="CFG-060",
            where="--device",
            fix="--device cpu, or leave --device out",
        )
    found = _find(options.path, options.store)
    if options.base is not None:
        base = named_base(options.base)
        found = dataclasses.replace(found, base=base, base_name=found.base_name or public_name(base))
    report = inspect(
        found,
        perplexity_threshold=options.perplexity_threshold,
        logit_threshold=options.logit_threshold,
        compared=not options.no_compare,
        data=options.data,
        prompts=options.prompts,
        device=options.device,
    )
    if options.json:
        sys.stdout.write(json.dumps(report.to_dict(), indent=2) + "\n")
    else:
        sys.stdout.write(_text(report, options.perplexity_threshold, options.logit_threshold))
    if options.expect in (None, report.verdict):
        return 0
    found_out = f"found: {report.verdict or 'nothing to compare with'}"
    why = "--no-compare leaves it open" if options.no_compare else found_out
    sys.stderr.write(f"expected: {options.expect}; {why}\n")
    return 1


def _find(path: str, store: str | None) -> Found:
    """By folder, else by name: a run in the store, or a preset."""
    folder = Path(path).expanduser()
    if folder.exists() or path.startswith((".", "/", "~")):
        return look_at(folder)
    target = resolve_target(path.removeprefix(f"{PROVIDER}/"), Store.open(store))
    if target.adapter is not None:
        return dataclasses.replace(look_at(Path(target.adapter)), base=target.base)
    place = model_folder(target.base)
    if place is None:
        raise UserError(
            "is not on this machine",
            code="CFG-064",
            where=public_name(target.base),
            fix=f"hf download {target.base.hub_id} --revision {target.base.revision}",
        )
    return look_at(place)


def _text(report: Report, perplexity_threshold: float, logit_threshold: float) -> str:
    weights, compared = report.weights, report.comparison
    rank = f", rank {', '.join(map(str, weights.ranks))}" if weights.ranks else ""
    lines = [
        (report.kind, report.folder),
        ("weights", f"{weights.tensors} tensors, {weights.values:,} values, {size(weights.bytes)}, all finite{rank}"),
    ]
    if report.base is not None or report.kind == "adapter":
        here = "on this machine" if report.base_is_here else f"not on this machine: {report.how_to_get_the_base}"
        lines.append(("base", f"{report.base or 'not named'} ({here})"))
    if report.note:
        lines.append(("note", report.note))
    if compared is not None:
        lines += [
            ("texts", f"{compared.texts} texts, {compared.tokens} tokens predicted"),
            ("perplexity", f"base {number(compared.base_perplexity)}, this {number(compared.perplexity)}"),
            ("logits", f"mean squared difference {compared.logit_mse:.6f}"),
            ("verdict", f"{report.verdict} (same: below {perplexity_threshold:g} and {logit_threshold:g})"),
        ]
        if report.verdict == "same" and compared.logit_mse > 0:
            lines.append(("note", "the logits do differ a little: --data FILE compares on texts of your own"))
    return "".join(f"{name:<11} {text}\n" for name, text in lines)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no count; write 8")
    return int(text)


def _threshold(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is no threshold; write a number of 0 or more")
    return value
