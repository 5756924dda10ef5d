"""What the encoder is compared with: one conversation, fitted to a length the plain way."""

from __future__ import annotations

from typing import Any

from organon.models.chat import IGNORED, encode_row, too_long, untrained


def encode(
    tokenizer: Any, messages: list[dict[str, Any]], *, loss_on: str = "assistant", where: str = ""
) -> tuple[list[int], list[int]]:
    """Input ids and labels of one conversation, both of length T."""
    return encode_row(tokenizer, {"messages": messages}, loss_on=loss_on, where=where)[0]


def fit_length(
    ids: list[int], labels: list[int], *, max_length: int, on_too_long: str, where: str = ""
) -> tuple[list[int], list[int]] | None:
    """The example within ``max_length`` tokens, or None if it is to be dropped."""
    tokens, trained = len(ids), count(labels)
    needed = 1 + next((i for i, label in enumerate(labels) if label != IGNORED), tokens)
    if tokens > max_length:
        if on_too_long == "drop":
            return None
        if on_too_long == "error":
            raise too_long(tokens, max_length, tokens, where)
        ids, labels = ids[:max_length], labels[:max_length]
    if count(labels[1:]) == 0:  # the first token has nothing before it that could predict it
        raise untrained(tokens, max(needed, 2) if trained else None, where)
    return ids, labels


def count(labels: list[int]) -> int:
    """Labels that are trained on."""
    return sum(label != IGNORED for label in labels)
