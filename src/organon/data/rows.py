"""Rows that are no conversation, raw text and preference pairs, and what holds for a row of any kind.

text:        ``{"text": "..."}``; every token is trained, nothing is added but the tokenizer's own ends.
preference:  ``{"prompt": [messages], "chosen": [messages], "rejected": [messages]}``: two answers to one
             prompt, the better one first. In a file, ``prompt`` may be a string (one user message), and
             so may ``chosen`` and ``rejected`` (one assistant message).

Canonical rows have these keys in this order and nothing else; lines and hashes are as in ``messages.py``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Literal, TypedDict, cast

from organon.data.messages import (
    Message,
    Row,
    check_ends_with_assistant,
    check_list,
    check_object,
    check_text,
    check_turns,
    listing,
    quote,
    with_system_prompt,
)
from organon.errors import DataError

Kind = Literal["messages", "text", "preference"]
PREFERENCE_KEYS = ("prompt", "chosen", "rejected")
# What other tools call the three (OpenAI, Anthropic's and older TRL data).
_ALIASES = {
    "input": "prompt",
    "question": "prompt",
    "preferred_output": "chosen",
    "non_preferred_output": "rejected",
    "preferred": "chosen",
    "dispreferred": "rejected",
}


class TextRow(TypedDict):
    """Raw text to go on writing."""

    text: str


class PreferenceRow(TypedDict):
    """A prompt and two answers to it."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]


def kind_of_row(row: Mapping[str, Any]) -> Kind:
    """What a canonical row is."""
    if "messages" in row:
        return "messages"
    return "preference" if "chosen" in row else "text"


def check_text_row(row: object, where: str) -> TextRow:
    """A text row in canonical form.

    Raises:
        DataError: DATA-003 and DATA-015 (shape of the row), DATA-017 (empty), DATA-018 (type),
            DATA-008 and DATA-009 (characters).
    """
    found = check_object(row, where, "an object with `text`")
    if "text" not in found:
        raise _missing(["text"], found, where)
    return {"text": check_text(found["text"], where, "text", of="text")}


def check_preference_row(row: object, where: str) -> PreferenceRow:
    """A preference row in canonical form, a fresh copy.

    The prompt ends with a user's or a tool's message; both answers go on from there and end with the
    assistant's. ``weight`` has no place here: all assistant messages of an answer count.

    Raises:
        DataError: DATA-003 and DATA-015 (shape of the row), DATA-016 (roles), DATA-017 (empty), DATA-018
            (type of a field), DATA-030 (both answers are equal), DATA-008 and DATA-009 (characters).
    """
    found = check_object(row, where, "an object with `prompt`, `chosen` and `rejected`")
    missing = [key for key in PREFERENCE_KEYS if key not in found]
    if missing:
        raise _missing(missing, found, where)
    prompt = _prompt(found["prompt"], where)
    chosen, rejected = (_answer(found[key], key, prompt, where) for key in PREFERENCE_KEYS[1:])
    if chosen == rejected:
        raise DataError(
            "chosen and rejected are equal: nothing to prefer",
            code="DATA-030",
            where=f"{where} field rejected",
            fix="remove the row, or give it a worse answer",
        )
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def add_system_prompt(row: Mapping[str, Any], text: str, where: str) -> dict[str, Any]:
    """A copy of a canonical row that starts with the system prompt ``text``.

    Raises:
        DataError: DATA-016 if the row has a system message already, or is text, which has no messages.
    """
    kind = kind_of_row(row)
    if kind == "text":
        raise DataError(
            "a system prompt is to be added, but raw text has no messages",
            code="DATA-016",
            where=where,
            fix="unset dataset.system_prompt, or write it into the texts",
        )
    if kind == "messages":
        return dict(with_system_prompt(cast("Row", row), text, where))
    return {**row, "prompt": with_system_prompt({"messages": row["prompt"]}, text, where)["messages"]}


def asked(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a row asks: (role, content) of the messages before its last answer, without system messages.

    Raw text asks itself. A row of messages may lack its answer, as an evaluation's sample does.
    """
    kind = kind_of_row(row)
    if kind == "text":
        return [("", row["text"])]
    messages = row["prompt"] if kind == "preference" else row["messages"]
    found = [(message["role"], message["content"]) for message in messages if message["role"] != "system"]
    if kind == "messages" and found and found[-1][0] == "assistant":
        found.pop()
    return found


def answer_of(row: Mapping[str, Any]) -> str | None:
    """The text of a row's last (and preferred) answer; None for raw text."""
    kind = kind_of_row(row)
    if kind == "text":
        return None
    return str(row["chosen" if kind == "preference" else "messages"][-1]["content"])


def _prompt(prompt: object, where: str) -> list[Message]:
    if isinstance(prompt, str):
        return [{"role": "user", "content": check_text(prompt, where, "prompt", of="user")}]
    messages = _unweighted(check_turns(check_list(prompt, where, "prompt"), where, "prompt"), where, "prompt")
    last = messages[-1]["role"]
    if last not in ("user", "tool"):
        raise DataError(
            f"the prompt ends with the {last}'s message",
            code="DATA-016",
            where=f"{where} field prompt[{len(messages) - 1}].role",
            fix="end the prompt with the user's message; the answers go into `chosen` and `rejected`",
        )
    return messages


def _answer(answer: object, key: str, prompt: list[Message], where: str) -> list[Message]:
    if isinstance(answer, str):
        return [{"role": "assistant", "content": check_text(answer, where, key, of="assistant")}]
    given = check_list(answer, where, key)
    if given[: len(prompt)] == prompt:
        raise DataError(
            f"`{key}` repeats the prompt",
            code="DATA-016",
            where=f"{where} field {key}",
            fix=f"take the prompt's messages out of `{key}`: it is what follows them",
        )
    messages = _unweighted(check_turns(given, where, key, after=prompt[-1]["role"]), where, key)
    check_ends_with_assistant(messages, where, key)
    return messages


def _unweighted(messages: list[Message], where: str, field: str) -> list[Message]:
    for index, message in enumerate(messages):
        if "weight" in message:
            raise DataError(
                "`weight` in a preference row",
                code="DATA-018",
                where=f"{where} field {field}[{index}].weight",
                fix="remove it: all assistant messages of `chosen` and `rejected` count, and none of the prompt",
            )
    return messages


def _missing(keys: list[str], row: Mapping[str, Any], where: str) -> DataError:
    named = " and ".join(f"`{key}`" for key in keys)
    verb = "are" if len(keys) > 1 else "is"
    return DataError(
        f"{named} {verb} missing; found keys {listing(row)}",
        code="DATA-015",
        where=where,
        fix=_missing_fix(keys, row),
    )


def _missing_fix(keys: list[str], row: Mapping[str, Any]) -> str:
    if "messages" in row:
        return "dataset.format=messages"
    if keys == ["prompt"] and isinstance(row.get("chosen"), list):
        return "take the messages that `chosen` and `rejected` begin with alike out of both, and write them as `prompt`"
    renamed = [f"{quote(found)} to `{key}`" for key in keys if (found := _other_name(key, row))]
    return f"rename {', '.join(renamed)}" if renamed else "give every row " + " and ".join(f"`{key}`" for key in keys)


def _other_name(key: str, row: Mapping[str, Any]) -> str | None:
    known = [name for name in row if _ALIASES.get(str(name)) == key]
    if key == "text" and not known:
        known = [name for name in ("content", "document", "body") if isinstance(row.get(name), str)]
    return next(iter(known or difflib.get_close_matches(key, [str(name) for name in row], n=1)), None)
