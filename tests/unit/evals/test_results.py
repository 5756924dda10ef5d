"""EvalResults: values in, values out."""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from organon.errors import EvaluationError
from organon.evals.results import EvalResults, collate, decode, encode, score_value


def sample(ident, score, *, epoch=1, error=None):
    return {
        "id": ident,
        "epoch": epoch,
        "input": "q",
        "target": "t",
        "output": "o",
        "scores": {"match": score} if score is not None else {},
        "error": error,
    }


def results() -> EvalResults:
    return EvalResults(
        "organon/abc",
        {
            "words": {
                "metrics": {"accuracy": 0.5, "stderr": math.nan},
                "scores": {"match": {"accuracy": 0.5}, "judge/tone": {"mean": math.inf}},
                "samples": [
                    sample(1, "C"),
                    sample("two", "I"),
                    sample(3, None, error="boom"),
                    sample(4, {"a": math.nan}),
                ],
            },
            "arithmetic": {"metrics": {"accuracy": 1.0}, "samples": []},
        },
        {"limit": 4},
    )


async def test_save_then_load_gives_equal_results_with_nan_and_nested_metrics(tmp_path):
    """MO-31, MO-30."""
    path = tmp_path / "deep" / "results.json"
    await results().save(path)
    loaded = await EvalResults.load(path)
    assert loaded == results()
    assert math.isnan(loaded.results["words"]["metrics"]["stderr"])
    assert loaded.results["words"]["scores"]["judge/tone"]["mean"] == math.inf
    assert math.isnan(loaded.results["words"]["samples"][3]["scores"]["match"]["a"])
    assert list(loaded.results) == ["words", "arithmetic"]
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]


async def test_saved_file_is_strict_json(tmp_path):
    """MO-30: other programs read it, so no bare NaN."""
    await results().save(tmp_path / "r.json")

    def refuse(constant):
        raise AssertionError(constant)

    json.loads((tmp_path / "r.json").read_text(), parse_constant=refuse)


def test_results_that_differ_are_not_equal():
    other = results()
    other.results["words"]["metrics"]["accuracy"] = 0.25
    assert other != results()
    assert results() == results()


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"results": {}}', "{"])
async def test_a_file_that_is_none_of_ours_says_so(tmp_path, content):
    path = tmp_path / "r.json"
    path.write_text(content)
    with pytest.raises(EvaluationError, match=r"r\.json: no evaluation results can be read") as caught:
        await EvalResults.load(path)
    assert pickle.loads(pickle.dumps(caught.value)).where == str(path)


def test_summary_has_a_row_per_task_and_a_column_per_metric():
    """MO-32."""
    table = results().summary()
    assert list(table.columns) == ["task", "accuracy", "stderr"]
    assert list(table["task"]) == ["words", "arithmetic"]
    assert list(table["accuracy"]) == [0.5, 1.0]
    assert math.isnan(table["stderr"][1])
    assert list(EvalResults("m").summary().columns) == ["task"]


def test_failures_are_the_errors_and_the_zero_scores():
    failures = results().get_failures()
    assert [(f["task"], f["id"]) for f in failures] == [("words", "two"), ("words", 3)]
    assert results().get_failures("arithmetic") == []


def test_collate_puts_models_below_each_other():
    """MO-60."""
    table = collate([results(), EvalResults("b", {"words": {"metrics": {"f1": 0.1}}})])
    assert list(table.columns) == ["model_id", "task", "accuracy", "stderr", "f1"]
    assert list(table["model_id"]) == ["organon/abc", "organon/abc", "b"]
    assert list(collate([]).columns) == ["model_id", "task"]


@pytest.mark.parametrize(
    ("value", "number"),
    [("C", 1), ("I", 0), ("P", 0.5), ("N", 0), (True, 1), (0.25, 0.25), ("0.5", 0.5), ("yes", 1), ("what", None)],
)
def test_scores_as_inspect_counts_them(value, number):
    from inspect_ai.scorer import value_to_float

    assert score_value(value) == number
    if number is not None:
        assert value_to_float()(value) == number


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=50, deadline=None)
@given(json_values)
def test_decode_undoes_encode_through_json(value):
    assert decode(json.loads(json.dumps(encode(value), allow_nan=False))) == value


def test_nothing_heavy_is_imported():
    """A cache hit imports neither Inspect nor torch nor pandas."""
    code = (
        "import sys; import organon.evals.results, organon.evals.compare, organon.evals.suite, organon.evals.run,"
        " organon.evals.fake, organon.evals.base, organon.evals.inspect_backend, organon.evals.generation,"
        " organon.evals.batching, organon.evals.target;"
        "print([m for m in ('torch', 'inspect_ai', 'pandas', 'numpy', 'transformers', 'peft') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
