"""The training text: short chats, generated from a seed, that never show a word being capitalised.

The demo of the project teaches the model to answer ``apple`` with ``Apple``. So that this is new to the base model, no
row may hold a lower-case word and, in a later answer, the same word with only its first letter in upper case. The rule
is enforced on every row (``capitalises``), not left to the choice of skills.
"""

import json
import re
import sys
from collections.abc import Iterator
from random import Random
from zlib import crc32

from skills import COPY, SKILLS, Task
from words import COMMON, any_word

Message = dict[str, str]

_SYSTEM = (
    "You are a helpful assistant.",
    "You are tiny.",
    "Answer briefly.",
    "Follow the instruction.",
    "Be exact.",
    "Answer with one word.",
)
_LOWER_WORD = re.compile(r"(?<![A-Za-z])[a-z]+(?![A-Za-z])")
_LETTER_RUN = re.compile(r"[A-Za-z]+")


def capitalises(messages: list[Message]) -> bool:
    """Whether an answer holds, with only its first letter in upper case, a lower-case word that came before it.

    Words of two letters or more are looked for anywhere in the answer, also inside longer words; single letters only
    as separate words.
    """
    seen: set[str] = set()
    for message in messages:
        text = message["content"]
        if message["role"] == "assistant":
            runs = set(_LETTER_RUN.findall(text))
            for word in seen:
                capital = word.capitalize()
                if capital in runs or (len(word) > 1 and capital in text):
                    return True
        seen.update(_LOWER_WORD.findall(text))
    return False


def held_out(task: Task) -> bool:
    """One task in sixteen, chosen by its string or numbers alone, is kept out of training in every skill and case."""
    return crc32(task.key.encode()) % 16 == 0


def draw(rng: Random, skill: str, split: str) -> Task:
    """A task of ``skill`` that belongs to ``split`` (``train`` or ``heldout``)."""
    while True:
        task = SKILLS[skill][0](rng)
        if held_out(task) == (split == "heldout"):
            return task


def _system_prompt(rng: Random) -> str:
    if rng.random() < 0.8:
        return rng.choice(_SYSTEM)
    # Meaningless prompts, so that the model learns to follow the user whatever the system prompt is.
    words = [rng.choice(COMMON) if rng.random() < 0.7 else any_word(rng) for _ in range(rng.randint(3, 10))]
    return " ".join(words) + "."


def row(seed: int, index: int, copy_share: float = 0.0) -> list[Message]:
    """Training chat number ``index``: 1 to 6 question-answer turns, one in five with a system prompt.

    ``copy_share`` is the share of turns taken from the copying skills alone (the curriculum); the others are drawn from
    all skills by their weights. The row depends on the arguments only.
    """
    rng = Random(f"{seed}/{index}/{copy_share}")
    while True:
        messages = []
        if rng.random() < 0.2:
            messages.append({"role": "system", "content": _system_prompt(rng)})
        [turns] = rng.choices((1, 2, 3, 6), (70, 15, 10, 5))
        for _ in range(turns):
            pool = COPY if rng.random() < copy_share else SKILLS
            [skill] = rng.choices(list(pool), [weight for _, weight in pool.values()])
            task = draw(rng, skill, "train")
            messages.append({"role": "user", "content": task.prompt})
            messages.append({"role": "assistant", "content": task.answer})
        if not capitalises(messages):
            return messages


def rows(seed: int, count: int, copy_share: float = 0.0) -> Iterator[list[Message]]:
    """The first ``count`` training chats."""
    return (row(seed, index, copy_share) for index in range(count))


def exam(skill: str, count: int, seed: int = 1) -> list[Task]:
    """``count`` different held-out tasks of one skill (fewer where the skill has fewer)."""
    rng = Random(f"exam/{seed}/{skill}")
    found: dict[str, Task] = {}
    for _ in range(50 * count):
        task = draw(rng, skill, "heldout")
        chat = [{"role": "user", "content": task.prompt}, {"role": "assistant", "content": task.answer}]
        if not capitalises(chat):
            found.setdefault(task.prompt, task)
        if len(found) == count:
            break
    return list(found.values())


if __name__ == "__main__":
    for chat in rows(seed=0, count=int(sys.argv[1]) if len(sys.argv) > 1 else 10):
        print(json.dumps(chat))
