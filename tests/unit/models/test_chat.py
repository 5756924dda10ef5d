"""Labels: exactly the assistant's tokens, each behind exactly the prompt that generation gets."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.models.reference import encode, fit_length
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from organon.errors import ConfigError, DataError
from organon.models.chat import IGNORED, EndOfTurn, encode_row, encode_rows, end_of_turn, generation_prompt

CHATML = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
# A base model's template without special tokens, whose prompt ends in a space: it merges with the answer.
PLAIN = (
    "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
# Drops what earlier assistant turns thought, as templates of reasoning models do.
FORGETFUL = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' }}"
    "{% if m.role == 'assistant' and loop.last %}{{ '(thought)' }}{% endif %}"
    "{{ m.content + '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
STRICT = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML
SPECIALS = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]


def tokenizer(template: str | None = CHATML, merges: tuple[tuple[str, str], ...] = ()) -> Any:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIALS, *alphabet, *(a + b for a, b in merges)])}
    raw = Tokenizer(models.BPE(vocabulary, list(merges)))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<|pad|>", eos_token="<|end|>")
    fast.add_special_tokens({"additional_special_tokens": SPECIALS[2:]})
    fast.chat_template = template
    return fast


def talk(*contents: str, system: str = "") -> list[dict[str, Any]]:
    turns = [{"role": "user" if i % 2 == 0 else "assistant", "content": text} for i, text in enumerate(contents)]
    return [{"role": "system", "content": system}, *turns] if system else turns


def trained_text(tok: Any, ids: list[int], labels: list[int]) -> list[str]:
    """The labelled stretches, as text."""
    assert len(ids) == len(labels)
    assert all(label in (IGNORED, token) for token, label in zip(ids, labels, strict=True))
    found: list[list[int]] = []
    for place, label in enumerate(labels):
        if label != IGNORED:
            if place == 0 or labels[place - 1] == IGNORED:
                found.append([])
            found[-1].append(label)
    return [tok.decode(part) for part in found]


def test_only_the_answer_and_its_end_are_trained() -> None:
    tok = tokenizer()
    ids, labels = encode(tok, talk("abc", "XYZ", system="be brief"))
    assert tok.decode(ids) == "<|system|>be brief<|end|>\n<|user|>abc<|end|>\n<|assistant|>XYZ<|end|>"
    assert trained_text(tok, ids, labels) == ["XYZ<|end|>"]


def test_each_turn_stands_behind_its_generation_prompt() -> None:
    """The training prompt equals the generation prompt token for token."""
    tok = tokenizer()
    messages = talk("a", "B", "cc", "DD", "eee", "FFF")
    ids, labels = encode(tok, messages)
    assert trained_text(tok, ids, labels) == ["B<|end|>", "DD<|end|>", "FFF<|end|>"]
    for turn in (1, 3, 5):
        prompt = generation_prompt(tok, messages[:turn])
        assert ids[: len(prompt)] == prompt
        assert labels[len(prompt) - 1] == IGNORED
        assert labels[len(prompt)] != IGNORED


def test_weight_0_leaves_a_turn_out() -> None:
    """MO: `weight` of OpenAI's format; nothing after the last trained turn is kept."""
    tok = tokenizer()
    messages = talk("a", "B", "c", "D")
    messages[1]["weight"] = 0
    ids, labels = encode(tok, messages)
    assert trained_text(tok, ids, labels) == ["D<|end|>"]
    messages[1]["weight"], messages[3]["weight"] = 1, 0
    ids, labels = encode(tok, messages)
    assert trained_text(tok, ids, labels) == ["B<|end|>"]
    assert tok.decode(ids) == "<|user|>a<|end|>\n<|assistant|>B<|end|>"
    messages[1]["weight"] = 0
    assert encode(tok, messages) == ([], [])


def test_a_token_that_spans_prompt_and_answer_is_split_as_at_generation() -> None:
    """Tokenised whole, the space before the answer would be part of its first token: a prompt nobody gives."""
    tok = tokenizer(PLAIN, merges=(("Ġ", "X"),))
    messages = talk("a", "XY")
    assert "ĠX" in tok.convert_ids_to_tokens(tok("assistant: XY")["input_ids"])  # the trap is there
    ids, labels = encode(tok, messages)
    prompt = generation_prompt(tok, messages[:1])
    assert ids[: len(prompt)] == prompt
    assert trained_text(tok, ids, labels) == ["XY\n"]


def test_a_template_that_rewrites_earlier_turns_is_refused_for_several_answers() -> None:
    tok = tokenizer(FORGETFUL)
    ids, labels = encode(tok, talk("a", "B"))
    assert trained_text(tok, ids, labels) == ["(thought)B<|end|>"]
    messages = talk("a", "B", "c", "D")
    with pytest.raises(DataError, match=r"messages\[3\].*in another way than when they were answered") as caught:
        encode(tok, messages, where="train.jsonl:7")
    assert "train.jsonl:7" in str(caught.value)
    assert '"weight": 0' in caught.value.fix
    # The tokens where they part, and the text: the first answer began with `(`, the second prompt has it as `B`.
    assert "from token 5 on '('=" in str(caught.value)
    assert "against 'B'=" in str(caught.value)
    messages[1]["weight"] = 0
    ids, labels = encode(tok, messages)
    assert trained_text(tok, ids, labels) == ["(thought)D<|end|>"]


def test_a_template_whose_generation_prompt_is_not_its_turn() -> None:
    tok = tokenizer(CHATML.replace("'<|assistant|>'", "'<|assistant|>Answer: '"))
    with pytest.raises(DataError, match="generation prompt is not how it begins an assistant turn") as caught:
        encode(tok, talk("a", "B"), where="train.jsonl:1")
    assert caught.value.code == "DATA-019"
    assert "from token 6 on 'A'=" in str(caught.value)
    assert "against 'B'=" in str(caught.value)


DROPS_ANSWERS = {
    "first letters": "m.content[:3]",
    "parts": "m.content | map(attribute='text') | join",
    "nothing": "''",
    "other letters": "m.content | upper",
}


@pytest.mark.parametrize("name", DROPS_ANSWERS)
def test_a_template_that_leaves_out_what_the_assistant_says_is_refused(name: str) -> None:
    """It would be trained on other text than the data hold, and nobody would know."""
    written = "{% if m.role == 'assistant' %}{{ " + DROPS_ANSWERS[name] + " }}{% else %}{{ m.content }}{% endif %}"
    template = "{% for m in messages %}<|{{ m.role }}|>" + written + "<|end|>\n{% endfor %}"
    tok = tokenizer(template + "{% if add_generation_prompt %}<|assistant|>{% endif %}")
    with pytest.raises(DataError, match="leaves out or changes what the assistant says") as caught:
        encode(tok, talk("an answer?", "an answer"), where="train.jsonl:1")
    assert caught.value.code == "DATA-019"
    assert "train.jsonl:1 field messages[1]" in str(caught.value)


def test_a_template_may_strip_an_answer_and_begin_it() -> None:
    tok = tokenizer(CHATML.replace("m.content", "(m.content | trim).replace(' \n', '\n')"))
    ids, labels = encode(tok, talk("a", " B \nC "))
    assert trained_text(tok, ids, labels) == ["B\nC<|end|>"]
    # As reasoning models do: the data hold the tag, and so does the prompt.
    tok = tokenizer(CHATML.replace("'<|assistant|>'", "'<|assistant|><think>\n'"))
    ids, labels = encode(tok, talk("a", "<think>\nhm</think>B"))
    assert trained_text(tok, ids, labels) == ["hm</think>B<|end|>"]


def metaspace(template: str) -> Any:
    """As SentencePiece: a space begins every text."""
    letters = [*"▁abcdefghijklmnopqrstuvwxyz:?XY\n"]
    pairs = [("▁", "X"), ("X", "Y")]
    words = ["<unk>", *SPECIALS, *letters, *(a + b for a, b in pairs)]
    raw = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, pairs, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    raw.decoder = decoders.Metaspace(prepend_scheme="always")
    fast = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<|pad|>", eos_token="<|end|>", unk_token="<unk>")
    fast.chat_template = template
    return fast


def test_an_answer_tokenised_apart_gets_no_space_of_its_own() -> None:
    """Tokenised alone, it would begin with a second space, which nobody has written."""
    tok = metaspace(PLAIN)
    messages = talk("a", "XY")
    assert tok.convert_ids_to_tokens(tok("XY")["input_ids"]) == ["▁X", "Y"]  # the trap is there
    ids, labels = encode(tok, messages)
    prompt = generation_prompt(tok, messages[:1])
    assert ids[: len(prompt)] == prompt
    assert tok.decode(ids) == "user: a\nassistant: XY\n"
    assert tok.convert_ids_to_tokens([label for label in labels if label != IGNORED]) == ["XY", "\n"]


def test_an_answer_that_cannot_be_tokenised_apart_is_refused() -> None:
    tok = metaspace(PLAIN)

    class Spaced(PreTrainedTokenizerFast):  # type: ignore[misc]
        """Writes a line's end away, so that no text can be put before the answer."""

        def __call__(self, text: Any, **arguments: Any) -> Any:
            return super().__call__([t.lstrip("\n") for t in text], **arguments)

    tok.__class__ = Spaced
    with pytest.raises(DataError, match="joins the prompt's end and the answer's begin") as caught:
        encode(tok, talk("a", "XY"), where="train.jsonl:5")
    assert caught.value.code == "DATA-019"
    assert "not end in a space" in caught.value.fix


def test_the_end_of_a_turn() -> None:
    tok = tokenizer()
    assert end_of_turn(tok) == EndOfTurn(frozenset({SPECIALS.index("<|end|>")}), "")
    assert end_of_turn(tokenizer(PLAIN)) == EndOfTurn(frozenset(), "")
    # A template from another model, whose token is none of this one's.
    assert end_of_turn(tokenizer(CHATML.replace("<|end|>", "<|im_end|>"))) == EndOfTurn(frozenset(), "<|im_end|>")
    phi = CHATML + "{% if not add_generation_prompt %}{{ '<|pad|>' }}{% endif %}"
    assert end_of_turn(tokenizer(phi)).tokens == {SPECIALS.index("<|end|>"), SPECIALS.index("<|pad|>")}


def test_loss_on_the_last_answer() -> None:
    """CK-25."""
    tok = tokenizer()
    messages = talk("a", "B", "c", "D")
    ids, labels = encode(tok, messages, loss_on="last")
    assert trained_text(tok, ids, labels) == ["D<|end|>"]
    assert ids == encode(tok, messages)[0]
    # Nothing before it has to be as it was answered.
    forgetful = tokenizer(FORGETFUL)
    ids, labels = encode(forgetful, messages, loss_on="last")
    assert trained_text(forgetful, ids, labels) == ["(thought)D<|end|>"]
    messages[3]["weight"] = 0
    with pytest.raises(DataError, match="the last assistant message has weight 0") as caught:
        encode(tok, messages, loss_on="last", where="train.jsonl:2")
    assert caught.value.code == "DATA-017"
    assert "train.jsonl:2 field messages[3]" in str(caught.value)


def test_loss_on_everything_but_the_first_token_and_turns_of_weight_0() -> None:
    """CK-25: train_on_input."""
    tok = tokenizer()
    messages = talk("a", "B", "c", "D", system="s")
    ids, labels = encode(tok, messages, loss_on="all")
    assert ids == encode(tok, messages)[0]
    assert labels == [IGNORED, *ids[1:]]
    messages[2]["weight"] = 0
    ids, labels = encode(tok, messages, loss_on="all")
    assert trained_text(tok, ids, labels) == [
        "s<|end|>\n<|user|>a<|end|>\n<|assistant|>",
        "\n<|user|>c<|end|>\n<|assistant|>D<|end|>",
    ]
    messages[4]["weight"] = 0
    assert encode(tok, messages, loss_on="all") == ([], [])


@pytest.mark.parametrize("loss_on", ["assistant", "last", "all"])
def test_a_text_is_trained_from_end_to_end(loss_on: str) -> None:
    tok = tokenizer()
    [(ids, labels)] = encode_row(tok, {"text": "abc"}, loss_on=loss_on)
    assert tok.decode(ids) == "abc<|end|>"
    assert labels == [IGNORED, *ids[1:]]
    tok.bos_token = "<|system|>"
    [(ids, labels)] = encode_row(tok, {"text": "abc"}, loss_on=loss_on)
    assert tok.decode(ids) == "<|system|>abc<|end|>"
    assert labels == [IGNORED, *ids[1:]]
    tok.eos_token = None
    with pytest.raises(ConfigError, match="no end token"):
        encode_row(tok, {"text": "abc"})


def test_a_preference_row_is_two_documents_trained_behind_the_prompt() -> None:
    tok = tokenizer()
    row = {
        "prompt": talk("a", "B", "c", system="s"),
        "chosen": [{"role": "assistant", "content": "Yes"}],
        "rejected": [{"role": "assistant", "content": "No"}],
    }
    (chosen, chosen_labels), (rejected, rejected_labels) = encode_row(tok, row)
    assert trained_text(tok, chosen, chosen_labels) == ["Yes<|end|>"]
    assert trained_text(tok, rejected, rejected_labels) == ["No<|end|>"]
    prompt = generation_prompt(tok, row["prompt"])
    assert chosen[: len(prompt)] == rejected[: len(prompt)] == prompt
    row["chosen"] += talk("d", "E")
    (chosen, chosen_labels), _ = encode_row(tok, row)
    assert trained_text(tok, chosen, chosen_labels) == ["Yes<|end|>", "E<|end|>"]
    (chosen, chosen_labels), _ = encode_row(tok, row, loss_on="last")
    assert trained_text(tok, chosen, chosen_labels) == ["E<|end|>"]
    (chosen, chosen_labels), _ = encode_row(tok, row, loss_on="all")
    assert trained_text(tok, chosen, chosen_labels) == ["Yes<|end|>\n<|user|>d<|end|>\n<|assistant|>E<|end|>"]


def test_a_row_of_no_known_kind() -> None:
    with pytest.raises(DataError, match="found question, answer") as caught:
        encode_row(tokenizer(), {"question": "a", "answer": "b"}, where="x.jsonl:1")
    assert caught.value.code == "DATA-015"


def test_the_first_bad_row_of_many_is_named() -> None:
    rows = [{"messages": talk("a", "B")} for _ in range(5)]
    rows[3] = {"messages": talk("a", "B", system="s")}
    rows[4] = {"messages": talk("a", "B", "c")[:2] * 2}
    with pytest.raises(DataError, match="no system role") as caught:
        encode_rows(tokenizer(STRICT), rows, [f"train.jsonl:{i}" for i in range(5)])
    assert "train.jsonl:3" in str(caught.value)


def test_a_tokenizer_without_a_template() -> None:
    with pytest.raises(ConfigError, match="no chat template") as caught:
        encode(tokenizer(None), talk("a", "B"))
    assert "model.prompt_template" in caught.value.fix


def test_many_rows_do_not_depend_on_what_the_tokenizer_was_used_for() -> None:
    """Its backend keeps truncation and padding from the call before."""
    tok = tokenizer()
    rows = [{"messages": talk("a" * n, "B" * n)} for n in (1, 9, 30)]
    expected = [encode_row(tok, row)[0] for row in rows]
    tok(["abcdefgh", "a"], truncation=True, max_length=4, padding=True)
    assert [(d.ids, d.labels) for [d] in encode_rows(tok, rows, [""] * 3)] == expected


def test_a_tokenizer_that_does_more_than_its_backend_is_heard() -> None:
    class Lower(PreTrainedTokenizerFast):  # type: ignore[misc]
        def __call__(self, text: Any, **arguments: Any) -> Any:
            return super().__call__([t.replace("B", "b") for t in text], **arguments)

    tok = tokenizer()
    tok.__class__ = Lower
    [[one], [two]] = encode_rows(tok, [{"messages": talk("a", "B")}, {"messages": talk("c", "B")}], ["", ""])
    assert tok.decode(one.ids).endswith("b<|end|>")
    assert tok.decode(two.ids).endswith("b<|end|>")


def test_a_template_that_refuses_the_roles() -> None:
    with pytest.raises(DataError, match="no system role") as caught:
        encode(tokenizer(STRICT), talk("a", "B", system="s"), where="train.jsonl:3")
    assert caught.value.code == "DATA-016"
    assert "train.jsonl:3" in str(caught.value)


def test_too_long_is_an_error_with_the_numbers() -> None:
    """Case 20."""
    ids, labels = encode(tokenizer(), talk("a" * 20, "B" * 20))
    with pytest.raises(DataError, match=r"train.jsonl:4: 45 tokens > 30") as caught:
        fit_length(ids, labels, max_length=30, on_too_long="error", where="train.jsonl:4")
    assert caught.value.code == "DATA-020"
    assert fit_length(ids, labels, max_length=45, on_too_long="error") == (ids, labels)


def test_too_long_can_be_cut_or_dropped() -> None:
    ids, labels = encode(tokenizer(), talk("a" * 20, "B" * 20))
    assert fit_length(ids, labels, max_length=30, on_too_long="drop") is None
    assert fit_length(ids, labels, max_length=30, on_too_long="truncate") == (ids[:30], labels[:30])


def test_nothing_left_to_train_on() -> None:
    """Case 19: says how long it would have to be."""
    ids, labels = encode(tokenizer(), talk("a" * 20, "B" * 20))  # the first label is token 25
    with pytest.raises(DataError, match=r"0 of 45 tokens are trained on") as caught:
        fit_length(ids, labels, max_length=24, on_too_long="truncate", where="x")
    assert caught.value.code == "DATA-019"
    assert "at least 25" in caught.value.fix
    assert fit_length(ids, labels, max_length=25, on_too_long="truncate") is not None
    with pytest.raises(DataError, match="0 of 0 tokens"):
        fit_length([], [], max_length=24, on_too_long="error")


@pytest.mark.parametrize("text", ["ärger 😀", "<|end|>", "a\n\n b ", "<|assistant|>x"])
def test_any_text_survives(text: str) -> None:
    tok = tokenizer()
    ids, labels = encode(tok, talk(text, text))
    assert tok.decode(ids).count(text) >= 2
    assert "".join(trained_text(tok, ids, labels)).startswith(text)
