"""Chat messages as tokens, for training and for generation alike.

Each assistant turn is trained behind exactly the prompt that the model gets when it is asked for that
turn: same template, same text, same tokens. Labels follow the convention of transformers: -100 is not
trained on, any other value is the token itself (the shift by one is the loss's business).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from organon.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100

Messages = Sequence[Mapping[str, Any]]


def generation_prompt(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> list[int]:
    """Tokens after which the model writes the next assistant turn."""
    return _tokens(tokenizer, _render(tokenizer, messages, prompt=True))


def encode(tokenizer: PreTrainedTokenizerBase, messages: Messages, *, where: str = "") -> tuple[list[int], list[int]]:
    """Input ids and labels of one conversation, both of length T.

    Labels are set on assistant turns (content and end-of-turn token) but those of ``weight`` 0. What
    follows the last trained turn is left out. ``where`` names the conversation in errors.

    Raises:
        DataError: DATA-016 (the template refuses the conversation), DATA-019 (a later turn changes
            how the template writes an earlier one, so prompts would differ from those at generation).
    """
    ids: list[int] = []
    labels: list[int] = []
    for turn in _trained_turns(messages):
        prompt = _render(tokenizer, messages[:turn], prompt=True, where=where)
        prompt_ids = _tokens(tokenizer, prompt)
        answer_ids = _answer(tokenizer, prompt, prompt_ids, messages[: turn + 1], where)
        if prompt_ids[: len(ids)] != ids:
            raise _rewritten(turn, where)
        labels += [IGNORED] * (len(prompt_ids) - len(ids)) + answer_ids
        ids = prompt_ids + answer_ids
    return ids, labels


def fit_length(
    ids: list[int], labels: list[int], *, max_length: int, on_too_long: str, where: str = ""
) -> tuple[list[int], list[int]] | None:
    """The example within ``max_length`` tokens, or None if it is to be dropped.

    ``on_too_long``: ``error``, ``truncate`` (the end is cut) or ``drop``.

    Raises:
        DataError: DATA-020 (too long, and that is an error), DATA-019 (no token to train on, or none left).
    """
    tokens, trained = len(ids), _count(labels)
    needed = 1 + next((i for i, label in enumerate(labels) if label != IGNORED), tokens)
    if tokens > max_length:
        if on_too_long == "drop":
            return None
        if on_too_long == "error":
            raise DataError(
                f"{tokens:,} tokens > {max_length:,} (dataset.max_length)",
                code="DATA-020",
                where=where,
                fix=f"dataset.max_length={tokens} or more; "
                "or set dataset.on_too_long to `truncate` (cut the end) or `drop` (leave the row out)",
            )
        ids, labels = ids[:max_length], labels[:max_length]
    if _count(labels[1:]) == 0:  # the first token has nothing before it that could predict it
        cut = f"raise dataset.max_length (at least {max(needed, 2):,}), or " if trained else ""
        raise DataError(
            f"0 of {tokens:,} tokens are trained on",
            code="DATA-019",
            where=where,
            fix=f"{cut}check the chat template: it must write the assistant's text",
        )
    return ids, labels


def _trained_turns(messages: Messages) -> list[int]:
    return [i for i, m in enumerate(messages) if m["role"] == "assistant" and m.get("weight", 1) != 0]


def _answer(
    tokenizer: PreTrainedTokenizerBase, prompt: str, prompt_ids: list[int], messages: Messages, where: str
) -> list[int]:
    """Tokens of the last message behind its prompt, up to the end-of-turn token."""
    whole = _render(tokenizer, messages, prompt=False, where=where)
    if not whole.startswith(prompt):
        raise DataError(
            "the chat template's generation prompt is not how it begins an assistant turn, so the model would be "
            f"trained behind another prompt than it gets ({_difference(prompt, whole)})",
            code="DATA-019",
            where=where,
            fix="model.chat_template=path.jinja, a template whose `add_generation_prompt` writes what stands "
            "before the assistant's text",
        )
    whole_ids = _tokens(tokenizer, whole)
    if whole_ids[: len(prompt_ids)] == prompt_ids:
        answer = whole_ids[len(prompt_ids) :]
    else:
        # The tokenizer joins the prompt's last and the answer's first characters into one token. At
        # generation the prompt is tokenised alone, so the answer is too.
        answer = _tokens(tokenizer, whole[len(prompt) :])
    return _until_end_of_turn(tokenizer, answer)


def _until_end_of_turn(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
    """Without the white space that templates write between turns: generation stops before it."""
    special = _special_ids(tokenizer)
    last = max((i for i, token in enumerate(ids) if token in special), default=None)
    if last is None or tokenizer.decode(ids[last + 1 :]).strip():
        return ids
    return ids[: last + 1]


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    added = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def _render(tokenizer: PreTrainedTokenizerBase, messages: Messages, *, prompt: bool, where: str = "") -> str:
    import jinja2

    plain = [{name: value for name, value in m.items() if name != "weight"} for m in messages]
    try:
        return str(tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=prompt))
    except jinja2.TemplateError as error:
        raise DataError(
            f"the model's chat template refuses these messages: {error}",
            code="DATA-016",
            where=where,
            fix="bring the roles into the order that the template wants, or name another one: "
            "model.chat_template=path.jinja",
        ) from error


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    # The template writes the special tokens; the tokenizer must not add them a second time.
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _rewritten(turn: int, where: str) -> DataError:
    return DataError(
        f"the chat template (or the tokenizer) writes the turns before messages[{turn}] in another way than when "
        "they were answered, so one example cannot hold both prompts",
        code="DATA-019",
        where=f"{where} field messages[{turn}]",
        fix='give earlier assistant messages "weight": 0, split the conversation into one row per answer, or '
        "name a template that leaves earlier turns as they are: model.chat_template=path.jinja",
    )


def _difference(prompt: str, whole: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), min(len(prompt), len(whole)))
    return f"prompt ...{prompt[max(0, at - 20) : at + 20]!r}, turn ...{whole[max(0, at - 20) : at + 20]!r}"


def _count(labels: list[int]) -> int:
    return sum(label != IGNORED for label in labels)
