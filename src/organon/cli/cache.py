"""``organon cache list | stats | verify | clear | prune``: what the store holds, and room for more."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from organon.cli.progress import configure_logging
from organon.errors import UserError
from organon.report.numbers import duration, size
from organon.store import maintenance
from organon.store.layout import SHAPES
from organon.store.rows import EntryRow
from organon.store.store import Store

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
SPANS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def main(arguments: Sequence[str]) -> int:
    """Run one action; 1 if ``verify`` found damage."""
    configure_logging()
    options = _parser().parse_args(list(arguments))
    store = Store.open(options.store)
    action: Callable[[Store, argparse.Namespace], int] = options.action
    return action(store, options)


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--store", help="folder of the store (default: ORGANON_STORE, else outputs/store)")
    common.add_argument("--json", action="store_true", help="one JSON document on stdout")
    chosen = argparse.ArgumentParser(add_help=False)
    chosen.add_argument("--kind", choices=sorted(SHAPES), help="only this kind of entry")
    chosen.add_argument("--model", help="only entries of this model or run")
    removing = argparse.ArgumentParser(add_help=False)
    removing.add_argument("--dry-run", action="store_true", help="show what would go, delete nothing")

    parser = argparse.ArgumentParser(prog="organon cache", description=__doc__)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    each = actions.add_parser("list", parents=[common, chosen], help="every entry, least recently used first")
    each.set_defaults(action=_list)
    each = actions.add_parser("stats", parents=[common], help="entries and bytes of each kind")
    each.set_defaults(action=_stats)
    each = actions.add_parser("verify", parents=[common], help="hash every file again; damaged entries are set aside")
    each.add_argument("--kind", choices=sorted(SHAPES))
    each.set_defaults(action=_verify)
    each = actions.add_parser("clear", parents=[common, chosen, removing], help="delete entries by kind and model")
    each.add_argument("--all", action="store_true", help="delete everything; needed where no kind or model is given")
    each.set_defaults(action=_clear)
    each = actions.add_parser("prune", parents=[common, removing], help="delete the least recently used entries")
    each.add_argument("--max-size", type=_bytes, metavar="SIZE", help="keep at most this much, such as 20G")
    each.add_argument("--max-age", type=_seconds, metavar="AGE", help="delete what was not used for, such as 30d")
    each.add_argument("--quarantine", action="store_true", help="delete what was set aside as damaged, too")
    each.set_defaults(action=_prune)
    return parser


def _list(store: Store, options: argparse.Namespace) -> int:
    rows = maintenance.list_entries(store, options.kind, options.model)
    if options.json:
        return _print_json([dataclasses.asdict(row) for row in rows])
    table = Table("kind", "entry", "size", "last used", "labels", box=None, header_style="bold")
    for row in rows:
        labels = " ".join(f"{k}={v}" for k, v in row.labels.items())
        age = duration(max(0.0, time.time() - row.last_used_at))
        table.add_row(row.kind, " / ".join(part[:24] for part in row.ident), size(row.bytes), f"{age} ago", labels)
    console = Console(highlight=False)
    console.print(table if rows else f"the store {store.root} is empty")
    return 0


def _stats(store: Store, options: argparse.Namespace) -> int:
    counts = maintenance.stats(store)
    if options.json:
        return _print_json({"root": str(store.root), **counts})
    table = Table("kind", "entries", "size", box=None, header_style="bold")
    for kind, count in counts.items():
        table.add_row(kind, str(count["entries"]), size(count["bytes"]))
    Console(highlight=False).print(table, f"store: {store.root}", soft_wrap=True)
    return 0


def _verify(store: Store, options: argparse.Namespace) -> int:
    found = maintenance.verify(store, options.kind)
    if options.json:
        _print_json({**dataclasses.asdict(found), "ok": found.ok})
    else:
        lines = [f"checked {found.checked} entries, {size(found.bytes)}, in {duration(found.seconds)}"]
        lines += [f"damaged, set aside: {place}" for place in found.damaged]
        lines += [f"index rebuilt: {problem}" for problem in found.index_problems]
        sys.stdout.write("\n".join([*lines, "ok" if found.ok else "run the same commands again to rebuild"]) + "\n")
    return 0 if found.ok else 1


def _clear(store: Store, options: argparse.Namespace) -> int:
    if not (options.kind or options.model or options.all):
        raise UserError("nothing chosen", fix="organon cache clear --kind evals, --model NAME, or --all")
    return _removed(maintenance.clear(store, options.kind, options.model, dry_run=options.dry_run), options)


def _prune(store: Store, options: argparse.Namespace) -> int:
    if options.max_size is None and options.max_age is None and not options.quarantine:
        raise UserError("no limit given", fix="organon cache prune --max-size 20G, --max-age 30d, or --quarantine")
    removal = maintenance.prune(
        store, options.max_size, options.max_age, quarantine=options.quarantine, dry_run=options.dry_run
    )
    return _removed(removal, options)


def _removed(removal: maintenance.Removal, options: argparse.Namespace) -> int:
    if options.json:
        return _print_json(removal.to_dict())
    did = "would remove" if options.dry_run else "removed"
    sys.stdout.write(f"{did} {len(removal.removed) + len(removal.leftovers)} entries, {size(removal.bytes)}\n")
    for row in removal.removed:
        sys.stdout.write(f"  {_place(row)}\n")
    for row in removal.in_use:
        sys.stdout.write(f"  in use, left alone: {_place(row)}\n")
    return 0


def _place(row: EntryRow) -> str:
    return f"{row.kind} {' / '.join(row.ident)}"


def _print_json(value: Any) -> int:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    return 0


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", text.strip().lower())
    if not match:
        raise argparse.ArgumentTypeError(f"'{text}' is no size; write 500M or 20G")
    return int(float(match.group(1)) * UNITS[match.group(2)])


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text.strip().lower())
    if not match:
        raise argparse.ArgumentTypeError(f"'{text}' is no span; write 12h or 30d")
    return float(match.group(1)) * SPANS[match.group(2)]
