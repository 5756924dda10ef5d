"""Sample outputs of base and tuned model, shaped for the report: shortened, marked, sorted into filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_TEXT = 600  # characters of a sample's text shown
MAX_SAMPLES = 25  # of a task shown
_RIGHT = {"c": True, "i": False, "n": False, "yes": True, "no": False, "true": True, "false": False}

Samples = Mapping[str, Sequence[Mapping[str, Any]]]  # task -> input, target, base_output, base_score ...


@dataclass(frozen=True)
class Text:
    """A text as shown: its beginning, and how many characters were left out."""

    text: str
    left_out: int = 0


@dataclass(frozen=True)
class Output:
    """What a model answered, and whether that was right (None: partly right, or not scored as such)."""

    text: Text
    right: bool | None
    score: str


@dataclass(frozen=True)
class Sample:
    """One row of the sample table."""

    input: Text
    target: Text
    base: Output | None
    tuned: Output | None
    kinds: tuple[str, ...]  # the filters that show it


def shown(samples: Samples) -> dict[str, list[Sample]]:
    """The first samples of every task that has any."""
    return {task: [_row(sample) for sample in rows[:MAX_SAMPLES]] for task, rows in samples.items() if rows}


def _row(sample: Mapping[str, Any]) -> Sample:
    base, tuned = _output(sample, "base"), _output(sample, "tuned")
    before, after = (output.right if output else None for output in (base, tuned))
    kinds = {
        "newly-right": before is False and after is True,
        "newly-wrong": before is True and after is False,
        "tuned-wrong": after is False,
    }
    return Sample(
        input=cut(sample.get("input")),
        target=cut(sample.get("target")),
        base=base,
        tuned=tuned,
        kinds=tuple(kind for kind, holds in kinds.items() if holds),
    )


def _output(sample: Mapping[str, Any], model: str) -> Output | None:
    text, score = sample.get(f"{model}_output"), sample.get(f"{model}_score")
    if text is None and score is None:
        return None
    right = _is_right(score)
    return Output(cut(text), right, "" if right is not None or score is None else str(score))


def _is_right(score: Any) -> bool | None:
    if isinstance(score, (bool, int, float)):
        return True if score == 1 else False if score == 0 else None
    return _RIGHT.get(str(score).strip().lower())


def cut(value: Any, limit: int = MAX_TEXT) -> Text:
    if isinstance(value, (list, tuple)):  # Inspect allows several targets
        value = "\n".join(map(str, value))
    text = "" if value is None else str(value)
    # A note that is longer than what it stands for would not help.
    return Text(text[:limit], len(text) - limit) if len(text) > limit + 40 else Text(text)


def filters(tasks: Mapping[str, list[Sample]]) -> list[tuple[str, str, int]]:
    """Id, label and count of the sample filters; none where they would all show the same."""
    kinds = [kind for rows in tasks.values() for row in rows for kind in row.kinds]
    names = {"newly-right": "newly right", "newly-wrong": "newly wrong", "tuned-wrong": "tuned wrong"}
    every = sum(map(len, tasks.values()))
    return [("all", "all", every), *((kind, name, kinds.count(kind)) for kind, name in names.items())] if kinds else []
