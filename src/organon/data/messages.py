"""One training example as chat messages: its types, its checks and its canonical line.

Canonical row: ``{"messages": [{"role": ..., "content": ...[, "weight": 0 | 1]}, ...]}``, keys in this
order, nothing else. Other top-level keys of a file (``metadata``, ``id`` ...) are left out, so that equal
messages hash equally whatever travelled beside them; ``formats.py`` counts them.

Canonical line: ``json.dumps(row) + "\\n"`` with default separators and ASCII escapes. A dataset's hash is
the SHA-256 of its canonical lines (the rule of MOTools, whose golden value a test reproduces).
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict, cast

from organon.errors import DataError

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")


class Message(TypedDict):
    """One turn. ``weight`` 0 keeps an assistant turn out of the loss."""

    role: str
    content: str
    weight: NotRequired[int]


class Row(TypedDict):
    """One training example."""

    messages: list[Message]


# C0 controls other than tab, newline and carriage return; DEL; surrogates, which UTF-8 cannot hold.
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
# What other tools call our roles.
_ALIASES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "ai": "assistant"}
_AFTER: dict[str, tuple[str, ...]] = {
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}
_MESSAGE_KEYS = {"role", "content", "weight"}
# Top-level keys that change what the model would see; leaving them out in silence would train on other text.
_REFUSED_KEYS = ("tools", "functions", "documents")
_JSON_TYPES = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "an integer"}


def canonical_line(row: Mapping[str, Any]) -> str:
    """The row's line in a canonical JSON Lines file, newline included."""
    return json.dumps(row) + "\n"


def check_row(row: object, where: str) -> Row:
    """The row in canonical form, a fresh copy.

    ``where`` names the row in errors, such as ``train.jsonl:3``. Roles: an optional ``system`` first, then
    ``user``, then turn by turn: ``assistant`` answers ``user`` or ``tool``, ``tool`` follows ``assistant``
    or another ``tool``; the last message is the assistant's.

    Raises:
        DataError: DATA-003 and DATA-015 (shape of the row), DATA-016 (roles), DATA-017 (nothing to learn),
            DATA-018 (type of a field), DATA-008 and DATA-009 (characters).
    """
    checked = check_turns(_message_list(row, where), where)
    check_ends_with_assistant(checked, where)
    if not any(message.get("weight", 1) for message in checked if message["role"] == "assistant"):
        raise DataError(
            "every assistant message has weight 0: nothing to learn",
            code="DATA-017",
            where=f"{where} field messages",
            fix="give one assistant message weight 1, or remove the row",
        )
    return {"messages": checked}


def check_object(row: object, where: str, expected: str) -> dict[str, Any]:
    """``row`` if it is an object without keys that would change what the model sees.

    Raises:
        DataError: DATA-003 (a list) or DATA-015 (another value), DATA-018 (``tools`` and the like).
    """
    if not isinstance(row, dict):
        raise DataError(
            f"the row is {kind_of(row)}, expected {expected}",
            code="DATA-003" if isinstance(row, list) else "DATA-015",
            where=where,
            fix="write one object per line",
        )
    for key in _REFUSED_KEYS:
        if row.get(key):
            raise DataError(
                f"`{key}` is not supported",
                code="DATA-018",
                where=f"{where} field {key}",
                fix=f"write it into the system message as text, and remove `{key}`",
            )
    return row


def check_list(messages: object, where: str, field: str) -> list[Any]:
    """``messages`` if it is a list that is not empty. Raises DataError, DATA-015."""
    if not isinstance(messages, list) or not messages:
        cause = "is an empty list" if messages == [] else f"is {kind_of(messages)}, expected a list of messages"
        raise DataError(
            f"`{field}` {cause}",
            code="DATA-015",
            where=f"{where} field {field}",
            fix='write [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]',
        )
    return messages


def check_turns(messages: Iterable[object], where: str, field: str = "messages", *, after: str = "") -> list[Message]:
    """Messages in canonical form, fresh copies, in an order of roles as ``check_row`` wants it.

    ``field`` is where they stand in the row at ``where``; ``after`` is the role of the message before them.

    Raises:
        DataError: DATA-016, DATA-017, DATA-018, DATA-008, DATA-009, as ``check_row``.
    """
    checked: list[Message] = []
    for index, message in enumerate(messages):
        checked.append(_check_message(message, f"{field}[{index}]", after, where))
        after = checked[-1]["role"]
    return checked


def check_ends_with_assistant(messages: Sequence[Message], where: str, field: str = "messages") -> None:
    """Refuse messages whose last one is not the assistant's (DataError, DATA-016)."""
    last = messages[-1]["role"]
    if last != "assistant":
        raise DataError(
            f"the last message is the {last}'s: nothing to learn",
            code="DATA-016",
            where=f"{where} field {field}[{len(messages) - 1}].role",
            fix="end the row with the assistant's answer, or remove the row",
        )


def check_text(value: object, where: str, field: str, *, of: str, may_be_empty: bool = False) -> str:
    """``value`` if it is a string a model can be trained on.

    ``field`` is the path inside the row at ``where``; ``of`` is the role whose text it is, or ``text`` for a raw one.

    Raises:
        DataError: DATA-018 (not a string), DATA-017 (empty), DATA-008 or DATA-009 (characters).
    """
    if type(value) is not str:
        raise DataError(
            f"content is {kind_of(value)}, expected a string",
            code="DATA-018",
            where=f"{where} field {field}",
            fix="join the text parts into one string" if isinstance(value, list) else "write it as a JSON string",
        )
    found = _UNFIT.search(value)
    if found:
        raise _unfit(found, f"{where} field {field}")
    if not may_be_empty and (not value or value.isspace()):
        why = ": nothing to learn" if of in ("assistant", "text") else ""
        raise DataError(
            f"{of if of == 'text' else f'{of} message'} is empty{why}",
            code="DATA-017",
            where=f"{where} field {field}",
            fix="fill it in, or remove the " + ("message" if of == "system" else "row"),
        )
    return value


def with_system_prompt(row: Row, text: str, where: str = "row") -> Row:
    """A copy of the row that starts with the system prompt ``text``.

    Raises:
        DataError: DATA-016 if the row already has a system message; or as ``check_text`` for ``text``.
    """
    check_text(text, where, "system_prompt", of="system")
    if row["messages"][0]["role"] == "system":
        raise DataError(
            "a system prompt is to be added, but the row already has a system message",
            code="DATA-016",
            where=f"{where} field messages[0]",
            fix="unset dataset.system_prompt, or remove the system messages from the data",
        )
    return {"messages": [{"role": "system", "content": text}, *copy_row(row)["messages"]]}


def copy_row(row: Row) -> Row:
    """A copy whose messages can be changed without touching the original."""
    return {"messages": [cast("Message", dict(message)) for message in row["messages"]]}


def quote(value: object, limit: int = 60) -> str:
    """``value`` in backticks for an error message: shortened, with nothing a terminal would act on."""
    text = str(value)
    text = text if len(text) <= limit else text[: limit - 3] + "..."
    return f"`{text if text.isprintable() else text.encode('unicode_escape').decode('ascii')}`"


def kind_of(value: object) -> str:
    """What JSON calls the value: ``an integer``, ``a list`` ..."""
    if value is None:
        return "null"
    return _JSON_TYPES.get(type(value)) or ("a number" if isinstance(value, float) else f"a {type(value).__name__}")


def listing(names: Iterable[object]) -> str:
    """Up to eight names for an error message, such as ``[prompt, completion]``."""
    known = [quote(name, 30).strip("`") for name in names]
    return f"[{', '.join(known[:8])}{', ...' if len(known) > 8 else ''}]"


def _message_list(row: object, where: str) -> list[Any]:
    found = check_object(row, where, "an object with `messages`")
    messages = found.get("messages")
    if "messages" not in found:
        raise DataError(
            f"`messages` is missing; found keys {listing(found)}",
            code="DATA-015",
            where=where,
            fix=_missing_messages_fix(found),
        )
    return check_list(messages, where, "messages")


def _missing_messages_fix(row: Mapping[str, Any]) -> str:
    if "chosen" in row and "rejected" in row:
        return "dataset=preference method=dpo"
    if isinstance(row.get("text"), str):
        return "dataset.format=text"
    pairs = (("input", "output"), ("prompt", "completion"), ("instruction", "output"))
    if any(a in row and b in row for a, b in pairs) or isinstance(row.get("train"), list):
        return "dataset.format=instruct"
    if "conversations" in row:
        return "rename `conversations` to `messages`, `from` to `role` and `value` to `content`"
    close = difflib.get_close_matches("messages", [str(key) for key in row], n=1)
    return f"rename {quote(close[0])} to `messages`" if close else "put the conversation under the key `messages`"


def _check_message(message: object, field: str, previous: str, where: str) -> Message:
    if not isinstance(message, dict):
        raise DataError(
            f"the message is {kind_of(message)}, expected an object with `role` and `content`",
            code="DATA-018",
            where=f"{where} field {field}",
            fix='write {"role": "user", "content": "..."}',
        )
    role = message.get("role")
    if not isinstance(role, str) or role not in _AFTER[previous]:
        raise _bad_role(role, "role" in message, previous, f"{where} field {field}.role")
    if len(message) > 2 or "content" not in message:
        _check_keys(message, role, where, field)
    content = check_text(message["content"], where, f"{field}.content", of=role, may_be_empty=role == "tool")
    if message.get("weight") is None:
        return {"role": role, "content": content}
    return {"role": role, "content": content, "weight": _check_weight(message["weight"], role, where, field)}


def _bad_role(role: object, present: bool, previous: str, where: str) -> DataError:
    if isinstance(role, str) and role in ROLES:
        if previous == role:
            cause, fix = f"two {role} messages in a row", "join them into one message"
        elif role == "system":
            cause, fix = "a system message after the first message", "move it to the start of the row"
        else:
            after = f"after the {previous}'s" if previous else "as the first message"
            cause = f"{quote(role)} {after}; expected {' or '.join(_AFTER[previous])}"
            fix = "put the messages in the order system, user, assistant, user, assistant ..."
        return DataError(cause, code="DATA-016", where=where, fix=fix)
    if not present:
        return DataError("`role` is missing", code="DATA-016", where=where, fix=f"use {', '.join(ROLES)}")
    shown = quote(role) if isinstance(role, str) else f"the role is {kind_of(role)}"
    lower = str(role).strip().lower()
    close = [_ALIASES[lower]] if lower in _ALIASES else difflib.get_close_matches(lower, ROLES, n=1)
    hint = f". Did you mean '{close[0]}'?" if isinstance(role, str) and close else ""
    return DataError(f"{shown} is not a role{hint}", code="DATA-016", where=where, fix=f"use {', '.join(ROLES)}")


def _check_keys(message: Mapping[str, Any], role: str, where: str, field: str) -> None:
    # A key that is null says nothing; any other one would change what the model sees, or is a typing error.
    unknown = [key for key in message if key not in _MESSAGE_KEYS and message[key] is not None]
    if unknown:
        close = difflib.get_close_matches(str(unknown[0]), sorted(_MESSAGE_KEYS), n=1)
        hint = f". Did you mean '{close[0]}'?" if close else ""
        raise DataError(
            f"unknown key {quote(unknown[0])} in a message{hint} Known: role, content, weight",
            code="DATA-018",
            where=f"{where} field {field}",
            fix="remove it; write tool calls and names into the content as text",
        )
    if "content" not in message:
        raise DataError(
            f"`content` is missing in the {role}'s message",
            code="DATA-018",
            where=f"{where} field {field}",
            fix='add "content": "..."',
        )


def _check_weight(weight: object, role: str, where: str, field: str) -> int:
    if type(weight) is not int or weight not in (0, 1):
        cause = f"weight is {quote(weight)}, expected 0 or 1"
    elif role != "assistant":
        cause = f"the {role}'s message has weight {weight}, but only the assistant's messages are trained on"
    else:
        return weight
    fix = "use 0 (leave out of the loss) or 1 on assistant messages, and no weight elsewhere"
    raise DataError(cause, code="DATA-018", where=f"{where} field {field}.weight", fix=fix)


def _unfit(found: re.Match[str], where: str) -> DataError:
    point = ord(found.group())
    at = f"U+{point:04X} at character {found.start() + 1}"
    if point >= 0xD800:
        fix = "write the whole pair, or remove it (it is half of an emoji cut in two)"
        return DataError(f"unpaired surrogate {at}", code="DATA-008", where=where, fix=fix)
    fix = "remove it; only tab, newline and carriage return are allowed"
    return DataError(f"control character {at}", code="DATA-009", where=where, fix=fix)
