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
        self.path, self.workdir, self.write, self.needed_bytes = workdir.path, workdir, write, needed_bytes
        self._clean()

    def save_epoch(self, epoch: int) -> None:
        """``epoch_N/`` with the model as it is now."""
        name = self.workdir.epoch(epoch).name
        with self._replacing(name, self.needed_bytes, f"epoch_end:{epoch}") as folder:
            self.write(folder)
        reached(f"epoch_end:{epoch}")

    def save_best(self, note: dict[str, Any]) -> None:
        """``best/`` with the model as it is now, and ``note`` in it."""
        with self._replacing(BEST, self.needed_bytes, f"best:{note['step']}") as folder:
            self.write(folder)
            (folder / BEST_NOTE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
        reached(f"best:{note['step']}")

    def merge(self, merge: Callable[[Path, Path], None], *, stash: bool, needed_bytes: int) -> None:
        """Add the merged model to every folder: ``merge(adapter folder, empty folder)`` writes it.

        ``stash``: the adapter's own files go to ``adapter_weights/`` in the folder.
        """
        for place in self.workdir.weights():
            if is_merged(place):
                continue
            with self._replacing(place.name, needed_bytes, f"merge:{place.name}") as folder:
                merge(place, folder)
                for file in place.iterdir():
                    is_adapter = file.name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
                    kept = folder / STASH if stash and is_adapter else folder
                    kept.mkdir(exist_ok=True)
                    shutil.copyfile(file, kept / file.name)
            reached(f"merge:{place.name}")

    @contextlib.contextmanager
    def _replacing(self, name: str, needed_bytes: int, point: str) -> Iterator[Path]:
        """An empty folder that takes the place of ``name`` if the block ends well, and else leaves nothing."""
        place = self.path / name
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
                sync_folder(self.path)
        finally:  # a full disk needs the room
            self._clean()

    def _clean(self) -> None:
        """Put right what an interrupt, also one of an earlier process, has left between two renames."""
        for old in self.path.glob(".*.old"):
            place = old.with_name(old.name.removeprefix(".").removesuffix(".old"))
            if place.exists():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.rename(place)
        for unfinished in self.path.glob(".*.new"):
            shutil.rmtree(unfinished, ignore_errors=True)


def merge_folders(spec: TrainSpec, folders: Folders, report: Callable[..., None]) -> None:
    """Add the merged model to each folder, if the spec wants it; folders that have it stay as they are."""
    if spec.callbacks.save_adapter_weights_only or spec.adapter.kind == "full":
        return
    report(phase="merging")
    gc.collect()  # Lightning's objects refer to one another, and with them the model
    place = model_folder(spec.base)
    folders.merge(
        lambda adapter, folder: merge_adapter(spec.base, adapter, folder),
        stash=spec.callbacks.stash_adapter_weights,
        needed_bytes=sum(file.stat().st_size for file in place.glob("*.safetensors")) if place else 0,
    )


def is_merged(folder: Path) -> bool:
    """Whether a folder with an adapter holds the merged model too."""
    return (folder / "config.json").exists()
