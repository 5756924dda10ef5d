"""Base against tuned: hand values, degenerate cases, and how often the interval is right."""

from __future__ import annotations

import json
import math
import random

import pytest

from organon.errors import EvaluationError
from organon.evals.compare import bootstrap_interval, compare, compare_results
from organon.evals.results import EvalResults


def samples(scores, *, scorer="match", epochs=None):
    return [
        {"id": i, "epoch": (epochs[i] if epochs else 1), "scores": {scorer: s}, "error": None}
        for i, s in enumerate(scores)
    ]


def test_means_and_difference_by_hand():
    base, tuned = samples("CIIII"), samples("CCCCI")
    found = compare(base, tuned, "match", task="words", metric="accuracy")
    assert (found.base, found.tuned, found.samples) == (0.2, 0.8, 5)
    assert found.difference == pytest.approx(0.6)
    assert found.low <= 0.6 <= found.high
    assert (found.task, found.metric, found.level) == ("words", "accuracy", 0.95)


def test_interval_of_two_clusters_by_hand():
    """Of the resamples of {0, 1}, a quarter has mean 0, half 0.5, a quarter 1."""
    assert bootstrap_interval([[0.0], [1.0]], level=0.4) == (0.5, 0.5)
    assert bootstrap_interval([[0.0], [1.0]], level=0.9) == (0.0, 1.0)


def test_interval_equals_the_binomial_it_resamples():
    """50 zeros and 50 ones: resampled means are Binomial(100, 0.5) / 100; its 2.5 % quantiles are 0.40 and 0.60."""
    low, high = bootstrap_interval([[float(i % 2)] for i in range(100)], resamples=20_000)
    assert (low, high) == (0.40, 0.60)


def test_the_same_seed_gives_the_same_interval():
    base, tuned = samples("CIICIICIII" * 3), samples("CCICCIIICI" * 3)
    one = compare(base, tuned, "match", seed=1)
    assert compare(list(reversed(base)), tuned, "match", seed=1) == one
    values = [[0.1], [0.5], [0.7], [0.25], [1.5]]
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_equal_differences_give_an_interval_of_no_width():
    found = compare(samples("IIII"), samples("CCCC"), "match")
    assert (found.difference, found.low, found.high) == (1.0, 1.0, 1.0)


def test_one_sample_gives_no_interval():
    found = compare(samples("I"), samples("C"), "match")
    assert found.difference == 1.0
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["low"] is None


def test_unpaired_and_failed_samples_are_left_out_and_counted():
    base = samples("CIC")
    tuned = samples("CCCC")
    tuned[2]["error"] = "boom"
    tuned[1]["scores"] = {"match": math.nan}
    found = compare(base, tuned, "match")
    assert (found.samples, found.unpaired) == (1, 3)
    with pytest.raises(EvaluationError, match="no sample has a score by 'nope' on both sides"):
        compare(base, tuned, "nope")


def test_epochs_of_a_sample_are_one_cluster():
    """10 samples repeated 20 times are 10 independent draws: the interval must not shrink."""
    random.seed(0)
    values = [float(random.random() < 0.5) for _ in range(10)]
    once = [{"id": i, "epoch": 1, "scores": {"m": v}} for i, v in enumerate(values)]
    often = [{"id": i, "epoch": e, "scores": {"m": v}} for e in range(20) for i, v in enumerate(values)]
    zero = [{**s, "scores": {"m": 0.0}} for s in often]
    narrow = compare([{**s, "scores": {"m": 0.0}} for s in once], once, "m")
    wide = compare(zero, often, "m")
    assert wide.samples == 200
    assert wide.difference == pytest.approx(narrow.difference)
    assert wide.high - wide.low == pytest.approx(narrow.high - narrow.low, abs=0.02)


def test_clusters_of_unequal_size_weigh_by_their_samples():
    found = compare(
        [{"id": "a", "epoch": e, "scores": {"m": 0}} for e in (1, 2, 3)]
        + [{"id": "b", "epoch": 1, "scores": {"m": 0}}],
        [{"id": "a", "epoch": e, "scores": {"m": 1}} for e in (1, 2, 3)]
        + [{"id": "b", "epoch": 1, "scores": {"m": 0}}],
        "m",
    )
    assert found.difference == 0.75
    assert (found.low, found.high) == (0.0, 1.0)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """Paired right/wrong answers, n = 60, true difference 0.2: 95 % intervals, 200 draws."""
    rng = random.Random(7)
    hits = 0
    for draw in range(200):
        differences = [[rng.choices([1.0, 0.0, -1.0], [0.3, 0.6, 0.1])[0]] for _ in range(60)]
        low, high = bootstrap_interval(differences, resamples=1000, seed=draw)
        hits += low <= 0.2 <= high
    assert 0.90 <= hits / 200 <= 0.985


def test_every_scorer_of_every_common_task_is_compared():
    def result(a, b):
        rows = [
            {"id": i, "epoch": 1, "scores": {"match": x, "judge": {"tone": y}}}
            for i, (x, y) in enumerate([(a, b), ("C", 0.5)])
        ]
        return {"metrics": {"match/accuracy": 0.5, "judge/tone/mean": 0.5}, "samples": rows}

    base = EvalResults("b", {"one": result("I", 0.0), "only base": result("I", 0.0)})
    tuned = EvalResults("t", {"one": result("C", 1.0), "only tuned": result("C", 1.0)})
    rows = compare_results(base, tuned, resamples=100)
    assert [(r.task, r.metric, r.difference) for r in rows] == [
        ("one", "match/accuracy", 0.5),
        ("one", "judge/tone/mean", 0.5),
    ]
