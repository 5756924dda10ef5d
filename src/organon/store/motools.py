"""The cache keys of MOTools at the documented version, bit for bit, so that its ids stay valid.

Source: github.com/obalcells/motools (``cache/cache.py``); golden values in the tests. The rule is
sha256 of ``json.dumps(d, sort_keys=True)``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from organon.store.keys import canonical, sha256_text


def motools_config(
    model: str, hyperparameters: dict[str, Any] | None = None, suffix: str | None = None, **kwargs: Any
) -> dict[str, Any]:
    """The training config that MOTools hashes; ``kwargs`` include ``block_until_upload_complete``."""
    return {"model": model, "hyperparameters": hyperparameters or {}, "suffix": suffix, **kwargs}


def motools_model_key(dataset_hash: str, config: dict[str, Any], backend_type: str = "openai") -> str:
    """MOTools' key of a training."""
    return _hash({"dataset": dataset_hash, "config": config, "backend": backend_type})


def motools_eval_key(
    model_id: str, eval_suite: str | Sequence[str], backend_type: str = "inspect", **inspect_kwargs: Any
) -> str:
    """MOTools' key of an evaluation.

    ``inspect_kwargs`` join the key when there are any; MOTools leaves them out and so serves a run
    with ``limit=5`` as a full one.
    """
    suite = eval_suite if isinstance(eval_suite, str) else ",".join(sorted(eval_suite))
    identity: dict[str, Any] = {"model": model_id, "eval_suite": suite, "backend": backend_type}
    if inspect_kwargs:
        identity["kwargs"] = canonical(inspect_kwargs)
    return _hash(identity)


def _hash(value: dict[str, Any]) -> str:
    return sha256_text(json.dumps(value, sort_keys=True, allow_nan=False))
