"""Checkpoints to resume from: one safetensors file each, never a pickle, found whole or not at all.

``checkpoints/<step>-<sha256>.safetensors``. The file is written and fsynced under a temporary name in
the same folder and then renamed; its name carries its hash, so a damaged one is known before it is
used. Tensors are flat (``model/<parameter>``, ``optimizer/<parameter>/<state>``,
``callbacks/<callback>/<place in its state>``); all else is JSON in the header. Lightning's own
checkpoints are neither fsynced nor free of pickle.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from loguru import logger
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from organon.backends.lightning.callback_states import TENSORS, packed, unpacked
from organon.backends.lightning.faults import reached
from organon.errors import TrainingError
from organon.store.files import TEMPORARY, report_disk_errors, seal, sync_folder, temporary
from organon.store.keys import sha256_file

SCHEMA = 4
MOST_SHOWN = 5  # differences named in a refusal
_NAME = re.compile(r"(\d{8})-([0-9a-f]{64})\.safetensors")


@dataclass(frozen=True)
class TrainState:
    """A training between two optimizer steps: all that is not a pure function of the spec.

    ``pending``: the metrics of the last step, if what follows a step (validation, log line, epoch
    folder) was interrupted and is still to be done.
    """

    step: int
    tensors: dict[str, torch.Tensor]
    identity: dict[str, Any]  # what is trained, and on what: another one cannot go on from here
    tokens: int = 0  # real input tokens seen
    metrics: dict[str, float] = field(default_factory=dict)  # latest value of each
    pending: dict[str, Any] | None = None
    halvings: int = 0  # of the micro-batches, for want of memory: they change the order of float sums
    best: dict[str, Any] | None = None  # value, step and epoch of what `best/` holds
    patience: dict[str, Any] | None = None  # of early stopping: the best value, and validations since then
    stopped: str | None = None  # why the training ends with this step, before its last one
    callbacks: dict[str, Any] = field(default_factory=dict)  # states of the user's own, by their names
    first_loss: float | None = None  # of the training's first step, by which an exploding one is known

    @property
    def logged_step(self) -> int:
        """The last step whose log line counts as written."""
        return self.step if self.pending is None else self.step - 1


class Checkpoints:
    """The checkpoints of one job, whose lock the caller holds; the newest ``keep`` are kept."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep
        self.saved = 0  # in this process
        for unfinished in folder.glob(f"{TEMPORARY}*"):  # of a process that was killed
            unfinished.unlink(missing_ok=True)

    def save(self, state: TrainState) -> Path:
        """Write ``state``, durably. Raises StoreError if the disk does not take it."""
        self.saved += 1
        callbacks, kept = packed(state.callbacks)
        state = dataclasses.replace(state, callbacks=callbacks)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in {**state.tensors, **kept}.items()}
        needed = sum(tensor.nbytes for tensor in tensors.values())
        with report_disk_errors(self.folder, needed):
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary(self.folder) as (_, unfinished):
                with tensor_disk_errors():
                    save_file(tensors, unfinished, _header(state))
                with unfinished.open("rb") as written:
                    seal(written.fileno(), read_only=False)
                place = self.folder / f"{state.step:08d}-{sha256_file(unfinished)}.safetensors"
                reached(f"checkpoint:{self.saved}:before_rename")
                unfinished.replace(place)
                sync_folder(self.folder)
        reached(f"checkpoint:{self.saved}:after_rename")
        for other in self.folder.glob(f"{state.step:08d}-*.safetensors"):  # of this step, with something pending
            if other != place:
                other.unlink()
        for old in self._files()[self.keep :]:
            old.unlink()
        return place

    def latest(self, identity: dict[str, Any]) -> TrainState | None:
        """The newest good checkpoint. A damaged one is set aside with a warning, and the one before it taken.

        Raises:
            TrainingError: CKPT-072, it is of another training than ``identity``; CKPT-067, it is no checkpoint.
        """
        for file in self._files():
            state = self._read(file)
            if state is not None:
                _check_identity(state, identity, file)
                return state
        return None

    def newest(self) -> Path | None:
        """The newest one's file, unread."""
        return next(iter(self._files()), None)

    def _files(self) -> list[Path]:
        """Newest first; of one step's two, where a crash kept the older from being removed, the later one."""
        if not self.folder.is_dir():
            return []
        found = (f for f in self.folder.iterdir() if _NAME.fullmatch(f.name))
        return sorted(found, key=lambda f: (f.name[:8], f.stat().st_mtime_ns), reverse=True)

    def _read(self, file: Path) -> TrainState | None:
        match = _NAME.fullmatch(file.name)
        assert match is not None
        found = sha256_file(file)
        if found != match[2]:
            aside = file.with_suffix(".damaged")
            file.rename(aside)
            logger.warning(
                "CKPT-069 the checkpoint of step {} is damaged (sha256 {}, expected {}); set aside as {}, "
                "using the one before it",
                int(match[1]), found[:12], match[2][:12], aside,
            )  # fmt: skip
            return None
        try:
            with safe_open(file, framework="pt") as opened:
                header = json.loads(opened.metadata()["organon"])
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
            if header.pop("schema") == SCHEMA:
                mine = {name: tensors.pop(name) for name in list(tensors) if name.startswith(TENSORS)}
                header["callbacks"] = unpacked(header.get("callbacks", {}), mine)
                return TrainState(tensors=tensors, **header)
        except (SafetensorError, TypeError, KeyError, ValueError, AttributeError) as error:
            raise TrainingError(
                f"is no checkpoint of organon: {type(error).__name__}: {error}",
                code="CKPT-067",
                where=str(file),
                fix=f"remove {file.parent} to start over",
            ) from error
        raise TrainingError(
            "was written by another version of organon",
            code="CKPT-072",
            where=str(file),
            fix=f"remove {file.parent} to start over",
        )


def _header(state: TrainState) -> dict[str, str]:
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state) if field.name != "tensors"}
    return {"organon": json.dumps({"schema": SCHEMA, **fields}, sort_keys=True)}


def _check_identity(state: TrainState, identity: dict[str, Any], file: Path) -> None:
    there, here = _flat(state.identity), _flat(json.loads(json.dumps(identity)))
    names = [name for name in sorted({*there, *here}) if there.get(name) != here.get(name)]
    if names:
        told = [f"{name} is {_short(there, name)} there and {_short(here, name)} here" for name in names[:MOST_SHOWN]]
        more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
        raise TrainingError(
            f"is of another training: {'; '.join(told)}{more}",
            code="CKPT-072",
            where=str(file),
            fix=f"remove {file.parent} to start over",
        )


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """The leaves of nested mappings by dotted names."""
    if not isinstance(value, dict) or not value:
        return {name: value}
    parts = (_flat(item, f"{name}.{key}" if name else str(key)) for key, item in value.items())
    return {leaf: item for part in parts for leaf, item in part.items()}


def _short(fields: dict[str, Any], name: str, most: int = 40) -> str:
    text = json.dumps(fields[name]) if name in fields else "absent"
    return text if len(text) <= most else f"{text[: most - 3]}..."


@contextlib.contextmanager
def tensor_disk_errors() -> Iterator[None]:
    """safetensors' I/O errors as OSError."""
    try:
        yield
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), str(error)) from error
