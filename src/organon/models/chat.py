"""Rows as tokens, for training and for generation alike.

Each assistant turn is trained behind exactly the prompt that the model gets when it is asked for that
turn: same template, same text, same tokens. Labels follow the convention of transformers: -100 is not
trained on, any other value is the token itself (the shift by one is the loss's business).

Whether a prompt is how its turn begins is looked at for every turn of every row. So each turn is rendered
twice and tokenised twice; nothing short of that shows that a template keeps the promise.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from organon.errors import ConfigError, DataError
from organon.models.template import PROBE, Messages, render, without_space

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
LOSS_ON = ("assistant", "last", "all")
BLOCK_CHARACTERS = 2**20  # that are rendered and tokenised at once
MESSAGE_CHARACTERS = 100  # what a message takes besides its text, about
Span = tuple[int, int]  # tokens from the first to before the second


@dataclass(frozen=True)
class Document:
    """Tokens of one conversation or text: which are ``trained`` on, and where the assistant's ``answers`` stand."""

    ids: list[int]
    trained: tuple[Span, ...]
    answers: tuple[Span, ...]

    @property
    def labels(self) -> list[int]:
        """One for each token: -100, or the token where it is trained on."""
        labels = [IGNORED] * len(self.ids)
        for start, end in self.trained:
            labels[start:end] = self.ids[start:end]
        return labels


@dataclass(frozen=True)
class EndOfTurn:
    """What a template writes behind an answer: its special ``tokens``; where it has none, a ``text`` ("": neither)."""

    tokens: frozenset[int]
    text: str


def generation_prompt(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> list[int]:
    """Tokens after which the model writes the next assistant turn."""
    return _tokens(tokenizer, render(tokenizer, [messages], prompt=True))[0]


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> EndOfTurn:
    """Where an answer ends that was trained with this tokenizer's template, so that generation can end there too.

    A template from another model may end its answers with what is no token of this one: then the text counts,
    if it is more than one character, which could be any answer's.
    """
    chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": PROBE}]
    whole = render(tokenizer, [chat], prompt=False)[0]
    _, found, behind = whole.rpartition(PROBE)
    if not found:  # no row can be trained with such a template
        return EndOfTurn(frozenset(), "")
    special = _special_ids(tokenizer)
    tokens = frozenset(token for token in _tokens(tokenizer, [behind])[0] if token in special)
    text = behind.strip()
    return EndOfTurn(tokens, text if not tokens and len(text) > 1 else "")


def special_texts(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str] | None:
    """Finds the text of a special token, which in a message becomes that token and may forge a turn."""
    names = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    names |= set(tokenizer.all_special_tokens)
    return re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True)))) if names else None


def encode_row(
    tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any], *, loss_on: str = "assistant", where: str = ""
) -> list[tuple[list[int], list[int]]]:
    """Input ids and labels of a row's documents: one, or two (chosen, rejected) for a preference row."""
    return [(document.ids, document.labels) for document in encode_rows(tokenizer, [row], [where], loss_on=loss_on)[0]]


def encode_rows(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    places: Sequence[str],
    *,
    loss_on: str = "assistant",
) -> list[list[Document]]:
    """The documents of each row, the same as one row at a time but faster; ``places`` names the rows in errors.

    Kinds of rows:
        ``{"messages": [...]}``: trained on the assistant's turns (text and end-of-turn token) whose ``weight``
            is not 0. ``loss_on="last"``: only the last of them. ``"all"``: everything but the first token and
            turns of weight 0. What follows the last trained turn is left out.
        ``{"text": "..."}``: begin token, if the tokenizer has one, text, end token; all trained but the first.
        ``{"prompt": [...], "chosen": [...], "rejected": [...]}``: two conversations, trained as above on what
            follows the prompt.

    Raises:
        DataError: DATA-015 (none of these kinds), DATA-016 (the template refuses the conversation), DATA-017
            (``last``, and that turn has weight 0), DATA-019 (the template leaves out a message's text; a later turn
            changes how it writes an earlier one, so prompts would differ from those at generation).
        SecurityError: SEC-075, the template does what no chat template needs to.
        ConfigError: CFG-064, the tokenizer lacks a chat template or an end token.
    """
    try:
        return _encode(tokenizer, rows, places, loss_on)
    except Exception:
        if len(rows) == 1:
            raise
        # One of them is bad: row by row says which is the first.
        return [_encode(tokenizer, [row], [place], loss_on)[0] for row, place in zip(rows, places, strict=True)]


def too_long(tokens: int, max_length: int, longest: int, where: str, *, others: str = "") -> DataError:
    """DATA-020 for a document of ``tokens``; ``longest`` is what would be long enough for all of them."""
    return DataError(
        f"{tokens:,} tokens > {max_length:,} (dataset.max_length){others}",
        code="DATA-020",
        where=where,
        fix=f"dataset.max_length={longest} or more; "
        "or set dataset.on_too_long to `truncate` (cut the end) or `drop` (leave the row out)",
    )


def untrained(tokens: int, needed: int | None, where: str, *, others: str = "") -> DataError:
    """DATA-019 for a document without a trained token; with ``needed`` tokens it would have one (None: never)."""
    cut = f"raise dataset.max_length (at least {needed:,}), or " if needed is not None else ""
    return DataError(
        f"0 of {tokens:,} tokens are trained on{others}",
        code="DATA-019",
        where=where,
        fix=f"{cut}check the chat template: it must write the assistant's text",
    )


@dataclass
class _Draft:
    """A document to be encoded: a text, or a conversation and which of its assistant turns are to be trained."""

    where: str
    text: str | None = None
    messages: Messages = ()
    turns: Sequence[int] = ()  # all that are encoded
    trained: frozenset[int] = frozenset()
    first: int = 0  # the first message that may be trained on
    everything: bool = False  # between the turns, too


@dataclass
class _Turn:
    """An assistant turn: its text, the prompt it answers, and what the template writes of both together."""

    index: int
    content: str
    prompt: str
    whole: str
    prompt_ids: list[int]
    whole_ids: list[int]


def _encode(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Mapping[str, Any]], places: Sequence[str], loss_on: str
) -> list[list[Document]]:
    drafts = [_drafts(row, loss_on, where) for row, where in zip(rows, places, strict=True)]
    each = [draft for group in drafts for draft in group]
    tokens = _tokenised(tokenizer, each)
    special = _special_ids(tokenizer)

    def document(draft: _Draft) -> Document:
        if draft.text is not None:
            return _text(tokenizer, next(tokens).whole_ids, draft.where)
        return _conversation(tokenizer, draft, itertools.islice(tokens, len(draft.turns)), special)

    return [[document(draft) for draft in group] for group in drafts]


def _tokenised(tokenizer: PreTrainedTokenizerBase, drafts: Sequence[_Draft]) -> Iterator[_Turn]:
    """All turns of all drafts, and each text as a turn without a prompt; held a block at a time.

    A conversation's last turn has all others in its prompt: together they are far longer than the conversation.
    """
    where = drafts[0].where if drafts else ""  # of the only row; for several, see `encode_rows`
    for block in _blocks(drafts):
        talks = [(draft.messages, turn) for draft, turn in block if draft.text is None]
        prompts = iter(render(tokenizer, [messages[:turn] for messages, turn in talks], prompt=True, where=where))
        wholes = iter(render(tokenizer, [messages[: turn + 1] for messages, turn in talks], prompt=False, where=where))
        pairs = [("", d.text) if d.text is not None else (next(prompts), next(wholes)) for d, _ in block]
        known = _distinct_tokens(tokenizer, itertools.chain.from_iterable(pairs))
        for (draft, turn), (prompt, whole) in zip(block, pairs, strict=True):
            content = "" if draft.text is not None else draft.messages[turn]["content"]
            yield _Turn(turn, content, prompt, whole, known[prompt], known[whole])


def _blocks(drafts: Sequence[_Draft]) -> Iterator[list[tuple[_Draft, int]]]:
    block: list[tuple[_Draft, int]] = []
    size = 0
    for draft in drafts:
        lengths = [len(message["content"]) + MESSAGE_CHARACTERS for message in draft.messages]
        ends = list(itertools.accumulate(lengths))  # characters up to and with each message
        for turn in [0] if draft.text is not None else draft.turns:
            more = len(draft.text) if draft.text is not None else 2 * ends[turn]
            if block and size + more > BLOCK_CHARACTERS:
                yield block
                block, size = [], 0
            block.append((draft, turn))
            size += more
    if block:
        yield block


def _drafts(row: Mapping[str, Any], loss_on: str, where: str) -> list[_Draft]:
    if "messages" in row:
        return [_draft(row["messages"], 0, loss_on, where)]
    if "text" in row:
        return [_Draft(where, text=row["text"])]
    if {"prompt", "chosen", "rejected"} <= row.keys():
        prompt = list(row["prompt"])
        sides = ("chosen", "rejected")
        return [_draft([*prompt, *row[side]], len(prompt), loss_on, f"{where} {side}") for side in sides]
    raise DataError(
        f"neither `messages` nor `text` nor `prompt`, `chosen` and `rejected`; found {', '.join(map(str, row))[:80]}",
        code="DATA-015",
        where=where,
        fix="read the file with its dataset.format: messages, instruct, text or preference",
    )


def _draft(messages: Messages, first: int, loss_on: str, where: str) -> _Draft:
    answers = [i for i, m in enumerate(messages) if i >= first and m["role"] == "assistant"]
    trained = [i for i in answers if messages[i].get("weight", 1) != 0]
    if loss_on == "last":
        trained = [i for i in trained if i == answers[-1]]
        if answers and not trained:
            raise DataError(
                "the last assistant message has weight 0, and only the last one is to be trained on",
                code="DATA-017",
                where=f"{where} field messages[{answers[-1]}]",
                fix="dataset.loss_on=assistant, or remove the weight",
            )
    everything = loss_on == "all"
    turns = [i for i in answers if i <= trained[-1]] if everything and trained else trained
    return _Draft(where, None, messages, turns, frozenset(trained), first, everything)


def _conversation(
    tokenizer: PreTrainedTokenizerBase, draft: _Draft, turns: Iterable[_Turn], special: set[int]
) -> Document:
    ids: list[int] = []
    answers: list[Span] = []
    for turn in turns:
        answer = _answer(tokenizer, turn, draft.where, special)
        if turn.prompt_ids[: len(ids)] != ids:
            answers[-1] = answers[-1][0], _kept(tokenizer, ids, answers[-1][0], turn, draft.where, special)
        answers.append((len(turn.prompt_ids), len(turn.prompt_ids) + len(answer)))
        ids = turn.prompt_ids + answer
    of_weight = [span for span, turn in zip(answers, draft.turns, strict=True) if turn in draft.trained]
    trained = of_weight
    if draft.everything and answers:
        left_out = [span for span in answers if span not in of_weight]
        trained = _without(left_out, answers[0][0] if draft.first else 1, len(ids))
    return Document(ids, tuple(trained), tuple(answers))


def _without(holes: Iterable[Span], start: int, end: int) -> list[Span]:
    """The span from ``start`` to ``end`` less the ``holes`` in it."""
    found = []
    for hole_start, hole_end in holes:
        found.append((start, hole_start))
        start = hole_end
    return [span for span in [*found, (start, end)] if span[0] < span[1]]


def _text(tokenizer: PreTrainedTokenizerBase, tokens: list[int], where: str) -> Document:
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    if end is None:
        raise ConfigError(
            "the tokenizer has no end token, so a text would not be seen to end",
            code="CFG-064",
            where=where,
            fix="set eos_token in the model's tokenizer_config.json",
        )
    ids = [*([begin] if begin is not None else []), *tokens, end]
    return Document(ids, ((1, len(ids)),), ())


def _answer(tokenizer: PreTrainedTokenizerBase, turn: _Turn, where: str, special: set[int]) -> list[int]:
    """Tokens of the turn behind its prompt, up to the end-of-turn token."""
    if not turn.whole.startswith(turn.prompt):
        raise DataError(
            "the chat template's generation prompt is not how it begins an assistant turn, so the model would be "
            f"trained behind another prompt than it gets ({_difference(turn.prompt, turn.whole)}; "
            f"{_tokens_apart(tokenizer, turn.prompt_ids, turn.whole_ids)})",
            code="DATA-019",
            where=f"{where} field messages[{turn.index}]",
            fix="model.chat_template=path.jinja, a template whose `add_generation_prompt` writes what stands "
            "before the assistant's text",
        )
    if not _holds_its_text(turn):
        raise DataError(
            "the chat template leaves out or changes what the assistant says: of "
            f"{turn.content.strip()[:40]!r} it writes {turn.whole[len(turn.prompt) :][:80]!r}",
            code="DATA-019",
            where=f"{where} field messages[{turn.index}]",
            fix="model.chat_template=path.jinja, a template that writes message.content as it is; "
            "or leave out of the data what this one leaves out",
        )
    if turn.whole_ids[: len(turn.prompt_ids)] == turn.prompt_ids:
        answer = turn.whole_ids[len(turn.prompt_ids) :]
    else:
        answer = _tokens_apart_from_the_prompt(tokenizer, turn, where)
    return _until_end_of_turn(tokenizer, answer, special)


def _holds_its_text(turn: _Turn) -> bool:
    """Whether the answer's text is behind the prompt, but for white space; the prompt may end in how it begins."""
    answer = turn.whole[len(turn.prompt) :]
    if turn.content.strip() in answer:
        return True
    content, behind = without_space(turn.content), without_space(answer)
    before = without_space(turn.prompt[-len(turn.content) :])
    return content in before[max(0, len(before) - len(content) + 1) :] + behind


def _tokens_apart_from_the_prompt(tokenizer: PreTrainedTokenizerBase, turn: _Turn, where: str) -> list[int]:
    """The answer's tokens where the tokenizer joins the prompt's last and the answer's first characters into one.

    At generation the prompt is tokenised alone, so the answer is too. Tokenizers of the SentencePiece kind
    begin every text with a space: for them the answer is tokenised behind a new line, which is taken off.
    """
    text = turn.whole[len(turn.prompt) :]
    alone, behind_line, line = _tokens(tokenizer, [text, f"\n{text}", "\n"])
    tries = [alone, *([behind_line[len(line) :]] if behind_line[: len(line)] == line else [])]
    expected = {turn.whole, _decoded(tokenizer, turn.whole_ids)}
    for answer in tries:
        if _decoded(tokenizer, turn.prompt_ids + answer) in expected:
            return answer
    raise DataError(
        "the tokenizer joins the prompt's end and the answer's begin, and apart it writes another text "
        f"({_tokens_apart(tokenizer, turn.prompt_ids, turn.whole_ids)})",
        code="DATA-019",
        where=f"{where} field messages[{turn.index}]",
        fix="let the prompt not end in a space: model.prompt_template, or model.chat_template=path.jinja",
    )


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _until_end_of_turn(tokenizer: PreTrainedTokenizerBase, ids: list[int], special: set[int]) -> list[int]:
    """Without the white space that templates write between turns: generation stops before it."""
    last = next((i for i in range(len(ids) - 1, -1, -1) if ids[i] in special), None)
    if last is None or last == len(ids) - 1 or tokenizer.decode(ids[last + 1 :]).strip():
        return ids
    return ids[: last + 1]


def _kept(
    tokenizer: PreTrainedTokenizerBase, ids: list[int], start: int, turn: _Turn, where: str, special: set[int]
) -> int:
    """Where the answer that began at ``start`` ends in the prompt of a later ``turn``.

    Some templates (Phi-3) end a conversation, not a turn, with a token of its own: after its end-of-turn
    token, an answer may lose what is no text.
    """
    same = next((i for i, (a, b) in enumerate(zip(ids, turn.prompt_ids, strict=False)) if a != b), len(ids))
    same = min(same, len(turn.prompt_ids))
    answer = _until_end_of_turn(tokenizer, ids[start:same], special)
    lost = [token for token in ids[start + len(answer) :] if token not in special]
    if answer and answer[-1] in special and not tokenizer.decode(lost).strip():
        return start + len(answer)
    raise DataError(
        f"the chat template (or the tokenizer) writes the turns before messages[{turn.index}] in another way than "
        "when they were answered, so one example cannot hold both prompts "
        f"({_difference(tokenizer.decode(ids), turn.prompt)}; {_tokens_apart(tokenizer, ids, turn.prompt_ids)})",
        code="DATA-019",
        where=f"{where} field messages[{turn.index}]",
        fix='give earlier assistant messages "weight": 0 (or all: dataset.loss_on=last), split the conversation '
        "into one row per answer, or name a template that leaves earlier turns as they are: "
        "model.chat_template=path.jinja",
    )


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    added = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def _distinct_tokens(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> dict[str, list[int]]:
    distinct = list(dict.fromkeys(texts))
    return dict(zip(distinct, _tokens(tokenizer, distinct), strict=True))


def _tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text. The special ones are the template's, and those whose text stands in a message."""
    if not texts:
        return []
    if len(texts) == 1 or not _is_its_backend(tokenizer):
        return _call(tokenizer, texts)
    _call(tokenizer, texts[:1])  # switches off what the backend keeps of earlier calls: truncation, padding
    # Without the tokens' places in the text, which we do not need: half the time.
    return [found.ids for found in tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def _is_its_backend(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a call of the tokenizer does nothing to the text but what its backend in Rust does."""
    from transformers import PreTrainedTokenizerFast

    names = ("__call__", "_encode_plus")
    kind = type(tokenizer)
    return bool(tokenizer.is_fast) and all(getattr(kind, n) is getattr(PreTrainedTokenizerFast, n) for n in names)


def _call(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    # The template writes the special tokens; the tokenizer must not add them a second time.
    return [list(ids) for ids in tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]]


def _difference(one: str, other: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return f"prompt ...{one[max(0, at - 20) : at + 20]!r}, turn ...{other[max(0, at - 20) : at + 20]!r}"


def _tokens_apart(tokenizer: PreTrainedTokenizerBase, one: list[int], other: list[int]) -> str:
    """Where two lists of tokens part, with the tokens there: text and id."""
    at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))

    def shown(ids: list[int]) -> str:
        return " ".join(f"{tokenizer.decode([i])!r}={i}" for i in ids[at : at + 4]) or "the end"

    return f"from token {at + 1} on {shown(one)} against {shown(other)}"
