"""Label masks and prompts on the chat templates of real model families, on a byte-level tokenizer.

The templates are those of the models, without their branches for tools, and with ``{% generation %}`` around
what the assistant writes, which changes no text: transformers' own mask of it is the yardstick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.models.reference import encode
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from organon.config.compose import conf_dir
from organon.errors import DataError
from organon.models.chat import IGNORED, encode_row, encode_rows, generation_prompt
from organon.models.template import from_prompt_template

QWEN = """\
{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- generation %}{{- message.content + '<|im_end|>' }}{%- endgeneration %}
        {{- '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
LLAMA3 = (
    "{% for message in messages %}"
    "{% set head = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' %}"
    "{% if loop.index0 == 0 %}{% set head = bos_token + head %}{% endif %}{{ head }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] | trim + '<|eot_id|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] | trim + '<|eot_id|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {%- generation %}{{- " " + message["content"]|trim + eos_token }}{%- endgeneration %}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported") }}
    {%- endif %}
{%- endfor %}
"""
GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{{ '<start_of_turn>model\n' }}"
    "{% generation %}{{ message['content'] | trim + '<end_of_turn>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ '<start_of_turn>' + message['role'] + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
ZEPHYR = """\
{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n' }}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}{{ '\\n' }}
{%- endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}
"""
# Ends a conversation, not each turn, with its end token.
PHI3 = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n'}}"
    "{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}{{ '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
PLAIN = (conf_dir() / "model" / "templates" / "plain.jinja").read_text()
PROMPT = from_prompt_template("Q: {input}\nA:")

# name: template, end token of the tokenizer, end of an answer, whether a system message may come first
FAMILIES: dict[str, tuple[str, str, str, bool]] = {
    "qwen": (QWEN, "<|im_end|>", "<|im_end|>", True),
    "llama3": (LLAMA3, "<|eot_id|>", "<|eot_id|>", True),
    "mistral": (MISTRAL, "</s>", "</s>", False),
    "gemma": (GEMMA, "<eos>", "<end_of_turn>", False),
    "zephyr": (ZEPHYR, "</s>", "</s>", True),
    "phi3": (PHI3, "<|endoftext|>", "<|end|>", True),
    "plain": (PLAIN, "</s>", "</s>", True),
    "prompt_template": (PROMPT, "</s>", "</s>", True),
}
TOKENS = [
    "<s>", "</s>", "<eos>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    "[INST]", "[/INST]", "<start_of_turn>", "<end_of_turn>", "<|user|>", "<|system|>", "<|assistant|>", "<|end|>",
    "<|endoftext|>",
]  # fmt: skip
MERGES = [("Ċ", "Ċ"), ("Ġ", "a"), ("a", "b"), ("Ġ", "Ġ"), ("Ġa", "b")]


def tokenizer(family: str, *, merges: bool = False) -> Any:
    template, end, _, _ = FAMILIES[family]
    pairs = MERGES if merges else []
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*TOKENS, *alphabet, *(a + b for a, b in pairs)])}
    raw = Tokenizer(models.BPE(vocabulary, pairs))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token=end, pad_token="<|endoftext|>")
    fast.add_special_tokens({"additional_special_tokens": [t for t in TOKENS if t != end]})
    fast.chat_template = template
    return fast


TOKENIZERS = {(family, merges): tokenizer(family, merges=merges) for family in FAMILIES for merges in (False, True)}


def talk(*contents: str, system: str = "") -> list[dict[str, Any]]:
    turns = [{"role": "user" if i % 2 == 0 else "assistant", "content": text} for i, text in enumerate(contents)]
    return [{"role": "system", "content": system}, *turns] if system else turns


def spans(labels: list[int]) -> list[tuple[int, int]]:
    """Where labels are set: first, and first behind."""
    marks = [0, *(int(label != IGNORED) for label in labels), 0]
    edges = [i for i in range(len(marks) - 1) if marks[i] != marks[i + 1]]
    return list(zip(edges[::2], edges[1::2], strict=True))


TEXT = st.text(st.sampled_from("ab \n.ä😀A"), min_size=1, max_size=6).filter(str.strip)


@pytest.mark.parametrize("family", FAMILIES)
@given(contents=st.lists(TEXT, min_size=1, max_size=3), merges=st.booleans(), system=TEXT)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_turn_is_trained_behind_its_generation_prompt(
    family: str, contents: list[str], merges: bool, system: str
) -> None:
    """CK-25: token for token, whatever the text, however many turns."""
    tok, (_, _, end, with_system) = TOKENIZERS[family, merges], FAMILIES[family]
    # A second turn's prompt tokenises the first answer together with what stands before it.
    answers = contents if len(contents) == 1 else [text.strip() for text in contents]
    messages = talk(
        *(text for answer in answers for text in (f"u{answer}", answer)), system=system if with_system else ""
    )
    ids, labels = encode(tok, messages)
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    found = spans(labels)
    assert len(found) == len(turns)
    for turn, (start, stop) in zip(turns, found, strict=True):
        assert ids[:start] == generation_prompt(tok, messages[:turn])
        assert ids[start:stop] == labels[start:stop]
        text = tok.decode(ids[start:stop]).removesuffix("\n<|endoftext|>")
        assert text.endswith(end)
        assert text.removesuffix(end).strip() == messages[turn]["content"].strip()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mask_is_that_of_transformers(family: str) -> None:
    tok, (_, _, _, with_system) = TOKENIZERS[family, False], FAMILIES[family]
    messages = talk(
        "one", "a first answer", "two", "a second\nanswer", "three", "ab", system="be brief" if with_system else ""
    )
    ids, labels = encode(tok, messages)
    theirs = tok.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True, date_string="x")
    mask = theirs["assistant_masks"]
    length = len(mask) - mask[::-1].index(1)  # we leave out what follows the last turn
    assert ids[:length] == theirs["input_ids"][:length]
    assert [int(label != IGNORED) for label in labels[:length]] == mask[:length]
    assert sum(mask) > 10
    if family == "phi3":  # the whole conversation's end, which its mask leaves out, is trained too
        assert tok.decode(ids[length:]) == "\n<|endoftext|>"
    else:
        assert len(ids) == length


HAND = {
    "qwen": "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[[B<|im_end|>]]\n"
    "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n[[D<|im_end|>]]",
    "llama3": "<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
    "a<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n[[B<|eot_id|>]]<|start_header_id|>user<|end_header_id|>"
    "\n\nc<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n[[D<|eot_id|>]]",
    "mistral": "<s>[INST] a[/INST][[ B</s>]][INST] c[/INST][[ D</s>]]",
    "gemma": "<s><start_of_turn>user\na<end_of_turn>\n<start_of_turn>model\n[[B<end_of_turn>]]\n<start_of_turn>user\n"
    "c<end_of_turn>\n<start_of_turn>model\n[[D<end_of_turn>]]",
    "zephyr": "<|system|>\nS</s>\n<|user|>\na</s>\n<|assistant|>\n[[B</s>]]\n<|user|>\nc</s>\n<|assistant|>\n[[D</s>]]",
    "phi3": "<|system|>\nS<|end|>\n<|user|>\na<|end|>\n<|assistant|>\n[[B<|end|>]]\n<|user|>\nc<|end|>\n<|assistant|>\n"
    "[[D<|end|>\n<|endoftext|>]]",
    "plain": "System: S\nUser: a\nAssistant:[[ B</s>]]\nUser: c\nAssistant:[[ D</s>]]",
    "prompt_template": "<s>S\n\nQ: a\nA:[[B</s>]]Q: c\nA:[[D</s>]]",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_text_and_its_mask_by_hand(family: str) -> None:
    tok = TOKENIZERS[family, False]
    ids, labels = encode(tok, talk("a", "B", "c", "D", system="S" if FAMILIES[family][3] else ""))
    shown, at = "", 0
    for start, stop in spans(labels):
        shown += tok.decode(ids[at:start]) + "[[" + tok.decode(ids[start:stop]) + "]]"
        at = stop
    assert shown + tok.decode(ids[at:]) == HAND[family]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("loss_on", ["assistant", "last", "all"])
def test_many_rows_at_once_are_each_row_alone(family: str, loss_on: str) -> None:
    tok = TOKENIZERS[family, True]
    rows: list[dict[str, Any]] = [
        {"messages": talk("same", "ab")},
        {"messages": talk("same", "ab", "c", "D")},
        {"text": "ab \n\n ab"},
        {"prompt": talk("a", "B", "c"), "chosen": talk("x", "D")[1:], "rejected": talk("x", "Other")[1:]},
    ]
    together = encode_rows(tok, rows, [""] * len(rows), loss_on=loss_on)
    assert [[(d.ids, d.labels) for d in documents] for documents in together] == [
        encode_row(tok, row, loss_on=loss_on) for row in rows
    ]


def test_a_system_message_that_the_template_moves_is_refused_with_the_tokens() -> None:
    """Mistral's template writes it before the last user message, and leaves it out once that is answered."""
    with pytest.raises(DataError, match="generation prompt is not how it begins an assistant turn") as caught:
        encode(TOKENIZERS["mistral", False], talk("a", "B", system="S"), where="train.jsonl:4")
    assert caught.value.code == "DATA-019"
    assert "from token 4 on 'S'=67 '\\n'=215 '\\n'=215 'a'=81 against 'a'=81 '[/INST]'=9" in str(caught.value)


def test_the_day_is_not_part_of_a_prompt() -> None:
    """Llama 3.2 writes the date into each prompt: trained on Monday, it would be asked otherwise on Tuesday."""
    tok = tokenizer("llama3")
    tok.chat_template = (
        '{%- if not date_string is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}'
        '{{- bos_token + "Today Date: " + date_string + "\n\n" }}' + LLAMA3
    )
    ids, _ = encode(tok, talk("a", "B"))
    assert "Today Date: 26 Jul 2024\n" in tok.decode(ids)
    assert "Today Date: 26 Jul 2024\n" in tok.decode(generation_prompt(tok, talk("a")))


def test_the_shipped_template_is_the_one_tested() -> None:
    assert Path(conf_dir() / "model" / "templates" / "plain.jinja").read_text() == FAMILIES["plain"][0]
