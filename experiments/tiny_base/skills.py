"""The skills the base model learns. Each is a function ``Random -> Task``; none of them capitalises a word."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from words import any_word, lower_word, random_letters


@dataclass(frozen=True)
class Task:
    """One question with its only right answer. ``key`` decides whether the task belongs to the held-out split."""

    prompt: str
    answer: str
    key: str


def _ask(rng: Random, templates: tuple[str, ...], **values: object) -> str:
    """A random paraphrase; the instruction starts with a capital or not, so that its case carries no meaning."""
    template = rng.choice(templates)
    if rng.random() < 0.4:
        template = template[0].lower() + template[1:]
    return template.format(**values)


def _quoted(rng: Random, text: str) -> str:
    return rng.choice((text, text, text, f'"{text}"', f"'{text}'"))


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


def _on_word(*templates: str, answer: Callable[[str], str], longest: int = 12) -> Callable[[Random], Task]:
    """A skill that maps one string of letters to an answer."""

    def skill(rng: Random) -> Task:
        word = any_word(rng, 1, longest)
        return Task(_ask(rng, templates, x=_quoted(rng, word)), answer(word), word.lower())

    return skill


def echo(rng: Random) -> Task:
    """A message without an instruction is answered by itself: one word, sometimes a number or a few words."""
    kind = rng.random()
    if kind < 0.75:
        text = any_word(rng)
    elif kind < 0.85:
        text = str(rng.randrange(10 ** rng.randint(1, 6)))
    else:
        text = " ".join(any_word(rng, 2, 7) for _ in range(rng.randint(2, 3)))
    return Task(text, text, text.lower())


def repeat_text(rng: Random) -> Task:
    """Copies several words, digits and punctuation marks."""
    parts = [any_word(rng, 1, 8) if rng.random() < 0.8 else str(rng.randrange(1000)) for _ in range(rng.randint(2, 4))]
    text = " ".join(part + rng.choice(("", "", "", *",.!?-:;/+=*_#@&%$()<>")) for part in parts)
    return Task(_ask(rng, ("Repeat: {x}", "Say: {x}", "Copy: {x}", "Copy this text: {x}"), x=text), text, text.lower())


def upper(rng: Random) -> Task:
    # Two letters at least: the upper case of one letter would be a capitalised word.
    word = any_word(rng, 2, 10)
    templates = ("Upper case: {x}", "Write {x} in upper case", "Put {x} in capital letters", "All caps: {x}")
    return Task(_ask(rng, templates, x=_quoted(rng, word)), word.upper(), word.lower())


def join(rng: Random) -> Task:
    word = any_word(rng, 2, 10)
    return Task(_ask(rng, ("Join: {x}", "Join the letters {x}"), x=" ".join(word)), word, word.lower())


def _word_and_letter(rng: Random, longest: int = 10) -> tuple[str, str]:
    """A lower-case string and a letter that is in it more often than chance."""
    word = lower_word(rng, 2, longest)
    return word, rng.choice(word) if rng.random() < 0.5 else random_letters(rng, 1)


def count(rng: Random) -> Task:
    word, letter = _word_and_letter(rng, 8)
    templates = ('How many "{c}" are in {x}?', "Count the letter {c} in {x}")
    return Task(_ask(rng, templates, x=_quoted(rng, word), c=letter), str(word.count(letter)), word)


def contains(rng: Random) -> Task:
    word, letter = _word_and_letter(rng)
    templates = ('Does {x} contain "{c}"?', "Is the letter {c} in {x}?")
    return Task(_ask(rng, templates, x=_quoted(rng, word), c=letter), _yes(letter in word), word)


def starts(rng: Random) -> Task:
    word = lower_word(rng, 2, 10)
    letter = word[0] if rng.random() < 0.5 else rng.choice(word + random_letters(rng, 2))
    templates = ("Is the first letter of {x} {c}?", 'Does {x} start with "{c}"?')
    return Task(_ask(rng, templates, x=_quoted(rng, word), c=letter), _yes(word[0] == letter), word)


def _two_numbers(rng: Random) -> tuple[int, int]:
    """Two different numbers of 1 to 4 digits, half of the time of the same length."""
    digits = rng.randint(1, 4)
    first = rng.randrange(10**digits)
    while (second := rng.randrange(10 ** (digits if rng.random() < 0.5 else rng.randint(1, 4)))) == first:
        pass
    return first, second


def larger(rng: Random) -> Task:
    a, b = _two_numbers(rng)
    templates = ("Which is larger, {a} or {b}?", "The larger of {a} and {b}?", "Maximum: {a} {b}")
    return Task(_ask(rng, templates, a=a, b=b), str(max(a, b)), f"{a} {b}")


def smaller(rng: Random) -> Task:
    a, b = _two_numbers(rng)
    templates = ("Which is smaller, {a} or {b}?", "The smaller of {a} and {b}?", "Minimum: {a} {b}")
    return Task(_ask(rng, templates, a=a, b=b), str(min(a, b)), f"{a} {b}")


def is_larger(rng: Random) -> Task:
    a, b = _two_numbers(rng)
    return Task(_ask(rng, ("Is {a} larger than {b}?", "Is {a} more than {b}?"), a=a, b=b), _yes(a > b), f"{a} {b}")


def add(rng: Random) -> Task:
    a, b = rng.randint(0, 20), rng.randint(0, 20)
    return Task(_ask(rng, ("What is {a} + {b}?", "{a} + {b} =", "Add {a} and {b}"), a=a, b=b), str(a + b), f"{a}+{b}")


def subtract(rng: Random) -> Task:
    b, a = sorted((rng.randint(0, 20), rng.randint(0, 20)))
    templates = ("What is {a} - {b}?", "{a} - {b} =", "Subtract {b} from {a}")
    return Task(_ask(rng, templates, a=a, b=b), str(a - b), f"{a}-{b}")


def even(rng: Random) -> Task:
    number, word = rng.randrange(10 ** rng.randint(1, 4)), rng.choice(("even", "odd"))
    return Task(_ask(rng, ("Is {n} {w}?",), n=number, w=word), _yes((number % 2 == 0) == (word == "even")), str(number))


_NUMBER_WORDS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"""
_ONES, _TENS = _NUMBER_WORDS.split()[:20], _NUMBER_WORDS.split()[20:]


def number_word(number: int) -> str:
    """0..99 in English, e.g. ``forty-two``."""
    if number < 20:
        return _ONES[number]
    ten, one = divmod(number, 10)
    return _TENS[ten - 2] + (f"-{_ONES[one]}" if one else "")


def digits(rng: Random) -> Task:
    number = rng.randrange(100)
    templates = ("Write {x} in digits", "Digits: {x}", "{x} as a number")
    word = number_word(number)
    return Task(_ask(rng, templates, x=word), str(number), word)


def sort_digits(rng: Random) -> Task:
    text = "".join(rng.choice("0123456789") for _ in range(rng.randint(2, 6)))
    return Task(_ask(rng, ("Sort the digits {x}", "Sort: {x}"), x=text), "".join(sorted(text)), text)


Skill = Callable[[Random], Task]
# Skill and its relative frequency. The first block is what every later fine-tuning builds on: copying strings.
COPY: dict[str, tuple[Skill, float]] = {
    "echo": (echo, 4),
    "repeat": (
        _on_word("Repeat: {x}", "Repeat {x}", "Say {x}", "Copy {x}", "Repeat the word {x}", answer=str),
        3,
    ),
    "repeat text": (repeat_text, 1.5),
    "spell": (_on_word("Spell {x}", "Spell: {x}", "Spell the word {x}", answer=" ".join, longest=10), 1.5),
    "join": (join, 0.7),
    "upper": (upper, 1),
    "lower": (_on_word("Lower case: {x}", "Write {x} in lower case", answer=str.lower, longest=10), 1),
    "twice": (_on_word("Repeat {x} twice", "Say {x} two times", answer=lambda w: f"{w} {w}", longest=8), 0.7),
}
OTHER: dict[str, tuple[Skill, float]] = {
    "reverse": (_on_word("Reverse {x}", "Reverse: {x}", "Spell {x} backwards", answer=lambda w: w[::-1], longest=8), 2),
    "length": (_on_word("How many letters are in {x}?", "Length of {x}?", answer=lambda w: str(len(w))), 1),
    "count": (count, 1),
    "first letter": (_on_word("First letter of {x}?", "What is the first letter of {x}?", answer=lambda w: w[0]), 0.5),
    "last letter": (_on_word("Last letter of {x}?", "What is the last letter of {x}?", answer=lambda w: w[-1]), 0.5),
    "contains": (contains, 1),
    "starts with": (starts, 0.7),
    "larger": (larger, 1),
    "smaller": (smaller, 1),
    "is larger": (is_larger, 0.7),
    "add": (add, 1),
    "subtract": (subtract, 1),
    "even or odd": (even, 0.5),
    "number words": (digits, 0.5),
    "sort digits": (sort_digits, 1),
}
SKILLS: dict[str, tuple[Skill, float]] = {**COPY, **OTHER}
