"""JSON as RFC 8259 means it: what Python's parser lets through in silence is an error here.

Python's ``json`` accepts NaN and Infinity, turns 1e400 into infinity, keeps the last of two equal keys and
fails with RecursionError or a bare ValueError on deep nesting and long integers.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from organon.data.messages import quote

MAX_DEPTH = 64
MAX_DIGITS = 1000


class JsonFlaw(ValueError):
    """What is wrong with a JSON text: the DATA code, the place in it, the cause and the fix."""

    def __init__(self, code: str, cause: str, fix: str, *, field: str = "", line: int = 0, column: int = 0) -> None:
        super().__init__(cause)
        self.code, self.cause, self.fix = code, cause, fix
        self.field = field  # path of the value, such as `messages[0].score`
        self.line, self.column = line, column  # from 1; 0 where a field says it


@dataclass(frozen=True)
class _Mark:
    """Stands for a flawed value while its path is looked up."""

    flaw: JsonFlaw


def parse(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        JsonFlaw: DATA-001 (syntax, cut), 002 (second value), 004 (not finite), 005 (duplicate key),
            009 (raw control character), 010 (nesting), 011 (long number).
    """
    try:
        value = _STRICT.decode(text)
    except JsonFlaw as flaw:
        raise _located(text, flaw) from None
    except json.JSONDecodeError as error:
        raise _syntax(text, error) from None
    except RecursionError:
        raise _too_deep() from None
    # Every level costs one bracket: few brackets cannot nest deep, so most texts skip the walk.
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise _too_deep()
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _duplicate(pairs)
    return found


def _duplicate(pairs: list[tuple[str, Any]]) -> JsonFlaw:
    counts = Counter(key for key, _ in pairs)
    name = next(key for key, count in counts.items() if count > 1)
    return JsonFlaw("DATA-005", f"key {quote(name)} twice in one object", "keep one of the two")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _too_long(digits)
    return int(digits)


def _float(digits: str) -> float:
    if len(digits) > MAX_DIGITS:
        raise _too_long(digits)
    value = float(digits)
    if math.isinf(value):
        raise _not_finite(digits)
    return value


def _constant(name: str) -> NoReturn:
    raise _not_finite(name)


def _not_finite(name: str) -> JsonFlaw:
    return JsonFlaw("DATA-004", f"{quote(name, 30)} is not a finite number", "write a number or null")


def _too_long(digits: str) -> JsonFlaw:
    cause = f"number too long: {len(digits):,} characters, limit {MAX_DIGITS:,}"
    return JsonFlaw("DATA-011", cause, "write it as a string")


def _too_deep() -> JsonFlaw:
    return JsonFlaw("DATA-010", f"nesting > {MAX_DEPTH}", f"flatten the value to at most {MAX_DEPTH} levels")


def _marked(hook: Any) -> Any:
    def mark(argument: Any) -> Any:
        try:
            return hook(argument)
        except JsonFlaw as flaw:
            return _Mark(flaw)

    return mark


_STRICT = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant)
_MARKING = json.JSONDecoder(
    object_pairs_hook=_marked(_object),
    parse_int=_marked(_integer),
    parse_float=_marked(_float),
    parse_constant=_marked(_constant),
)


def _located(text: str, flaw: JsonFlaw) -> JsonFlaw:
    """The flaw with the path of its value, found by a second and slower parse."""
    try:
        tree = _MARKING.decode(text)
    except json.JSONDecodeError as error:
        return _syntax(text, error)
    except RecursionError:
        return _too_deep()
    for path, value in _walk(tree):
        if isinstance(value, _Mark):
            return JsonFlaw(value.flaw.code, value.flaw.cause, value.flaw.fix, field=path)
    return flaw


def _walk(tree: Any) -> Iterator[tuple[str, Any]]:
    stack = [("", tree)]
    while stack:
        path, value = stack.pop()
        yield path, value
        if isinstance(value, dict):
            names = [quote(key, 30).strip("`") for key in value]
            children = [(f"{path}.{name}".lstrip("."), item) for name, item in zip(names, value.values(), strict=True)]
            stack.extend(reversed(children))
        elif isinstance(value, list):
            stack.extend(reversed([(f"{path}[{index}]", item) for index, item in enumerate(value)]))


def _depth(value: Any) -> int:
    """Containers around the innermost value; the count stops just above the limit."""
    depth, level = 0, [value]
    while depth <= MAX_DEPTH and (level := [node for node in level if isinstance(node, (dict, list))]):
        level = [item for node in level for item in (node.values() if isinstance(node, dict) else node)]
        depth += 1
    return depth


def _syntax(text: str, error: json.JSONDecodeError) -> JsonFlaw:
    line, column = error.lineno, error.colno
    rest = text[error.pos : error.pos + 12]
    if error.msg.startswith("Extra data"):
        return JsonFlaw("DATA-002", "second JSON value", "write one object per line", line=line, column=column)
    if error.msg.startswith("Invalid control character"):
        cause = f"control character U+{ord(rest[0]):04X} inside a string"
        return JsonFlaw("DATA-009", cause, "escape it (\\t, \\n), or remove it", line=line, column=column)
    end = len(text.rstrip())
    if error.pos >= end or error.msg.startswith("Unterminated string") or _is_cut(rest, text):
        line, column = text.count("\n", 0, end) + 1, end - text.rfind("\n", 0, end)
        return JsonFlaw("DATA-001", "JSON ends early", "", line=line, column=column)
    fix = 'write the rows with json.dumps, which quotes with "' if rest[:1] == "'" else "correct the JSON here"
    cause = f"invalid JSON: {error.msg[0].lower()}{error.msg[1:]}, found {quote(rest.strip())}"
    return JsonFlaw("DATA-001", cause, fix, line=line, column=column)


def _is_cut(rest: str, text: str) -> bool:
    # A literal or an escape that the end of the text cuts through: `tru`, `-`, `\u12`.
    tail = rest.strip()
    if not text.rstrip().endswith(tail):
        return False
    return any(word.startswith(tail) for word in ("true", "false", "null", "NaN", "Infinity", "-Infinity")) or (
        len(tail) < 6 and tail.startswith(("u", "\\"))
    )
