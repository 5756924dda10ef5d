"""Checkpoints to resume from: one safetensors file each, never a pickle, found whole or not at all.

``checkpoints/<step>-<sha256>.safetensors``. The file is written and fsynced under a temporary name in
the same folder and then renamed; its name carries its hash, so a damaged one is known before it is
used. Tensors are flat (``model/<parameter>``, ``optimizer/<parameter>/<state>``); all else is JSON in
the header. Lightning's own checkpoints are neither fsynced nor free of pickle.
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

from organon.backends.lightning.faults import reached
from organon.errors import TrainingError
from organon.store.files import report_disk_errors, seal, sync_folder, temporary
from organon.store.keys import sha256_file

SCHEMA = 2
_NAME = re.compile(r"(\d{8})-([0-9a-f]{64})\.safetensors")


@dataclass(frozen=True)
class TrainState:
    """A training between two optimizer steps: all that is not a pure function of the spec.

    ``pending``: the metrics of the last step, if what follows a step (validation, log line, epoch
    folder) was interrupted and is still to be done.
    """

    step: int
    tensors: dict[str, torch.Tensor]
    identity: str  # of what is trained: another one cannot go on from here
    tokens: int = 0  # real input tokens seen
    metrics: dict[str, float] = field(default_factory=dict)  # latest value of each
    pending: dict[str, Any] | None = None
    halvings: int = 0  # of the micro-batches, for want of memory: they change the order of float sums

    @property
    def logged_step(self) -> int:
        """The last step whose log line counts as written."""
        return self.step if self.pending is None else self.step - 1


class Checkpoints:
    """The checkpoints of one job; the newest ``keep`` are kept."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep
        self.saved = 0  # in this process

    def save(self, state: TrainState) -> Path:
        """Write ``state``, durably. Raises StoreError if the disk does not take it."""
        self.saved += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        with report_disk_errors(self.folder), temporary(self.folder) as (_, unfinished):
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
            with _disk_errors():
                save_file(tensors, unfinished, _header(state))
            with unfinished.open("rb") as written:
                seal(written.fileno(), read_only=False)
            place = self.folder / f"{state.step:08d}-{sha256_file(unfinished)}.safetensors"
            reached(f"checkpoint:{self.saved}:before_rename")
            unfinished.replace(place)
            sync_folder(self.folder)
        reached(f"checkpoint:{self.saved}:after_rename")
        for old in self._files()[self.keep :]:
            old.unlink()
        return place

    def latest(self, identity: str) -> TrainState | None:
        """The newest good checkpoint. A damaged one is set aside with a warning, and the one before it taken.

        Raises:
            TrainingError: CKPT-072, it is of another training than ``identity``.
        """
        for file in self._files():
            state = self._read(file)
            if state is not None:
                _check_identity(state, identity, file)
                return state
        return None

    def _files(self) -> list[Path]:
        """Newest first."""
        if not self.folder.is_dir():
            return []
        return sorted((f for f in self.folder.iterdir() if _NAME.fullmatch(f.name)), reverse=True)

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
        with safe_open(file, framework="pt") as opened:
            header = json.loads(opened.metadata()["organon"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
        if header.pop("schema") != SCHEMA:
            raise TrainingError(
                "was written by another version of organon",
                code="CKPT-072",
                where=str(file),
                fix=f"remove {file.parent} to start over",
            )
        return TrainState(tensors=tensors, **header)


def _header(state: TrainState) -> dict[str, str]:
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state) if field.name != "tensors"}
    return {"organon": json.dumps({"schema": SCHEMA, **fields}, sort_keys=True)}


def _check_identity(state: TrainState, identity: str, file: Path) -> None:
    if state.identity != identity:
        raise TrainingError(
            "is of another training (config, data, device or library versions differ)",
            code="CKPT-072",
            where=str(file),
            fix=f"remove {file.parent} to start over",
        )


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    """safetensors' I/O errors as OSError."""
    try:
        yield
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), str(error)) from error
