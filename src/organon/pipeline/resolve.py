"""From a config to a spec: the rows read, checked, split and stored; the base model named by its content."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loguru import logger

from organon.backends.base import Backend
from organon.config.check import BACKEND_TARGETS
from organon.config.instantiate import instantiate
from organon.config.paths import check_folder, expand
from organon.config.schema import CallbacksConfig, DatasetConfig, MethodConfig, RunConfig
from organon.config.spec import BaseModel, TrainSpec
from organon.config.user_code import absolute_target, locate, reference_of
from organon.data.balance import Label, balance
from organon.data.formats import RowReader, document_splits, read_rows
from organon.data.messages import quote
from organon.data.rows import add_system_prompt, kind_of_row
from organon.data.splits import check_overlap, repeats_warning, split_rows
from organon.errors import ConfigError, DataError
from organon.models.folder import resolve_base
from organon.store.store import Store
from organon.zoo.registry import generate

Row = dict[str, Any]
# What the readers of a dataset's source heed, and nobody where rows are given.
OF_A_SOURCE = (
    "validation_source", "validation_fraction", "split_seed", "input_key", "output_key", "limit", "balance_by",
    "balance_ratio", "on_error", "max_skipped_fraction",
)  # fmt: skip


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
    check_folder(output_dir(config), "output_dir")
    place, key = output_dir(config) / "store", "output_dir"
    if named := config.store or os.environ.get("ORGANON_STORE"):
        if "://" in named:
            return Store.open(named)  # which refuses it
        place, key = (expand(named, "store"), "store") if config.store else (Path(named).absolute(), "ORGANON_STORE")
    check_folder(place, key)
    return Store.open(place)


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

    ``rows`` and ``validation_rows``, where given, stand for the config's dataset, and its system prompt goes
    before them; ``hyperparameters`` and ``extra`` are a remote vendor's own.

    Raises:
        DataError: a file, row or field is wrong; nothing has been spent.
        ConfigError: the model cannot be found or does not fit the dataset; CFG-058 for given rows and a key
            of the dataset that chooses rows of a source.
    """
    method, recipe_digest = _recipe(config.method)
    callbacks, callback_digests = _own_code(config.callbacks)
    if rows is not None:
        _check_given([*rows, *validation_rows], config.dataset, method)
    base = open_base(config, store, backend)
    if rows is None:
        train_rows, held_rows = load_rows(config.dataset)
    else:
        train_rows, held_rows = _with_system_prompts(rows, validation_rows, config.dataset)
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
        method=method,
        store=str(store.root),
        trainer=config.trainer,
        callbacks=callbacks,
        code_digests=recipe_digest | callback_digests,
        allow_targets=[absolute_target(name, "allow_targets") for name in config.allow_targets],
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
    dataset = config.dataset
    return local_base(config, store, max_length=dataset.max_length, needs_template=dataset.format != "text")


def local_base(config: Any, store: Store, max_length: int | None = None, *, needs_template: bool = True) -> BaseModel:
    """The base model of a config, found on this machine or the hub, quantised as its adapter says."""
    model = config.model
    if model.path:
        model = dataclasses.replace(model, path=str(expand(model.path, "model.path")))
    return resolve_base(
        model,
        config.adapter,
        offline=config.offline,
        memo=store,
        max_length=max_length,
        needs_template=needs_template,
    )


def load_rows(dataset: DatasetConfig) -> tuple[list[Row], list[Row]]:
    """Training and validation rows of a dataset config, with its system prompt in both.

    Raises:
        DataError: as the readers do; DATA-021 for rows in both splits.
    """
    rows, classes = _read_labelled(dataset)
    if dataset.validation_source is not None:
        validation = _read(dataset, dataset.validation_source, "validation")
        check_overlap(rows, validation)
    elif _has_own_validation(dataset):
        validation = _read(dataset, dataset.source, "validation")
        check_overlap(rows, validation)
    else:
        rows, validation = split_rows(rows, dataset.validation_fraction, dataset.split_seed)
    if classes:
        rows = _balanced(rows, classes, dataset)
    warning = repeats_warning(rows, where=dataset.source)
    if warning:
        logger.warning("{}", warning)
    return _with_system_prompts(rows, validation, dataset)


def _read(dataset: DatasetConfig, source: str, split: str) -> list[Row]:
    if source.startswith("zoo:"):
        rows = generate(source.removeprefix("zoo:"), **dataset.arguments)
        return [dict(row) for row in rows[: dataset.limit]]
    return [dict(row) for row in _reader(dataset, source, split)]


def _read_labelled(dataset: DatasetConfig) -> tuple[list[Row], dict[int, Label]]:
    """The training rows, and where they are to be balanced the class of each, by the row's `id()`."""
    if dataset.balance_by is None:
        return _read(dataset, dataset.source, "train"), {}
    if dataset.source.startswith("zoo:"):
        raise ConfigError(
            f"{dataset.source} makes rows without classes",
            code="CFG-058",
            where="dataset.balance_by",
            fix="dataset.balance_by=null, or a file as dataset.source",
        )
    reader = _reader(dataset, dataset.source, "train", label_key=dataset.balance_by)
    rows = [dict(row) for row in reader]
    return rows, {id(row): label for row, label in zip(rows, reader.report.labels, strict=True)}


def _balanced(rows: list[Row], classes: dict[int, Label], dataset: DatasetConfig) -> list[Row]:
    """The training rows with their classes within the ratio; the validation rows stay as they came."""
    _check_classes_left(rows, classes, dataset)
    made = balance(rows, lambda row: classes[id(row)], dataset.balance_ratio, dataset.split_seed, where=dataset.source)
    logger.info("{}: balanced by {}: {}", dataset.source, dataset.balance_by, made)
    return made.rows


def _check_classes_left(rows: list[Row], classes: dict[int, Label], dataset: DatasetConfig) -> None:
    """Refuse a split that left a class without a row to train on."""
    left = {classes[id(row)] for row in rows}
    gone = Counter(label for label in classes.values() if label not in left)
    for label, count in gone.items():
        raise DataError(
            f"the split put all {count} rows of the class {quote(label)} into the validation rows; none is left to "
            "train on",
            code="DATA-022",
            where=dataset.source,
            fix=f"another split (dataset.split_seed={dataset.split_seed + 1}), or validation rows of their own "
            "(dataset.validation_source)",
        )


def _reader(dataset: DatasetConfig, source: str, split: str, label_key: str | None = None) -> RowReader:
    path = expand(source, "dataset.source")
    return read_rows(
        path,
        dataset.format,
        split=split if split in _splits(dataset, path) else "train",
        limit=dataset.limit,
        on_error=dataset.on_error,
        max_skipped_fraction=dataset.max_skipped_fraction,
        input_key=dataset.input_key,
        output_key=dataset.output_key,
        label_key=label_key,
    )


def _splits(dataset: DatasetConfig, path: Path) -> list[str]:
    """The splits that one document holds; none for JSON Lines."""
    return document_splits(path) if dataset.format == "instruct" else []


def _has_own_validation(dataset: DatasetConfig) -> bool:
    if dataset.source.startswith("zoo:"):
        return False
    return "validation" in _splits(dataset, expand(dataset.source, "dataset.source"))


def _with_system_prompts(
    rows: Sequence[Row], validation: Sequence[Row], dataset: DatasetConfig
) -> tuple[list[Row], list[Row]]:
    text = dataset.system_prompt
    if not text:
        return list(rows), list(validation)
    named = (("rows", rows), ("validation rows", validation))
    train, held = ([add_system_prompt(row, text, f"{name}[{i}]") for i, row in enumerate(part)] for name, part in named)
    return train, held


def _check_given(rows: Sequence[Row], dataset: DatasetConfig, method: MethodConfig) -> None:
    """Refuse given rows that the method cannot train on, which of a file its format tells, and keys that would
    choose among the rows of a source."""
    defaults = {field.name: field.default for field in dataclasses.fields(DatasetConfig)}
    for name in OF_A_SOURCE:
        value = getattr(dataset, name)
        says_nothing = name == "validation_fraction" and value == 0  # none are held out of given rows
        if value != defaults[name] and not says_nothing:
            raise ConfigError(
                f"{value} is for the rows of a dataset.source; these rows are given, and all of them are used",
                code="CFG-058",
                where=f"dataset.{name}",
                fix=f"leave dataset.{name} out and give the rows that you want; validation_file=... are those to "
                "validate on",
            )
    wanted = ("preference",) if method.type == "dpo" else ("messages", "text")
    for index, row in enumerate(rows):
        if kind_of_row(row) not in wanted:
            raise ConfigError(
                f"method.type={method.type} cannot train on rows of {kind_of_row(row)} (rows[{index}])",
                code="CFG-058",
                where="method.type",
                fix="give rows {prompt, chosen, rejected}" if method.type == "dpo" else "method=dpo",
            )


def _recipe(method: MethodConfig) -> tuple[MethodConfig, dict[str, str]]:
    """The method with its recipe named as the worker finds it, and the recipe's digest. None of it is run here."""
    if method.recipe is None:
        return method, {}
    code = locate(method.recipe, "method.recipe")
    return dataclasses.replace(method, recipe=code.reference), {"method.recipe": f"{code.digest}:{code.name}"}


def _own_code(callbacks: CallbacksConfig) -> tuple[CallbacksConfig, dict[str, str]]:
    """The user's code named as the worker finds it, and by config key the digests of all of it."""
    digests = {}
    if callbacks.metrics is not None:
        code = locate(callbacks.metrics, "callbacks.metrics")
        callbacks = dataclasses.replace(callbacks, metrics=code.reference)
        digests["callbacks.metrics"] = f"{code.digest}:{code.name}"
    extras = []
    for number, extra in enumerate(callbacks.extra):
        where, target = f"callbacks.extra[{number}]", str(extra["_target_"])
        code = locate(reference_of(target), f"{where}._target_")
        digests[where] = f"{code.digest}:{code.name}"
        extras.append({**extra, "_target_": absolute_target(target, f"{where}._target_")})
    return dataclasses.replace(callbacks, extra=extras), digests
