"""From a config to a spec: the rows read, checked, split and stored; the base model named by its content."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loguru import logger

from organon.backends.base import Backend
from organon.config.check import BACKEND_TARGETS
from organon.config.instantiate import instantiate
from organon.config.paths import expand
from organon.config.schema import DatasetConfig, RunConfig
from organon.config.spec import BaseModel, TrainSpec
from organon.data.dataset import Dataset
from organon.data.formats import document_splits, read_rows
from organon.data.splits import check_overlap, repeats_warning, split_rows
from organon.models.folder import resolve_base
from organon.store.store import Store
from organon.zoo.registry import generate

Row = dict[str, Any]


def output_dir(config: Any) -> Path:
    """Where run folders go: ``output_dir``, relative to where the command runs."""
    return expand(config.output_dir, "output_dir")


def open_store(config: Any) -> Store:
    """The store of a config: its ``store``, else ORGANON_STORE, else ``<output_dir>/store``.

    ``offline=true`` is said here, before anything looks at the hub, in the way that every library and the
    worker hear.
    """
    if config.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    if config.store and "://" not in config.store:
        return Store.open(expand(config.store, "store"))
    return Store.open(config.store or os.environ.get("ORGANON_STORE") or output_dir(config) / "store")


def open_backend(config: RunConfig) -> Backend:
    """The training backend that the config names, from the allow-list."""
    allowed = [*BACKEND_TARGETS, *config.allow_targets]
    backend: Backend = instantiate(config.backend, allowed=allowed, where="backend")
    return backend


def resolve(
    config: RunConfig,
    store: Store,
    backend: Backend,
    *,
    rows: Sequence[Row] | None = None,
    validation_rows: Sequence[Row] = (),
    suffix: str | None = None,
    hyperparameters: dict[str, Any] | None = None,
    extra: dict[str, Any] | None = None,
) -> TrainSpec:
    """The spec that ``config`` means today: data in the store, base model named by its content.

    ``rows`` and ``validation_rows``, where given, stand for the config's dataset; ``hyperparameters``
    and ``extra`` are a remote vendor's own.

    Raises:
        DataError: a file, row or field is wrong; nothing has been spent.
        ConfigError: the model cannot be found or does not fit the dataset.
    """
    base = open_base(config, store, backend)
    if rows is None:
        train_rows, held_rows = load_rows(config.dataset)
    else:
        train_rows, held_rows = list(rows), list(validation_rows)
    dataset_hash, dataset_path = store.put_dataset(train_rows)
    validation = store.put_dataset(held_rows) if held_rows else None
    spec = TrainSpec(
        base=base,
        dataset_hash=dataset_hash,
        dataset_path=str(dataset_path),
        validation_hash=validation[0] if validation else None,
        validation_path=str(validation[1]) if validation else None,
        model=config.model,
        dataset=config.dataset,
        adapter=config.adapter,
        optim=config.optim,
        method=config.method,
        store=str(store.root),
        trainer=config.trainer,
        callbacks=config.callbacks,
        logger=config.logger,
        seed=config.seed,
        suffix=suffix,
        hyperparameters=hyperparameters or {},
        extra=extra or {},
    )
    return backend.complete(spec)


def open_base(config: Any, store: Store, backend: Backend) -> BaseModel:
    """The base model of a config: its files for a local backend, only its name for a hosted one."""
    if not backend.local:
        name = config.model.id or config.model.name
        return BaseModel(name=name, digest=f"hosted:{name}", hub_id=name)
    return local_base(config, store, max_length=config.dataset.max_length)


def local_base(config: Any, store: Store, max_length: int | None = None) -> BaseModel:
    """The base model of a config, found on this machine or the hub, quantised as its adapter says."""
    model = config.model
    if model.path:
        model = dataclasses.replace(model, path=str(expand(model.path, "model.path")))
    return resolve_base(model, config.adapter, offline=config.offline, memo=store, max_length=max_length)


def load_rows(dataset: DatasetConfig) -> tuple[list[Row], list[Row]]:
    """Training and validation rows of a dataset config, with its system prompt in both.

    Raises:
        DataError: as the readers do; DATA-021 for rows in both splits.
    """
    rows = _read(dataset, dataset.source, "train")
    if dataset.validation_source is not None:
        validation = _read(dataset, dataset.validation_source, "validation")
        check_overlap(rows, validation)
    elif _has_own_validation(dataset):
        validation = _read(dataset, dataset.source, "validation")
        check_overlap(rows, validation)
    else:
        rows, validation = split_rows(rows, dataset.validation_fraction, dataset.split_seed)
    warning = repeats_warning(rows, where=dataset.source)
    if warning:
        logger.warning("{}", warning)
    if dataset.system_prompt:
        rows, validation = (_with_system_prompt(part, dataset.system_prompt) for part in (rows, validation))
    return rows, validation


def _read(dataset: DatasetConfig, source: str, split: str) -> list[Row]:
    if source.startswith("zoo:"):
        rows = generate(source.removeprefix("zoo:"), **dataset.arguments)
        return [dict(row) for row in rows[: dataset.limit]]
    path = expand(source, "dataset.source")
    reader = read_rows(
        path,
        dataset.format,
        split=split if split in _splits(dataset, path) else "train",
        limit=dataset.limit,
        on_error=dataset.on_error,
        max_skipped_fraction=dataset.max_skipped_fraction,
        input_key=dataset.input_key,
        output_key=dataset.output_key,
    )
    return [dict(row) for row in reader]


def _splits(dataset: DatasetConfig, path: Path) -> list[str]:
    """The splits that one document holds; none for JSON Lines."""
    return document_splits(path) if dataset.format == "instruct" else []


def _has_own_validation(dataset: DatasetConfig) -> bool:
    if dataset.source.startswith("zoo:"):
        return False
    return "validation" in _splits(dataset, expand(dataset.source, "dataset.source"))


def _with_system_prompt(rows: Sequence[Row], text: str) -> list[Row]:
    return Dataset(rows).with_system_prompt(text).to_openai_format()
