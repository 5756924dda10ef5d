"""Evaluating: a suite on models that were just trained, or on any model by its id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from organon.config.schema import EvalConfig, EvaluateConfig
from organon.evals.results import EvalResults
from organon.evals.run import evaluate_suite
from organon.evals.target import EvalModel, resolve_model
from organon.pipeline.events import OnEvent, ignore
from organon.pipeline.resolve import local_base, open_store
from organon.store.store import Store


@dataclass(frozen=True)
class Scored:
    """Scores of one model on one suite."""

    results: EvalResults
    cached: bool
    logs: dict[str, str]  # task -> its .eval file in the store


async def evaluate(config: EvaluateConfig, *, on_event: OnEvent = ignore) -> Scored:
    """Score ``config.target`` (default: the base model in ``config.model``) on ``config.eval``."""
    store = open_store(config)
    if config.target is None:
        model = EvalModel.of_base(local_base(config, store))
    else:
        model = resolve_model(config.target, store)
    (results,) = await evaluate_models([model], config.eval, store, on_event)
    tasks: dict[str, Any] = results.metadata["tasks"]
    cached = all(task["cached"] for task in tasks.values())
    return Scored(results, cached, {label: str(task["log"]) for label, task in tasks.items()})


async def evaluate_models(
    models: Sequence[EvalModel],
    suite: EvalConfig,
    store: Store,
    on_event: OnEvent = ignore,
    *,
    device: str | None = None,
) -> list[EvalResults]:
    """Scores of each model on each task, from the store where it has them."""

    counts: dict[str, tuple[int, int]] = {}
    expected = len(suite.tasks)

    def progress(label: str, done: int, total: int) -> None:
        counts[label] = (done, total)
        done, total = (sum(numbers) for numbers in zip(*counts.values(), strict=True))
        known = total if len(counts) == expected else None  # tasks that have not begun have not said their size
        on_event("evaluate", label="evaluating", done=done, total=known, detail=label)

    return await evaluate_suite(models, suite, store, on_progress=progress, device=device)
