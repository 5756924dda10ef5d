"""A look at outputs by fixed rules: personal data, secrets and phrases that must not be said.

Source: model_forge's ``SafetyFocusedTrainer.validate_outputs``. The rules are deterministic and know only
shapes: they find a leaked number, not a harmful thought. Judging meaning is an Inspect scorer's work.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from organon.redact import REDACTED, redact

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}\.)+[A-Za-z]{2,24}\b")
# International (+49 ...) or in the grouping of North America; bare runs of digits are too often something else.
_PHONE = re.compile(
    r"(?<![\w+])(?:\+[1-9]\d{0,2}(?:[ .-]?\(?\d{1,4}\)?){2,6}"
    r"|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[.-]\d{3}[.-]\d{4})(?![\w-])"
)
_CARD = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])")
_PHONE_DIGITS = range(7, 16)  # E.164: at most 15
_SHOWN = 4  # characters of personal data that a finding repeats


@dataclass(frozen=True)
class Finding:
    """What a rule found in one output. ``start`` counts characters from 0; ``text`` is masked but for phrases."""

    output: int
    rule: str  # email, phone, card, secret, phrase
    start: int
    text: str


@dataclass(frozen=True)
class SafetyReport:
    """Of ``outputs`` texts, what was found in which; in the order of the outputs, then of the places."""

    outputs: int
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing was found in any output."""
        return not self.findings

    def of(self, output: int) -> tuple[Finding, ...]:
        """The findings in one output (from 0)."""
        return tuple(finding for finding in self.findings if finding.output == output)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the pass flag, and the findings of every output, those without any included."""
        each = [[{"rule": f.rule, "start": f.start, "text": f.text} for f in self.of(i)] for i in range(self.outputs)]
        return {"passed": self.passed, "outputs": [{"passed": not found, "findings": found} for found in each]}


def validate_outputs(outputs: Sequence[str], *, forbidden: Iterable[str] = ()) -> SafetyReport:
    """Check every output for e-mail addresses, phone and card numbers, secrets and ``forbidden`` phrases.

    Phrases are found as whole words, in any case and spacing. Card numbers must satisfy Luhn's check
    (ISO/IEC 7812). Secrets are what ``organon.redact`` would take out of a log, one finding
    each; of two that touch, the second's ``start`` is the character after the first's.

    Raises:
        TypeError: ``outputs`` or ``forbidden`` is one string.
        ValueError: a phrase is empty.
    """
    if isinstance(outputs, str) or isinstance(forbidden, str):
        raise TypeError("outputs and forbidden are lists of strings, not one string")
    phrases = [_phrase(phrase) for phrase in forbidden]
    found = [
        Finding(number, rule, start, text)
        for number, output in enumerate(outputs)
        for start, rule, text in sorted(_findings(output, phrases))
    ]
    return SafetyReport(len(outputs), tuple(found))


def _findings(output: str, phrases: list[re.Pattern[str]]) -> Iterator[tuple[int, str, str]]:
    for match in _EMAIL.finditer(output):
        yield match.start(), "email", _masked(match[0])
    cards = [match for match in _CARD.finditer(output) if _is_card(_digits(match[0]))]
    for match in cards:
        yield match.start(), "card", _masked(match[0])
    for match in _PHONE.finditer(output):
        inside = any(card.start() <= match.start() < card.end() for card in cards)
        if len(_digits(match[0])) in _PHONE_DIGITS and not inside:
            yield match.start(), "phone", _masked(match[0])
    for start in _secrets(output):
        yield start, "secret", REDACTED
    for phrase in phrases:
        for match in phrase.finditer(output):
            yield match.start(), "phrase", match[0]


def _secrets(output: str) -> Iterator[int]:
    """Where each piece of text begins that ``redact`` takes out: what it leaves is found again, from left to right."""
    first, *others = redact(output).split(REDACTED)
    start = len(first)
    for number, kept in enumerate(others, start=1):
        if output.startswith(REDACTED + kept, start):  # the output itself says so
            start += len(REDACTED + kept)
            continue
        yield start
        # A secret has one character or more; what is kept behind the last one is the output's end.
        end = output.find(kept, start + 1) if number < len(others) else len(output) - len(kept)
        if end < 0:
            return
        start = end + len(kept)


def _phrase(phrase: str) -> re.Pattern[str]:
    words = phrase.split()
    if not words:
        raise ValueError("a forbidden phrase is empty")
    return re.compile(r"(?<!\w)" + r"\s+".join(map(re.escape, words)) + r"(?!\w)", re.IGNORECASE)


def _is_card(digits: str) -> bool:
    """Luhn's check: every second digit from the right counts double, and the sum ends in 0."""
    doubled = [int(d) * 2 for d in digits[-2::-2]]
    total = sum(map(int, digits[-1::-2])) + sum(d - 9 if d > 9 else d for d in doubled)
    return total % 10 == 0 and len(set(digits)) > 1


def _digits(text: str) -> str:
    return "".join(character for character in text if character.isdigit())


def _masked(text: str) -> str:
    """The beginning only: a report is kept and shown, and must not spread what it warns of."""
    return text[:_SHOWN] + "*" * (len(text) - _SHOWN)
