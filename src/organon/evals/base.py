"""The evaluation seam: a backend turns a model id and a suite of tasks into ``EvalResults``."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from organon.evals.results import EvalResults


@runtime_checkable
class EvalBackend(Protocol):
    """Evaluates models. No backend knows the cache: its caller looks there first."""

    name: str  # namespace in every evaluation key, such as `inspect` or `fake`

    def fingerprint(self, model_id: str, eval_suite: str | list[str]) -> dict[str, Any]:
        """What decides the scores besides the names: the sources of the tasks, the content of the model.

        Part of the cache key. Raises NotFoundError for an unknown task or model of ours.
        """
        ...

    async def evaluate(self, model_id: str, eval_suite: str | list[str], **inspect_kwargs: Any) -> EvalResults:
        """Score ``model_id`` on one task or several.

        Raises NotFoundError for an unknown task before any model call, EvaluationError when a task
        yields no score at all.
        """
        ...
