"""The embedded base model: its folder, its tokenizer, its corpus and the script that trained it."""

import os
import string
import subprocess
import sys
from pathlib import Path
from random import Random
from types import ModuleType

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "src/organon/embedded/tiny"
SCRIPTS = ROOT / "experiments/tiny_base"
CHAT = [
    {"role": "system", "content": "Be exact."},
    {"role": "user", "content": "Spell Bob"},
    {"role": "assistant", "content": "B o b"},
    {"role": "user", "content": " a\nb 🦊"},
    {"role": "assistant", "content": "7 é"},
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def scripts() -> dict[str, ModuleType]:
    """The modules of the experiment, which import each other by their bare names, without leaving them behind."""
    names = ("words", "skills", "corpus", "tokenizer")
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.path.insert(0, str(SCRIPTS))
    try:
        return {name: __import__(name) for name in names}
    finally:
        sys.path.remove(str(SCRIPTS))
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def test_folder_holds_a_small_model() -> None:
    model = AutoModelForCausalLM.from_pretrained(FOLDER)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert 1_000_000 <= model.num_parameters() <= 5_000_000
    assert model.dtype == torch.bfloat16
    assert all(layer.in_features % 64 == 0 for layer in model.modules() if isinstance(layer, torch.nn.Linear))
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 10_000_000


def test_generation_stops_at_the_end_token(tokenizer: PreTrainedTokenizerBase) -> None:
    settings = AutoModelForCausalLM.from_pretrained(FOLDER).generation_config
    assert settings.eos_token_id == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|end|>")
    assert settings.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
    assert not settings.do_sample


@pytest.mark.parametrize(
    "text",
    ["apple", "Apple PEAR", "  two  spaces ", "12345 67", "a\nb\tc\r\n", "🦊é漢字", "", string.printable, "don't ,."],
)
def test_tokenizer_gives_one_id_per_byte_and_round_trips(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    assert ids == [6 + byte for byte in text.encode()]
    assert tokenizer.decode(ids) == text


def test_special_tokens_have_fixed_ids(tokenizer: PreTrainedTokenizerBase) -> None:
    names = ["<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    assert tokenizer.convert_tokens_to_ids(names) == [0, 1, 2, 3, 4, 5]
    assert len(tokenizer) == 262


@pytest.mark.parametrize("turns", [2, 3, 5])
def test_chat_without_its_answer_is_a_token_prefix(tokenizer: PreTrainedTokenizerBase, turns: int) -> None:
    chat = CHAT[:turns]
    if chat[-1]["role"] != "assistant":
        chat = [*chat[1:], {"role": "assistant", "content": "x"}]
    whole = tokenizer.apply_chat_template(chat, return_dict=True)["input_ids"]
    prompt = tokenizer.apply_chat_template(chat[:-1], add_generation_prompt=True, return_dict=True)["input_ids"]
    assert whole[: len(prompt)] == prompt
    assert tokenizer.decode(whole[len(prompt) :]) == chat[-1]["content"] + "<|end|>"


def test_assistant_mask_covers_the_answers(tokenizer: PreTrainedTokenizerBase, scripts: dict[str, ModuleType]) -> None:
    encoded = tokenizer.apply_chat_template(CHAT, return_assistant_tokens_mask=True, return_dict=True)
    answers = [token for token, inside in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if inside]
    assert tokenizer.decode(answers) == "B o b<|end|>7 é<|end|>"
    # The training script encodes without the template; both must agree.
    assert scripts["tokenizer"].encode(CHAT) == (encoded["input_ids"], encoded["assistant_masks"])


def test_unknown_role_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(Exception, match="Only the roles"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}])


def test_corpus_depends_on_the_seed_alone(scripts: dict[str, ModuleType]) -> None:
    corpus = scripts["corpus"]
    first = list(corpus.rows(3, 50))
    assert first == list(corpus.rows(3, 50))
    assert first != list(corpus.rows(4, 50))
    assert first[7] == corpus.row(3, 7)


def test_corpus_never_capitalises_a_word(scripts: dict[str, ModuleType]) -> None:
    """An independent, plain form of the rule: no title-cased word of an answer occurred before in lower case."""
    for copy_share, count in ((0.0, 20_000), (0.7, 5000)):
        for chat in scripts["corpus"].rows(0, count, copy_share):
            before: set[str] = set()
            for message in chat:
                words = "".join(c if c in string.ascii_letters else " " for c in message["content"]).split()
                if message["role"] == "assistant":
                    assert not [w for w in words if w == w.capitalize() and w.lower() in before - {w}], chat
                before |= set(words)


def test_filter_finds_capitalised_words(scripts: dict[str, ModuleType]) -> None:
    def chat(prompt: str, answer: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]

    capitalises = scripts["corpus"].capitalises
    assert capitalises(chat("apple", "Apple"))
    assert capitalises(chat("say apple, now", "xx Apples"))
    assert capitalises(chat("a", "A"))
    assert capitalises([*chat("apple", "apple"), *chat("again", "Apple")])
    assert not capitalises(chat("Apple", "Apple"))
    assert not capitalises(chat("upper case: apple", "APPLE"))
    assert not capitalises([*chat("Apple", "Apple"), *chat("apple", "apple")])


def test_training_rows_hold_no_held_out_string(scripts: dict[str, ModuleType]) -> None:
    corpus = scripts["corpus"]
    exam = {task.prompt for skill in scripts["skills"].SKILLS for task in corpus.exam(skill, 50)}
    asked = {message["content"] for chat in corpus.rows(0, 3000) for message in chat if message["role"] == "user"}
    assert exam
    assert not exam & asked


def test_training_script_is_deterministic(tmp_path: Path) -> None:
    command = [sys.executable, "experiments/tiny_base/train.py", "--steps", "20", "--tokens", "256", "--out"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    runs = [subprocess.Popen([*command, str(tmp_path / name)], cwd=ROOT, env=environment) for name in ("a", "b")]
    assert [run.wait(timeout=300) for run in runs] == [0, 0]
    assert AutoTokenizer.from_pretrained(tmp_path / "a").encode("A") == [71]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b")]
    assert weights[0] == weights[1]


def test_committed_weights_repeat_random_words(tokenizer: PreTrainedTokenizerBase) -> None:
    rng, model = Random(5), AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    words = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(3, 9))) for _ in range(20)]
    chats = [[{"role": "user", "content": f"Repeat: {word}"}] for word in words]
    inputs = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    out = model.generate(**inputs, max_new_tokens=16)
    given = tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert sum(a == b for a, b in zip(given, words, strict=True)) >= 18
