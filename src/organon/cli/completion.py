"""Tab completion: Hydra's, behind our verbs. ``eval "$(organon -sc install=bash)"`` (zsh, fish alike)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from organon.config.compose import VERB_SCHEMAS

ACTIONS = {"data": ("show", "stats"), "cache": ("list", "stats", "verify", "clear", "prune")}


def main(arguments: Sequence[str], verbs: Sequence[str]) -> int:
    """Answer ``-sc install=SHELL``, ``uninstall=SHELL`` or ``query=SHELL`` (with COMP_LINE and COMP_POINT)."""
    if not any(a.startswith("query=") for a in arguments):
        return _hydra("run", arguments)
    line = os.environ.get("COMP_LINE", "")
    words = line[: int(os.environ.get("COMP_POINT", len(line)))].split(" ")
    typed = [w for w in words[1:] if w]
    verb = typed[0] if typed else ""
    complete = verb in verbs and (len(typed) > 1 or words[-1] == "")
    if not complete:
        sys.stdout.write(" ".join(v for v in verbs if v.startswith(verb)) + "\n")
        return 0
    if verb not in VERB_SCHEMAS:
        sys.stdout.write(" ".join(ACTIONS.get(verb, ())) + "\n")
        return 0
    rest = " ".join([words[0], *typed[1:], *([""] if words[-1] == "" else [])])
    os.environ.update(COMP_LINE=rest, COMP_POINT=str(len(rest)))
    return _hydra(verb, arguments)


def _hydra(verb: str, arguments: Sequence[str]) -> int:
    from organon.cli.hydra_verb import run_verb

    return run_verb(verb, arguments, lambda *_: None, program="organon")
