"""What lies at a path: a base model, a merged model, an adapter, a training's epoch; and of which base. No torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from organon.config.compose import load_model_preset, presets
from organon.config.schema import AdapterConfig, ModelConfig
from organon.config.spec import BaseModel, TrainSpec, from_dict
from organon.errors import ConfigError, OrganonError, SecurityError, UserError
from organon.models.adapter_files import ADAPTER_CONFIG
from organon.models.folder import EMBEDDED_ID, Memo, is_complete, public_name, resolve_base
from organon.models.weight_files import PICKLES
from organon.store.records import Checkpoint

MERGED_NOTE = "merged.json"  # beside a merged model: what was merged into what
RECORDS = ("checkpoint.json", "spec.json", "result.json")  # of a run, in the store or in outputs/runs


@dataclass(frozen=True)
class Found:
    """What is in ``folder``. ``kind``: base, merged, full (trained whole) or adapter."""

    kind: str
    folder: Path
    base_name: str | None = None  # the base's public name, as far as the files tell it
    revision: str | None = None
    base: BaseModel | None = None  # that base, if a record or a preset says where it is
    note: str = ""

    @property
    def base_is_here(self) -> bool:
        """Whether the base can be loaded without a network."""
        return self.base is not None and is_complete(self.base)

    @property
    def how_to_get_the_base(self) -> str:
        """What to do to have the base on this machine."""
        if self.base_name is None:
            return "--base PRESET or FOLDER names it"
        if self.base_name.startswith("local/"):
            return "it was a folder on another machine; --base FOLDER names a copy of it"
        return f"hf download {self.base_name}" + (f" --revision {self.revision}" if self.revision else "")


def look_at(folder: Path) -> Found:
    """What is in ``folder``: a model's, an adapter's, an epoch's, or a run's, of which the last epoch is taken.

    Raises:
        UserError: CKPT-067, nothing that organon knows.
        SecurityError: SEC-065, pickles alone.
    """
    if folder.is_file():
        raise UserError(
            "this is a file, not a folder", code="CKPT-067", where=str(folder), fix=f"name its folder: {folder.parent}"
        )
    if not folder.is_dir():
        raise UserError("no such folder", code="CKPT-067", where=str(folder), fix="name a folder, a run or a preset")
    last = _last_of_run(folder)
    if last is not None:
        return look_at(last)
    spec_base, full = _recorded(folder.resolve())
    if (folder / MERGED_NOTE).is_file():
        told = _json(folder / MERGED_NOTE)
        beside = (folder / ADAPTER_CONFIG).is_file()
        note = "an adapter lies beside it, which transformers would apply a second time" if beside else ""
        base = replace(spec_base, quantization="none") if spec_base else None
        return _named(Found("merged", folder, told.get("base"), told.get("revision"), base, note))
    if (folder / ADAPTER_CONFIG).is_file():
        told = _json(folder / ADAPTER_CONFIG)
        found = Found("adapter", folder, told.get("base_model_name_or_path"), told.get("revision"), spec_base)
        return _named(found)
    if (folder / "config.json").is_file():
        if full and spec_base is not None:
            return Found("full", folder, public_name(spec_base), spec_base.revision, spec_base)
        return Found("base", folder)
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)
    if pickles:
        raise SecurityError(
            f"only pickles ({', '.join(pickles[:3])}), which can run code when they are read; refused",
            code="SEC-065",
            where=str(folder),
            fix="convert them to safetensors on a machine you trust",
        )
    raise UserError(
        "neither a model (config.json) nor an adapter (adapter_config.json)",
        code="CKPT-067",
        where=str(folder),
        fix="name the folder of a model, an adapter, or an epoch_N of a run",
    )


def named_base(name: str, *, memo: Memo | None = None) -> BaseModel:
    """The base that ``--base`` names: a preset, or a folder. Raises as ``resolve_base``."""
    if name in presets("model"):
        return resolve_base(load_model_preset(name), _unquantised(), memo=memo)
    path = Path(name).expanduser()
    if not path.is_dir():
        raise ConfigError(
            f"'{name}' is neither a folder nor a preset ({', '.join(presets('model'))})", code="CFG-064", where="--base"
        )
    return resolve_base(ModelConfig(name=path.name, path=str(path.absolute())), _unquantised(), memo=memo)


def _named(found: Found) -> Found:
    """With the base that its name means, where no record tells: the embedded one, or a commit on the hub."""
    name = found.base_name or ""
    if found.base is not None or name.startswith(("local/", "/", ".")) or name.count("/") != 1:
        return found
    if name == EMBEDDED_ID:
        return replace(found, base=named_base("tiny"))
    try:
        model = ModelConfig(name=name.split("/")[1], id=name, revision=found.revision)
        return replace(found, base=resolve_base(model, _unquantised(), offline=True))
    except OrganonError:
        return found


def _last_of_run(folder: Path) -> Path | None:
    """The weights that a run came to, if ``folder`` is a run's or a copy of its folders of weights."""
    epochs = sorted((p for p in folder.glob("epoch_*") if p.is_dir()), key=lambda p: (len(p.name), p.name))
    # A run's own config.json is organon's, not a model's.
    is_run = any((folder / record).is_file() for record in RECORDS) or not (folder / "config.json").is_file()
    best = folder / "best"
    return (best if best.is_dir() else epochs[-1]) if epochs and is_run else None


def _recorded(weights: Path) -> tuple[BaseModel | None, bool]:
    """Base, and whether all of it was trained, by the record of the run that a folder of weights is in."""
    for run in weights.parents[:2]:  # an adapter may lie in `epoch_N/adapter_weights`
        result = run / "result.json"
        told = (_json(result).get("paths") or {}) if result.is_file() else {}
        training = Path(str(told.get("training") or run))
        for name, kind in (("checkpoint.json", Checkpoint), ("spec.json", TrainSpec)):
            try:
                found = from_dict(kind, _json(training / name)) if (training / name).is_file() else None
            except (TypeError, KeyError):  # of another version of organon
                continue
            if isinstance(found, Checkpoint):
                return found.base, found.kind == "full"
            if isinstance(found, TrainSpec):
                return found.base, found.adapter.kind == "full"
    return None, False


def _unquantised() -> AdapterConfig:
    return AdapterConfig(kind="lora", quantization="none")


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot be read: {error}", code="CKPT-067", where=str(file), fix="take another copy"
        ) from error
    return found if isinstance(found, dict) else {}
