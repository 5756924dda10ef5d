"""What an evaluation yields, as plain JSON values: read and written without Inspect."""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from organon.errors import EvaluationError
from organon.store.cache import register_results_class

if TYPE_CHECKING:
    import pandas as pd

# Inspect's letters (inspect_ai.scorer.value_to_float): correct, incorrect, partial, no answer.
_LETTERS = {"c": 1.0, "i": 0.0, "p": 0.5, "n": 0.0, "yes": 1.0, "no": 0.0, "true": 1.0, "false": 0.0}
_FLOAT = "$float"


def encode(value: Any) -> Any:
    """``value`` with NaN and infinities as ``{"$float": "nan"}``, which strict JSON can carry."""
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: repr(value)}
    if isinstance(value, dict):
        return {str(k): encode(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    return value


def decode(value: Any) -> Any:
    """The inverse of ``encode``."""
    if isinstance(value, dict):
        if set(value) == {_FLOAT}:
            return float(value[_FLOAT])
        return {k: decode(v) for k, v in value.items()}
    if isinstance(value, list):
        return [decode(item) for item in value]
    return value


def score_value(value: Any) -> float | None:
    """A sample's score as a number, or None where it is none (as Inspect's ``value_to_float``)."""
    if isinstance(value, (bool, int, float)):
        return float(value)
    if not isinstance(value, str):
        return None
    if value.strip().lower() in _LETTERS:
        return _LETTERS[value.strip().lower()]
    try:
        return float(value)
    except ValueError:
        return None


def flat_scores(scores: dict[str, Any]) -> dict[str, Any]:
    """Scores by name, a scorer's dict of values as ``scorer/key`` each."""
    flat: dict[str, Any] = {}
    for scorer, value in scores.items():
        if isinstance(value, dict):
            flat.update({f"{scorer}/{key}": item for key, item in value.items()})
        else:
            flat[scorer] = value
    return flat


@dataclass(eq=False)
class EvalResults:
    """Scores of one model on some tasks.

    ``results[task]`` holds ``metrics`` (name -> value), ``scores`` (scorer -> metric -> value),
    ``samples``, ``stats`` and the counts ``samples_total``, ``samples_scored``, ``samples_failed``.
    """

    model_id: str
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        # By JSON text, so that a NaN equals a NaN.
        return isinstance(other, EvalResults) and self._text(sort_keys=True) == other._text(sort_keys=True)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def to_dict(self) -> dict[str, Any]:
        """Everything as strict JSON values."""
        plain = {"model_id": self.model_id, "results": self.results, "metadata": self.metadata}
        return dict(encode(plain))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EvalResults:
        """The results back from ``to_dict``."""
        plain = decode(data)
        return cls(plain["model_id"], plain["results"], plain.get("metadata", {}))

    async def save(self, path: str | Path) -> None:
        """Write one JSON file, whole or not at all."""
        await asyncio.to_thread(_write, Path(path), self._text(indent=2))

    @classmethod
    async def load(cls, path: str | Path) -> EvalResults:
        """Read what ``save`` wrote. Raises EvaluationError for a file that is none of ours."""
        try:
            return cls.from_dict(json.loads(await asyncio.to_thread(Path(path).read_text, "utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise EvaluationError(
                f"no evaluation results can be read: {type(error).__name__}: {error}",
                code="EVAL-LOAD",
                where=str(path),
                fix="give a file written by EvalResults.save()",
            ) from error

    def summary(self) -> pd.DataFrame:
        """One row per task: column ``task`` and one column per metric."""
        import pandas as pd

        rows = [{"task": task, **result.get("metrics", {})} for task, result in self.results.items()]
        return pd.DataFrame(rows, columns=["task", *dict.fromkeys(k for row in rows for k in row if k != "task")])

    def get_failures(self, task: str | None = None) -> list[dict[str, Any]]:
        """Samples that ended in an error or that some scorer gave zero, each with its ``task``."""
        return [
            {"task": name, **sample}
            for name, result in self.results.items()
            if task in (None, name)
            for sample in result.get("samples", [])
            if sample.get("error") or 0.0 in map(score_value, flat_scores(sample.get("scores") or {}).values())
        ]

    def _text(self, **layout: Any) -> str:
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False, **layout)


def collate(results: Iterable[EvalResults]) -> pd.DataFrame:
    """One row per model and task: columns ``model_id``, ``task`` and one per metric (MO-60)."""
    import pandas as pd

    frames = [each.summary().assign(model_id=each.model_id) for each in results]
    if not frames:
        return pd.DataFrame(columns=["model_id", "task"])
    table = pd.concat(frames, ignore_index=True)
    return table[["model_id", "task", *(c for c in table.columns if c not in ("model_id", "task"))]]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


for _backend in ("inspect", "fake"):
    register_results_class(_backend, EvalResults)
