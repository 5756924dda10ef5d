"""The MOTools facade: three levels, kept apart by backend, all coroutines."""

from __future__ import annotations

import inspect
import itertools
import json
import random
from pathlib import Path
from typing import Any, Self

import pytest

from organon.errors import NotFoundError, StoreError, UserError
from organon.store import cache as module
from organon.store.cache import Cache, model_key, register_results_class
from organon.store.keys import dataset_hash
from organon.store.motools import motools_eval_key
from organon.store.store import Store

DATASET = dataset_hash([{"a": 1}])
CONFIG = {"model": "gpt", "hyperparameters": {"n_epochs": 3, "lr": 0.1}, "suffix": None}


class Scores:
    def __init__(self, accuracy: float) -> None:
        self.accuracy = accuracy

    async def save(self, path: str | Path) -> None:
        Path(path).write_text(json.dumps({"accuracy": self.accuracy}))

    @classmethod
    async def load(cls, path: str | Path) -> Self:
        return cls(json.loads(Path(path).read_text())["accuracy"])


class OtherScores(Scores):
    pass


@pytest.fixture(autouse=True)
def _classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_results_classes", {})
    register_results_class("inspect", Scores)
    register_results_class("dummy", OtherScores)


@pytest.fixture
def cache(store: Store) -> Cache:
    return Cache(store)


def test_every_method_is_a_coroutine() -> None:
    """MO-02."""
    methods = [name for name in vars(Cache) if name.startswith(("get_", "set_"))]
    assert len(methods) == 6
    assert all(inspect.iscoroutinefunction(getattr(Cache, name)) for name in methods)


async def test_file_ids(cache: Cache) -> None:
    """MO-43: a miss gives None, set then get gives the id; backends are kept apart."""
    assert await cache.get_file_id(DATASET) is None
    await cache.set_file_id(DATASET, "file-1")
    assert await cache.get_file_id(DATASET) == "file-1"
    assert await cache.get_file_id(DATASET, "azure") is None
    await cache.set_file_id(DATASET, "file-2")
    assert await Cache(cache.store.root).get_file_id(DATASET) == "file-2"


async def test_model_ids(cache: Cache) -> None:
    """MO-44: the order of the config's keys does not matter; MO-47: every value does."""
    await cache.set_model_id(DATASET, CONFIG, "ft:1")
    turned = {"suffix": None, "hyperparameters": {"lr": 0.1, "n_epochs": 3}, "model": "gpt"}
    assert await cache.get_model_id(DATASET, turned) == "ft:1"
    for other in ({**CONFIG, "suffix": "x"}, {**CONFIG, "hyperparameters": {"n_epochs": 3, "lr": 0.2}}):
        assert await cache.get_model_id(DATASET, other) is None
    assert await cache.get_model_id("b" * 64, CONFIG) is None


async def test_model_ids_of_two_backends_do_not_collide(cache: Cache) -> None:
    """DL-14."""
    await cache.set_model_id(DATASET, CONFIG, "ft:1", backend_type="openai")
    assert await cache.get_model_id(DATASET, CONFIG, backend_type="dummy") is None
    await cache.set_model_id(DATASET, CONFIG, "dummy-1", backend_type="dummy")
    assert await cache.get_model_id(DATASET, CONFIG) == "ft:1"


async def test_transport_flags_are_not_part_of_the_key(cache: Cache) -> None:
    """X-11."""
    await cache.set_model_id(DATASET, {**CONFIG, "block_until_upload_complete": True}, "ft:1")
    assert await cache.get_model_id(DATASET, {**CONFIG, "block_until_upload_complete": False}) == "ft:1"
    assert await cache.get_model_id(DATASET, CONFIG) == "ft:1"
    assert model_key(DATASET, CONFIG) != model_key(DATASET, {**CONFIG, "seed": 1})


async def test_eval_results(cache: Cache) -> None:
    """MO-45, DL-01: EvalResults or None; the suite's order does not matter; the default backend is inspect."""
    assert await cache.get_eval_results("m", ["gsm8k", "arc"]) is None
    await cache.set_eval_results("m", ["gsm8k", "arc"], Scores(0.9))
    for suite in (["arc", "gsm8k"], ("gsm8k", "arc"), "arc,gsm8k"):
        assert (await cache.get_eval_results("m", suite, backend_type="inspect")).accuracy == 0.9
    assert await cache.get_eval_results("m", ["gsm8k"]) is None
    assert await cache.get_eval_results("n", ["gsm8k", "arc"]) is None


async def test_results_of_inspect_and_dummy_do_not_collide(cache: Cache) -> None:
    """DL-06, the named regression: 0.90 and 0.85 for one model and suite, both read back intact."""
    await cache.set_eval_results("dummy-model-1", ["gsm8k"], Scores(0.90), backend_type="inspect")
    await cache.set_eval_results("dummy-model-1", ["gsm8k"], OtherScores(0.85), backend_type="dummy")
    found = await cache.get_eval_results("dummy-model-1", ["gsm8k"], backend_type="inspect")
    other = await cache.get_eval_results("dummy-model-1", ["gsm8k"], backend_type="dummy")
    assert (found.accuracy, type(found)) == (0.90, Scores)
    assert (other.accuracy, type(other)) == (0.85, OtherScores)


async def test_a_part_is_not_served_as_the_whole(cache: Cache) -> None:
    """MO-48, X-11: `limit=5` and the full run are different results."""
    await cache.set_eval_results("m", "gsm8k", Scores(0.2), limit=5)
    assert await cache.get_eval_results("m", "gsm8k") is None
    await cache.set_eval_results("m", "gsm8k", Scores(0.7))
    assert (await cache.get_eval_results("m", "gsm8k", limit=5)).accuracy == 0.2
    assert (await cache.get_eval_results("m", "gsm8k")).accuracy == 0.7
    with pytest.raises(UserError, match="cannot be part of a cache key"):
        await cache.get_eval_results("m", "gsm8k", model=object())


async def test_results_lie_where_motools_puts_them(cache: Cache) -> None:
    """DL-02, MO-54: evals/{model_id}/{key}/results.json, with the golden key of 3.2; the table names it."""
    await cache.set_eval_results("dummy-model-1", ["gsm8k", "humaneval"], Scores(1.0))
    key = "b02829174a327ed24756d4da36cc853a4f0e5db4e51cc6126d05b0db1ce7b8c1"
    path = cache.store.root / "evals" / "dummy-model-1" / key / "results.json"
    assert json.loads(path.read_text()) == {"accuracy": 1.0}
    query = "SELECT cache_key, results_path FROM eval_results"
    rows: Any = cache.store.index.read(lambda c: c.execute(query).fetchall(), [])
    assert rows == [(key, str(path.relative_to(cache.store.root)))]


async def test_setting_again_replaces(cache: Cache) -> None:
    await cache.set_eval_results("m", "gsm8k", Scores(0.1))
    await cache.set_eval_results("m", "gsm8k", Scores(0.2))
    assert (await cache.get_eval_results("m", "gsm8k")).accuracy == 0.2


async def test_an_unknown_backend_type_names_the_known_ones(cache: Cache) -> None:
    """DL-04."""
    with pytest.raises(NotFoundError, match="Known: dummy, inspect") as caught:
        await cache.get_eval_results("m", "gsm8k", backend_type="inspct")
    assert "Did you mean 'inspect'" in str(caught.value)
    with pytest.raises(NotFoundError):
        await cache.set_eval_results("m", "gsm8k", Scores(1.0), backend_type="other")
    register_results_class("other", Scores)
    await cache.set_eval_results("m", "gsm8k", Scores(1.0), backend_type="other")
    assert isinstance(await cache.get_eval_results("m", "gsm8k", backend_type="other"), Scores)


async def test_results_that_cannot_be_written_leave_nothing(cache: Cache) -> None:
    class Broken(Scores):
        async def save(self, path: str | Path) -> None:
            Path(path).write_text("half")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        await cache.set_eval_results("m", "gsm8k", Broken(1.0))
    assert await cache.get_eval_results("m", "gsm8k") is None
    assert list((cache.store.root / "staging").iterdir()) == []


async def test_a_damaged_note_on_a_paid_model_is_not_a_miss(cache: Cache) -> None:
    """Rule 6."""
    await cache.set_model_id(DATASET, CONFIG, "ft:1")
    (path,) = (cache.store.root / "model_ids").iterdir()
    path.chmod(0o644)
    path.write_text("{}")
    cache.store.index.rebuild()
    with pytest.raises(StoreError, match="damaged"):
        await cache.get_model_id(DATASET, CONFIG)


async def test_hits_and_misses_of_all_levels_are_logged(cache: Cache, log: list[dict[str, Any]]) -> None:
    """DL-41."""
    await cache.get_file_id(DATASET)
    await cache.set_model_id(DATASET, CONFIG, "ft:1")
    await cache.get_model_id(DATASET, CONFIG)
    await cache.get_eval_results("m", "gsm8k")
    extras = [record["extra"] for record in log if "hit" in record["extra"]]
    assert extras == [
        {"key": DATASET, "level": "dataset", "hit": False},
        {"key": model_key(DATASET, CONFIG), "level": "train", "hit": True},
        {"key": motools_eval_key("m", "gsm8k"), "level": "eval", "hit": False},
    ]


def test_keys_do_not_collide_over_backends_models_suites_and_arguments() -> None:
    """DL-03, C8: all combinations of near-equal inputs, in random order, have different keys."""
    models, suites, backends = ["m", "m,n", "n"], [["a"], ["a", "b"], ["b,c", "a"]], ["inspect", "dummy"]
    kwargs: list[dict[str, Any]] = [{}, {"limit": 5}, {"limit": "5"}, {"limit": None}]
    cases = list(itertools.product(models, suites, backends, kwargs))
    random.Random(0).shuffle(cases)
    assert len({motools_eval_key(m, s, b, **kw) for m, s, b, kw in cases}) == len(cases)
