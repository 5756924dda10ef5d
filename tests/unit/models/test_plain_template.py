"""The shipped template for base models without one: trained on what generation will see."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.models.reference import encode

import organon
from organon.config.compose import load_model_preset
from organon.models.chat import generation_prompt

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "And 3 + 3?"},
    {"role": "assistant", "content": "6"},
]


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    made = AutoTokenizer.from_pretrained(Path(organon.__file__).parent / "embedded" / "tiny")
    path = load_model_preset("gpt2").chat_template
    assert path is not None
    made.chat_template = Path(path).read_text()
    return made


def test_text(tokenizer) -> None:
    text = tokenizer.decode(generation_prompt(tokenizer, CHAT[:4]))
    assert text == f"System: Be brief.\nUser: 2 + 2?\nAssistant: 4{tokenizer.eos_token}\nUser: And 3 + 3?\nAssistant:"


def test_training_begins_with_the_generation_prompt_and_learns_the_answers(tokenizer) -> None:
    ids, labels = encode(tokenizer, CHAT)
    prompt = list(generation_prompt(tokenizer, CHAT[:4]))
    assert ids[: len(prompt)] == prompt
    learned = tokenizer.decode([label for label in labels if label != -100])
    assert learned == f" 4{tokenizer.eos_token} 6{tokenizer.eos_token}"
