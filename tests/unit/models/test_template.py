"""Prompt templates come out literally; chat templates that are attacks are refused."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.models.reference import encode
from tests.unit.models.test_chat import talk, tokenizer

from organon.config.schema import AdapterConfig, ModelConfig
from organon.errors import ConfigError, DataError, OrganonError, SecurityError
from organon.models import template
from organon.models.chat import generation_prompt
from organon.models.folder import resolve_base
from organon.models.template import check_source, from_prompt_template, render

HARD = "{% for x in y %}{{ z }}{# c #} 'a' \"b\" \\n\\ \n\t ä😀 {{ '}}' }} __class__ {% endgeneration %}%}{-"


def written(text: str, *contents: str, system: str = "") -> str:
    tok = tokenizer(from_prompt_template(text))
    return str(render(tok, [talk(*contents, system=system)], prompt=len(contents) % 2 == 1)[0])


def test_the_parts_of_a_conversation() -> None:
    assert written("Q: {input}\nA:", "2 + 2?", system="Be brief.") == "Be brief.\n\nQ: 2 + 2?\nA:"
    assert written("Q: {input}\nA:", "a", "b", "c", "d") == "Q: a\nA:b<|end|>Q: c\nA:d<|end|>"
    tok = tokenizer(from_prompt_template("{input}"))
    tok.bos_token = "<|system|>"
    assert render(tok, [talk("a")], prompt=True) == ["<|system|>a"]


def test_any_characters_come_out_literally() -> None:
    assert written(f"{HARD}{{input}}{HARD}", HARD) == HARD * 3


@given(st.text(st.sampled_from("{}%#'\"\\n\n -_aä😀\u2028\x85"), max_size=8), st.text(max_size=8))
@settings(max_examples=150, deadline=None)
def test_any_text_comes_out_literally(before: str, after: str) -> None:
    if "{input}" not in before + after:
        tok = tokenizer(from_prompt_template(f"{before}{{input}}{after}"))
        assert render(tok, [talk("x")], prompt=True) == [f"{before}x{after}"]


def test_training_and_generation_see_the_same_prompt() -> None:
    tok = tokenizer(from_prompt_template("Q: {input}\nA: "))
    ids, labels = encode(tok, talk("a", "B", "c", "D"))
    prompt = generation_prompt(tok, talk("a", "B", "c"))
    assert ids[: len(prompt)] == prompt
    assert tok.decode([label for label in labels if label != -100]) == "B<|end|>D<|end|>"


@pytest.mark.parametrize("text", ["no place", "{input} twice {input}", "{ input }", ""])
def test_the_place_must_be_there_once(text: str, tmp_path: Any) -> None:
    """Before anything is read: the folder does not even exist."""
    model = ModelConfig(name="x", path=str(tmp_path / "nothing"), prompt_template=text)
    with pytest.raises(ConfigError, match=r"\{input\}") as caught:
        resolve_base(model, AdapterConfig())
    assert (caught.value.code, caught.value.where) == ("CFG-058", "model.prompt_template")


def test_a_prompt_template_beside_a_chat_template_is_refused() -> None:
    model = ModelConfig(name="tiny", id="organon/tiny", prompt_template="{input}", chat_template="x.jinja")
    with pytest.raises(ConfigError, match="both given") as caught:
        resolve_base(model, AdapterConfig())
    assert caught.value.code == "CFG-058"


def test_the_base_model_carries_the_compiled_template() -> None:
    plain = resolve_base(ModelConfig(name="tiny", id="organon/tiny"), AdapterConfig())
    base = resolve_base(ModelConfig(name="tiny", id="organon/tiny", prompt_template="Q: {input}"), AdapterConfig())
    assert base.digest == plain.digest
    assert base.chat_template == from_prompt_template("Q: {input}")


def test_a_role_that_a_prompt_template_has_no_place_for() -> None:
    tok = tokenizer(from_prompt_template("{input}"))
    with pytest.raises(DataError, match="no place for the role tool"):
        render(tok, [[*talk("a", "B"), {"role": "tool", "content": "x"}]], prompt=True)


HOSTILE = {
    "attribute": "{{ messages.__class__.__mro__ }}",
    "item": "{{ messages['__class__'] }}",
    "filter": "{{ messages | attr('__class__') }}",
    "path": "{{ messages | map(attribute='role.__class__') | list }}",
    "name": "{{ __import__('os') }}",
    "globals": "{{ cycler.__init__.__globals__ }}",
    "put together": "{{ (messages | attr('__cla' ~ 'ss__')).x }}",
    "huge constant": "{{ 'x' * 300000000 }}",
    "huge constant, in steps": "{{ 'x' * 1000 * 1000 * 1000 }}",
    "huge power": "{{ 10 ** (10 ** 10) }}",
    "huge text": "{% set n = 3000000 %}{{ 'x' * n }}",
    "a sum": "{{ 'x' * (300000000+0) }}",
    "a sum of small ones": "{{ 'x' * (1000 * 1000 - -1000 * 300) }}",
    "a filter's width": "{{ 'x' | center(300000000) }}",
    "a filter's width, computed": "{{ 'x' | center(1000 * 1000 * 300) }}",
    "a filter's text": "{{ (' ' * 1000) | replace(' ', ' ' * 1000000) }}",
    "a number in a text": "{{ 'x' * ('300000000' | int) }}",
    "a choice": "{{ 'x' * (1000 * 1000 * 300 if true else 1) }}",
    "an item": "{{ 'x' * [1000 * 1000 * 300][0] }}",
    "a format": "{{ '%0300000000d' % 1 }}",
    "a format, filtered": "{{ '%0300000000d' | format(1) }}",
    "a format of parts": "{{ ('%0300000' ~ '000d') % 1 }}",
    "a format's argument": "{{ '%*d' % (1000 * 1000 * 300, 1) }}",
    "a method's argument": "{{ 'x'.ljust(1000 * 1000 * 300) }}",
    "a text that grows": "{% set n = 3000 %}{{ messages[0].content }}{{ 'x' * n * n }}",
    "depth": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "huge range": "{% for i in range(1000000000) %}x{% endfor %}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_refused(name: str) -> None:
    """Case 75: within a moment, and without taking the memory."""
    started = time.monotonic()
    with pytest.raises(SecurityError) as caught:
        render(tokenizer(HOSTILE[name]), [talk("a")], prompt=True, where="train.jsonl:1")
    assert caught.value.code == "SEC-075"
    assert time.monotonic() - started < 1.5


def test_a_template_that_goes_round_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 75: and a timer that somebody else has set goes on."""
    monkeypatch.setattr(template, "TRIAL_SECONDS", 0.2)
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    before = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0]
    started = time.monotonic()
    with pytest.raises(SecurityError, match="takes longer") as caught:
        render(tokenizer(endless), [talk("a")], prompt=True)
    assert caught.value.code == "SEC-075"
    assert time.monotonic() - started < 2
    assert signal.getsignal(signal.SIGALRM) == before[0]
    left = signal.getitimer(signal.ITIMER_REAL)[0]
    assert left == pytest.approx(before[1], abs=3)
    assert bool(left) == bool(before[1])


def test_a_template_that_is_slow_on_some_messages_only_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 75: the trial's message does not show it, whatever its length."""
    monkeypatch.setattr(template, "RENDER_SECONDS", 0.2)
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    sly = tokenizer("{{ messages[0].content }}{% if messages[0].content == 'now' %}" + loop + "{% endif %}")
    assert render(sly, [talk("a")], prompt=True) == ["a"]
    started = time.monotonic()
    with pytest.raises(SecurityError, match="takes longer") as caught:
        render(sly, [talk("now")], prompt=True, where="train.jsonl:3")
    assert caught.value.code == "SEC-075"
    assert caught.value.where == "train.jsonl:3"
    assert time.monotonic() - started < 3


def test_the_trial_is_not_of_a_short_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "TRIAL_SECONDS", 0.2)
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    long_only = "{{ messages[0].content }}{% if messages[0].content | length > 10 %}" + loop + "{% endif %}"
    with pytest.raises(SecurityError, match="takes longer"):
        render(tokenizer(long_only), [talk("a")], prompt=True)


LEAVES_OUT = {
    "parts only": "{% for m in messages %}<|{{ m.role }}|>{% for part in m.content %}{{ part.text }}{% endfor %}"
    "<|end|>{% endfor %}",
    "cut": "{% for m in messages %}{{ m.content[:3] }}{% endfor %}",
    "other field": "{% for m in messages %}{{ m.text }}{% endfor %}",
}


@pytest.mark.parametrize("name", LEAVES_OUT)
def test_a_template_that_leaves_out_what_the_user_says_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="leaves the user's message out") as caught:
        render(tokenizer(LEAVES_OUT[name]), [talk("a")], prompt=True)
    assert caught.value.code == "DATA-019"
    assert caught.value.where == "model.chat_template"


def test_a_template_may_strip_texts_and_their_lines() -> None:
    lines = "{% for m in messages %}{% for line in m.content.splitlines() %}{{ line | trim }}{% endfor %}{% endfor %}"
    assert render(tokenizer(lines), [talk(" a \n b ")], prompt=True) == ["ab"]


def test_a_template_has_no_clock() -> None:
    """Not even one that does not ask whether it was given a date."""
    clock = tokenizer("{{ strftime_now('%d %B %Y, %H:%M') }} {{ messages[0].content }}")
    assert render(clock, [talk("a")], prompt=True) == ["26 July 2024, 12:00 a"]
    in_macro = "{% macro day() %}{{ strftime_now('%Y-%-m-%d') }}{% endmacro %}"
    for start in ("", "\n", "  \n", "  {% if true %}\n x{% endif %}"):
        source = start + in_macro + "{{ messages[0].content }}{{ day() }}"
        plain = source.replace("strftime_now('%Y-%-m-%d')", "'2024-7-26'")
        assert render(tokenizer(source), [talk("a")], prompt=True) == render(tokenizer(plain), [talk("a")], prompt=True)


def test_other_threads_have_no_timer_but_work() -> None:
    found: list[Any] = []
    slow = "{% for i in range(20) %}{{ i }}{% endfor %}{{ messages[0].content }}"
    thread = threading.Thread(target=lambda: found.extend(render(tokenizer(slow), [talk("a")], prompt=True)))
    thread.start()
    thread.join()
    assert found[0].endswith("19a")


@pytest.mark.parametrize(
    "source",
    [
        "{{ '__START__' }}{% for m in messages %}{{ m.content }}{% endfor %}",
        "{{ 'x' * 10 }}{{ messages[0]['content'] }}",
        "{% if messages | length > 1024 * 1024 * 4 %}{{ 1024 * 1024 * 4 }}{% endif %}",
        "{% set roles = ['system', 'user', 'assistant', 'tool', 'function', 'developer', 'model', 'human'] %}"
        "{{ roles | join(', ') }}{{ '%s: %d' % ('a', 1) }}{{ 'a' | center(80) }}{{ '-' * 79 }}",
        "{% generation %}{{ messages[0].content }}{% endgeneration %}{% break_me %}",
    ],
)
def test_what_is_no_attack_is_not_refused(source: str) -> None:
    check_source(source)


@pytest.mark.parametrize(
    "source", ["{{ messages[0].content + 1 }}", "{{ 1 / 0 }}", "{{ messages[0].x.y }}", "{% if %}"]
)
def test_a_broken_template_is_an_error_with_the_row(source: str) -> None:
    with pytest.raises(OrganonError) as caught:
        render(tokenizer(source), [talk("a")], prompt=True, where="train.jsonl:1")
    assert caught.value.code == "DATA-016"
    assert "train.jsonl:1" in str(caught.value)
