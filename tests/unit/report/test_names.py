"""CK-35, X-16: run names come from a private generator."""

from __future__ import annotations

import random
import re

from organon.report.names import ADJECTIVES, NOUNS, run_name

PATTERN = re.compile(r"[a-z]+-[a-z]+")


def test_names_are_adjective_noun_pairs() -> None:
    """CK-35."""
    for i in range(500):
        name = run_name(f"key {i}")
        assert PATTERN.fullmatch(name)
        adjective, noun = name.split("-")
        assert adjective in ADJECTIVES
        assert noun in NOUNS
    assert PATTERN.fullmatch(run_name())


def test_there_are_enough_different_words() -> None:
    """CK-35."""
    assert len(set(ADJECTIVES)) == len(ADJECTIVES) >= 100
    assert len(set(NOUNS)) == len(NOUNS) >= 100
    assert len({run_name(f"key {i}") for i in range(500)}) > 480


def test_a_seed_gives_one_name_for_ever() -> None:
    """CK-35: a literal, so that a new release cannot rename old runs unseen."""
    assert run_name("3f9a" * 16) == run_name("3f9a" * 16) == "magical-salmon"


def test_the_global_seed_neither_decides_nor_is_disturbed() -> None:
    """X-16."""
    drawn = set()
    for _ in range(20):
        random.seed(0)
        drawn.add(run_name())
    assert len(drawn) > 10

    random.seed(0)
    expected = random.random()
    random.seed(0)
    run_name("a key")
    run_name()
    assert random.random() == expected
