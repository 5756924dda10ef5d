"""Looking at a chat template without running it: Python's internals, and constants that would fill the memory.

Jinja computes constants when it compiles a template, before any limit of ours could act.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from organon.errors import SecurityError

if TYPE_CHECKING:
    from jinja2 import nodes

MAX_CHARACTERS = 2**20  # of a constant; and no number beyond it may feed a computation
_GENERATION_TAG = re.compile(r"\{%[-+]?\s*(?:end)?generation\s*[-+]?%\}")
_INTERNAL = re.compile(r"(?:^|\.)__\w")
_WIDE_FORMAT = re.compile(r"[%{][^%{}]{0,20}?\d{7}")  # '%0300000000d', '{:300000000}'


class _Constant(NamedTuple):
    """An upper limit of a constant's size: a number's value, or characters and items of anything else."""

    number: bool
    size: float


def check_source(template: str) -> None:
    """Look at a template without running it; a syntax error is left to the one who renders it.

    Raises:
        SecurityError: SEC-075, it reaches for Python's internals or computes something huge.
    """
    import jinja2

    environment = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"], autoescape=False)
    try:
        tree = environment.parse(_GENERATION_TAG.sub("", template))
        _check(tree, None, {})
    except jinja2.TemplateSyntaxError:
        return
    except RecursionError as error:
        raise refused("is nested too deeply to be looked at") from error


def refused(why: str, where: str = "") -> SecurityError:
    """SEC-075 for a template that does what no chat template needs to."""
    return SecurityError(
        f"the chat template {why}; refused",
        code="SEC-075",
        where=where or "model.chat_template",
        fix="take the template from the model's own publisher, or name one that you have read: "
        "model.chat_template=path.jinja",
    )


def _check(node: nodes.Node, parent: nodes.Node | None, known: dict[int, _Constant | None]) -> None:
    for name in _names(node):
        if _INTERNAL.search(name):
            raise refused(f"uses `{name[:60]}`, a part of Python's internals")
    _check_size(node, parent, known)
    for child in node.iter_child_nodes():
        _check(child, node, known)


def _check_size(node: nodes.Node, parent: nodes.Node | None, known: dict[int, _Constant | None]) -> None:
    from jinja2 import nodes

    found = _constant(node, known)
    if found is not None and (math.isinf(found.size) or (not found.number and found.size > MAX_CHARACTERS)):
        raise refused("computes a constant of more than 1 MiB")
    if found is not None and found.number and found.size > MAX_CHARACTERS:
        around = _constant(parent, known) if parent is not None else None
        written_or_compared = isinstance(parent, (nodes.Output, nodes.Compare, nodes.Operand))
        if not written_or_compared and not (around and around.number):  # else it is looked at there
            raise refused(f"computes with a number beyond {MAX_CHARACTERS:,}")
    if isinstance(node, nodes.Const) and isinstance(node.value, str) and _WIDE_FORMAT.search(node.value):
        raise refused(f"formats a text of millions of characters ({node.value[:40]!r})")
    text = node.left if isinstance(node, nodes.Mod) else node.node if isinstance(node, nodes.Filter) else None
    formats = isinstance(node, nodes.Mod) or (isinstance(node, nodes.Filter) and node.name == "format")
    if formats and text is not None and not isinstance(text, nodes.Const):
        put_together = _constant(text, known)
        if put_together is not None and not put_together.number:
            raise refused("puts a text's format together from parts")


def _names(node: nodes.Node) -> list[str]:
    """The attribute names that a node asks for, as far as they are written out."""
    from jinja2 import nodes

    if isinstance(node, nodes.Getattr):
        return [node.attr]
    if isinstance(node, nodes.Name):
        return [node.name]
    found: list[Any] = []
    if isinstance(node, nodes.Getitem):
        found = [node.arg]
    elif isinstance(node, nodes.Filter):
        found = [*(node.args or ()), *(pair.value for pair in node.kwargs or ())]
    return [each.value for each in found if isinstance(each, nodes.Const) and isinstance(each.value, str)]


def _constant(node: nodes.Node, known: dict[int, _Constant | None]) -> _Constant | None:
    """What a constant expression amounts to at most. None: not constant, or nothing that Jinja would compute."""
    if id(node) not in known:
        known[id(node)] = _folded(node, known)
    return known[id(node)]


def _folded(node: nodes.Node, known: dict[int, _Constant | None]) -> _Constant | None:
    from jinja2 import nodes

    if isinstance(node, nodes.Const):
        return _literal(node.value)
    if isinstance(node, (nodes.Name, nodes.NSRef, nodes.Call)) or not isinstance(
        node, (nodes.Expr, nodes.Pair, nodes.Keyword, nodes.Operand)
    ):
        return None
    parts = list(_parts(node, known))
    if None in parts:
        return None
    sizes = [part.size for part in parts if part is not None]
    numbers = all(part is not None and part.number for part in parts)
    if isinstance(node, (nodes.Add, nodes.Sub, nodes.Neg, nodes.Pos, nodes.Concat)):
        return _Constant(numbers and not isinstance(node, nodes.Concat), sum(sizes))
    if isinstance(node, nodes.Mul):
        return _Constant(numbers, math.prod(sizes))
    if isinstance(node, nodes.Pow):
        return _Constant(numbers, _power(*sizes))
    if isinstance(node, (nodes.Div, nodes.FloorDiv)):
        return _Constant(numbers, sizes[0] / sizes[1]) if sizes[1] else None
    if isinstance(node, nodes.Filter) and node.name in ("int", "float") and not numbers:
        return _Constant(True, _power(10.0, sizes[0]))  # of that many digits
    if isinstance(node, (nodes.Operand, nodes.Keyword, nodes.Pair)):
        return _Constant(numbers, sum(sizes))
    if isinstance(node, (nodes.Filter, nodes.Getitem, nodes.Mod)):
        return _Constant(False, math.prod(1 + size for size in sizes))
    if isinstance(node, (nodes.Compare, nodes.Not, nodes.Test)):
        return _Constant(True, 1)
    return _Constant(False, 1 + sum(sizes))


def _parts(node: nodes.Node, known: dict[int, _Constant | None]) -> Iterator[_Constant | None]:
    for child in node.iter_child_nodes():
        yield _constant(child, known)


def _literal(value: object) -> _Constant:
    if isinstance(value, (int, float)):
        return _Constant(True, float(abs(value)) if abs(value) < 1e300 else math.inf)
    return _Constant(False, float(len(value)) if isinstance(value, str) else 1.0)


def _power(base: float, exponent: float) -> float:
    try:
        return float(base**exponent)
    except OverflowError:
        return math.inf
