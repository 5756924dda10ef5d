"""The folders of weights that a training leaves: ``epoch_N/`` and ``best/``, each whole or not there.

A folder is written beside its place as ``.NAME.new`` and renamed. Merging an adapter into its base needs
the base a second time, unquantised: it is done once the training has ended and its model is let go.
"""

from __future__ import annotations

import contextlib
import gc
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from organon.backends.lightning.checkpoint_io import tensor_disk_errors
from organon.backends.lightning.faults import reached
from organon.backends.lightning.workdir import BEST, STASH, Workdir
from organon.config.spec import TrainSpec
from organon.models.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from organon.models.folder import model_folder
from organon.models.merge import merge_adapter
from organon.store.files import report_disk_errors, sync_file, sync_folder

BEST_NOTE = "best.json"  # in `best/`: which metric, its value and step

Write = Callable[[Path], None]  # writes a model's files into an empty folder


class Folders:
    """The folders in ``workdir``. ``write``: writes the model as it is now; ``needed_bytes``: what that takes."""

    def __init__(self, workdir: Workdir, write: Write, needed_bytes: int) -> None:
        self.workdir, self.write, self.needed_bytes = workdir, write, needed_bytes
        put_right(workdir)

    def save_epoch(self, epoch: int) -> None:
        """``epoch_N/`` with the model as it is now."""
        point = f"epoch_end:{epoch}"
        with replacing(self.workdir, self.workdir.epoch(epoch).name, self.needed_bytes, point) as folder:
            self.write(folder)

    def save_best(self, note: dict[str, Any]) -> None:
        """``best/`` with the model as it is now, and ``note`` in it."""
        with replacing(self.workdir, BEST, self.needed_bytes, f"best:{note['step']}") as folder:
            self.write(folder)
            (folder / BEST_NOTE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")


@contextlib.contextmanager
def replacing(workdir: Workdir, name: str, needed_bytes: int, point: str) -> Iterator[Path]:
    """An empty folder that takes the place of ``name`` if the block ends well, and else leaves nothing.

    Raises:
        StoreError: the disk does not take it.
    """
    place = workdir.path / name
    unfinished, old = place.with_name(f".{name}.new"), place.with_name(f".{name}.old")
    try:
        with report_disk_errors(place, needed_bytes), tensor_disk_errors():
            unfinished.mkdir()
            yield unfinished
            for path in [*unfinished.rglob("*"), unfinished]:
                sync_file(path)
            reached(f"{point}:before_rename")
            if place.exists():
                place.rename(old)
                reached(f"{point}:between_renames")
            unfinished.rename(place)
            sync_folder(workdir.path)
    finally:  # a full disk needs the room
        put_right(workdir)
    reached(point)


def put_right(workdir: Workdir) -> None:
    """Undo what an interrupt, also one of an earlier process, has left half done."""
    for old in workdir.path.glob(".*.old"):
        place = old.with_name(old.name.removeprefix(".").removesuffix(".old"))
        if place.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(place)
    for unfinished in workdir.path.glob(".*.new"):
        shutil.rmtree(unfinished, ignore_errors=True)


def merge_folders(spec: TrainSpec, workdir: Workdir, report: Callable[..., None]) -> None:
    """Add the merged model to each folder, if the spec wants it; folders that have it stay as they are.

    The adapter's own files stay beside it, or go to ``adapter_weights/``.
    """
    if spec.callbacks.save_adapter_weights_only or spec.adapter.kind == "full":
        return
    report(phase="merging")
    gc.collect()  # Lightning's objects refer to one another, and with them the trained model stays
    base = model_folder(spec.base)
    needed_bytes = sum(file.stat().st_size for file in base.glob("*.safetensors")) if base else 0
    for place in workdir.weights():
        if is_merged(place):
            continue
        with replacing(workdir, place.name, needed_bytes, f"merge:{place.name}") as folder:
            merge_adapter(spec.base, place, folder)
            for file in place.iterdir():
                stashes = spec.callbacks.stash_adapter_weights and file.name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
                kept = folder / STASH if stashes else folder
                kept.mkdir(exist_ok=True)
                shutil.copyfile(file, kept / file.name)


def is_merged(folder: Path) -> bool:
    """Whether a folder with an adapter holds the merged model too."""
    return (folder / "config.json").exists()
