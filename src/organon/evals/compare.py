"""Base against tuned, sample by sample: the mean paired difference and its bootstrap interval.

The interval is Efron's percentile bootstrap (Efron & Tibshirani 1993, chapter 13). Repeats of a
sample (Inspect's epochs) are no independent draws, so whole samples are resampled with all their
epochs (cluster bootstrap; Cameron, Gelbach & Miller 2008).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from organon.errors import EvaluationError
from organon.evals.results import EvalResults, flat_scores, score_value

_MEANS = ("accuracy", "mean")  # Inspect's metrics that are the mean of the sample scores
_CHUNK = 2**20  # drawn clusters held at a time


@dataclass(frozen=True)
class Comparison:
    """One metric of one task on two models, over the samples that both have a score for."""

    task: str
    metric: str
    base: float  # mean over the paired samples
    tuned: float
    difference: float  # tuned - base
    low: float  # interval of the difference; NaN where a single sample gives none
    high: float
    samples: int  # pairs of (id, epoch)
    unpaired: int = 0  # scored on one side only
    level: float = 0.95

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, NaN as null."""
        plain = dataclasses.asdict(self)
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in plain.items()}


def compare(
    base_samples: Iterable[dict[str, Any]],
    tuned_samples: Iterable[dict[str, Any]],
    scorer: str,
    *,
    task: str = "",
    metric: str = "mean",
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Comparison:
    """Pair samples by ``(id, epoch)`` and compare their ``scorer`` values.

    ``scorer`` names an entry of the samples' ``scores`` (``scorer/key`` for one value of a dict).
    Samples with an error or without a number are left out and counted as ``unpaired`` if the other
    side has them. Raises EvaluationError when no pair is left.
    """
    base, tuned = _values(base_samples, scorer), _values(tuned_samples, scorer)
    pairs = sorted(base.keys() & tuned.keys(), key=lambda pair: (str(pair[0]), pair[1]))
    if not pairs:
        raise EvaluationError(
            f"no sample has a score by '{scorer}' on both sides ({len(base)} on base, {len(tuned)} on tuned)",
            code="EVAL-PAIRS",
            where=task,
            fix="evaluate both models on the same task with the same limit",
        )
    clusters: dict[str, list[float]] = {}
    for pair in pairs:
        clusters.setdefault(repr(pair[0]), []).append(tuned[pair] - base[pair])
    low, high = bootstrap_interval(list(clusters.values()), resamples=resamples, seed=seed, level=level)
    base_mean = math.fsum(base[pair] for pair in pairs) / len(pairs)
    tuned_mean = math.fsum(tuned[pair] for pair in pairs) / len(pairs)
    difference = math.fsum(tuned[pair] - base[pair] for pair in pairs) / len(pairs)
    unpaired = len(base.keys() ^ tuned.keys())
    return Comparison(
        task, metric, base_mean, tuned_mean, difference, low, high, len(pairs), unpaired=unpaired, level=level
    )


def compare_results(base: EvalResults, tuned: EvalResults, **options: Any) -> list[Comparison]:
    """Every scorer of every task that both models ran; ``options`` as for ``compare``."""
    rows = []
    for task, result in tuned.results.items():
        if task not in base.results:
            continue
        for scorer, metric in _metrics(result).items():
            rows.append(
                compare(base.results[task]["samples"], result["samples"], scorer, task=task, metric=metric, **options)
            )
    return rows


def bootstrap_interval(
    clusters: Sequence[Sequence[float]], *, resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean over all values, resampling clusters with replacement.

    ``clusters``: one list of values per independent unit. A single cluster gives ``(nan, nan)``,
    equal values give that value twice. The same seed gives the same interval.
    """
    import numpy as np

    sums = np.array([math.fsum(c) for c in clusters])
    sizes = np.array([len(c) for c in clusters], dtype=float)
    values = [value for cluster in clusters for value in cluster]
    if len(clusters) < 2:
        return math.nan, math.nan
    if min(values) == max(values):
        return values[0], values[0]
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // len(clusters))
    means = []
    for start in range(0, resamples, step):
        drawn = rng.integers(len(clusters), size=(min(step, resamples - start), len(clusters)))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def _values(samples: Iterable[dict[str, Any]], scorer: str) -> dict[tuple[Any, int], float]:
    values = {}
    for sample in samples:
        value = None if sample.get("error") else score_value(flat_scores(sample.get("scores") or {}).get(scorer))
        if value is not None and math.isfinite(value):
            values[sample["id"], int(sample.get("epoch", 1))] = value
    return values


def _metrics(result: dict[str, Any]) -> dict[str, str]:
    """Scorer name -> the name its mean has in ``result["metrics"]``, or ``mean``."""
    names = dict.fromkeys(name for s in result["samples"] for name in flat_scores(s.get("scores") or {}))
    known = result.get("metrics", {})
    chosen = {}
    for name in names:
        prefix = f"{name}/" if len(names) > 1 else ""
        chosen[name] = next((prefix + mean for mean in _MEANS if prefix + mean in known), f"{prefix}mean")
    return chosen
