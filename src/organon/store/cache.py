"""``Cache``: the store as MOTools' three-level cache, with file ids, model ids and evaluation results.

Source: github.com/obalcells/motools, ``cache/``; requirements MO-42..54 and DL-01..06. Every level is
kept apart by backend. Unlike MOTools, an evaluation's key covers its ``inspect_kwargs``, and flags that
only steer an upload are not part of a training's key.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from organon.errors import unknown
from organon.store.keys import KEY_SCHEMA, canonical, sha256_text
from organon.store.motools import motools_eval_key
from organon.store.store import Store

RESULTS = "results.json"
TRANSPORT_FLAGS = frozenset({"block_until_upload_complete"})  # they do not change what is trained


class Results(Protocol):
    """Evaluation results that can be written to a file and read from it."""

    @classmethod
    async def load(cls, path: str | Path) -> Self:
        """The results in the file ``path``."""
        ...

    async def save(self, path: str | Path) -> None:
        """Write the results to the file ``path``."""
        ...


_results_classes: dict[str, type[Results]] = {}


def register_results_class(backend_type: str, cls: type[Results]) -> None:
    """Let ``Cache.get_eval_results(..., backend_type)`` return ``cls``; replaces an earlier class."""
    _results_classes[backend_type] = cls


def model_key(dataset_hash: str, config: dict[str, Any], backend_type: str = "openai") -> str:
    """Key of a training for ``get_model_id``; the order of ``config`` does not matter, transport flags neither."""
    settings = {name: value for name, value in config.items() if name not in TRANSPORT_FLAGS}
    identity = {"schema": KEY_SCHEMA, "dataset": dataset_hash, "config": settings, "backend": backend_type}
    return sha256_text(canonical(identity))


class Cache:
    """What was uploaded, trained and evaluated before, in ``store`` (a Store, a folder, or the default one)."""

    def __init__(self, store: Store | str | Path | None = None) -> None:
        self.store = store if isinstance(store, Store) else Store.open(store)

    async def get_file_id(self, dataset_hash: str, backend_type: str = "openai") -> str | None:
        """The id under which a dataset was uploaded; None if it was not."""
        return await asyncio.to_thread(self.store.link, "file_ids", (backend_type, dataset_hash))

    async def set_file_id(self, dataset_hash: str, file_id: str, backend_type: str = "openai") -> None:
        """Note the id of an uploaded dataset."""
        ident = (backend_type, dataset_hash)
        await asyncio.to_thread(self.store.set_link, "file_ids", ident, file_id, backend=backend_type)

    async def get_model_id(self, dataset_hash: str, config: dict[str, Any], backend_type: str = "openai") -> str | None:
        """The model that was trained on a dataset with a config; None if there is none.

        Raises:
            StoreError: the note is damaged; it is not taken for "not trained yet" (CACHE-078).
        """
        return await asyncio.to_thread(self.store.link, "model_ids", model_key(dataset_hash, config, backend_type))

    async def set_model_id(
        self, dataset_hash: str, config: dict[str, Any], model_id: str, backend_type: str = "openai"
    ) -> None:
        """Note a trained model. Only for trainings that succeeded."""
        key = model_key(dataset_hash, config, backend_type)
        await asyncio.to_thread(self.store.set_link, "model_ids", key, model_id, backend=backend_type)

    async def get_eval_results(
        self, model_id: str, eval_suite: str | Sequence[str], backend_type: str = "inspect", **inspect_kwargs: Any
    ) -> Any:
        """The results of a suite on a model, as the class registered for the backend; None if there are none.

        The order of a list of tasks does not matter.

        Raises:
            NotFoundError: no results class is registered for ``backend_type``.
        """
        cls = _results_class(backend_type)
        key = motools_eval_key(model_id, eval_suite, backend_type, **inspect_kwargs)
        entry = await asyncio.to_thread(self.store.find, "evals", (model_id, key))
        return None if entry is None else await cls.load(entry.path / RESULTS)

    async def set_eval_results(
        self,
        model_id: str,
        eval_suite: str | Sequence[str],
        results: Results,
        backend_type: str = "inspect",
        **inspect_kwargs: Any,
    ) -> None:
        """Store the results of a suite on a model; replaces earlier ones.

        Raises:
            NotFoundError: no results class is registered for ``backend_type``, so nobody could read them.
        """
        _results_class(backend_type)
        ident = (model_id, motools_eval_key(model_id, eval_suite, backend_type, **inspect_kwargs))
        labels = {"model": model_id, "backend": backend_type}
        stack = contextlib.ExitStack()
        folder = await asyncio.to_thread(stack.enter_context, self.store.scratch())
        try:
            await results.save(folder / RESULTS)
            await asyncio.to_thread(self._replace, ident, folder, labels)
        finally:
            await asyncio.to_thread(stack.close)

    def _replace(self, ident: tuple[str, str], folder: Path, labels: dict[str, str]) -> None:
        if self.store.place("evals", ident).exists():
            self.store.discard("evals", ident)
        self.store.publish("evals", ident, folder, labels=labels)


def _results_class(backend_type: str) -> type[Results]:
    if backend_type not in _results_classes:
        raise unknown(
            "evaluation backend",
            backend_type,
            _results_classes,
            code="CACHE-089",
            fix="register_results_class(backend_type, cls) with a class that has async load(path) and save(path)",
        )
    return _results_classes[backend_type]
