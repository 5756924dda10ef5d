"""The evaluation seam, the fake behind it, and the cache in front of it."""

from __future__ import annotations

import pytest

from organon.evals.base import EvalBackend
from organon.evals.fake import FakeEvalBackend
from organon.evals.inspect_backend import InspectBackend
from organon.evals.results import EvalResults
from organon.store.cache import Cache


def test_both_backends_fit_the_protocol_and_are_told_apart_by_name():
    """MO-64, DL-05."""
    backends: list[EvalBackend] = [FakeEvalBackend(), InspectBackend()]
    assert all(isinstance(b, EvalBackend) for b in backends)
    assert [b.name for b in backends] == ["fake", "inspect"]


async def test_the_fake_is_deterministic_and_takes_a_string_or_a_list():
    """MO-28, MO-64."""
    one = await FakeEvalBackend().evaluate("m", "gsm8k")
    assert one == await FakeEvalBackend().evaluate("m", ["gsm8k"])
    assert one != await FakeEvalBackend().evaluate("other", "gsm8k")
    both = await FakeEvalBackend().evaluate("m", ["gsm8k", "humaneval", "gsm8k"])
    assert list(both.results) == ["gsm8k", "humaneval"]
    assert list(both.summary()["task"]) == ["gsm8k", "humaneval"]


async def test_the_fake_gives_what_it_is_told_and_as_many_samples_as_asked():
    """MO-29."""
    backend = FakeEvalBackend({"gsm8k": 0.5, ("m", "gsm8k"): 0.85})
    results = await backend.evaluate("m", "gsm8k")
    assert results.results["gsm8k"]["metrics"] == {"accuracy": 0.85}
    assert len(results.get_failures()) == 15
    assert (await backend.evaluate("x", "gsm8k")).results["gsm8k"]["metrics"] == {"accuracy": 0.5}
    assert len((await backend.evaluate("m", "gsm8k", limit=3)).results["gsm8k"]["samples"]) == 3
    assert backend.calls[-1] == ("m", ("gsm8k",), {"limit": 3})


async def test_fake_and_inspect_results_of_one_model_do_not_collide(tmp_path):
    """DL-06, DL-01, DL-02, DL-04, MO-45: 0.90 by inspect and 0.85 by fake are both read back."""
    cache = Cache(tmp_path / "store")
    real = EvalResults("m", {"gsm8k": {"metrics": {"accuracy": 0.90}, "samples": []}})
    fake = await FakeEvalBackend({"gsm8k": 0.85}).evaluate("m", "gsm8k")
    await cache.set_eval_results("m", "gsm8k", real)
    await cache.set_eval_results("m", "gsm8k", fake, "fake")
    assert await cache.get_eval_results("m", "gsm8k") == real
    assert await cache.get_eval_results("m", ["gsm8k"], backend_type="fake") == fake
    assert await cache.get_eval_results("m", "gsm8k", limit=5) is None


@pytest.mark.parametrize("model_id", ["openai/gpt-4o", "ft:gpt-4o-mini:org::abc", "organon/tiny"])
async def test_an_unknown_task_is_refused_before_any_model_is_made(model_id, tmp_path):
    """MO-28."""
    from organon.errors import NotFoundError
    from organon.store.store import Store

    with pytest.raises(NotFoundError, match="no module 'no_such_module'"):
        await InspectBackend(Store(tmp_path)).evaluate(model_id, "no_such_module:words")
