"""An adapter merged into its base: one model in one folder, which loads like any other.

Merging needs the base unquantised. An adapter that was trained on a 4-bit base is merged into the weights
that were quantised: what changes by that is the quantisation's own error, not the adapter.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from organon.config.spec import BaseModel
from organon.errors import UserError
from organon.models.adapter_files import ADAPTER_WEIGHTS
from organon.models.adapters import attach_adapter
from organon.models.checkpoint import MERGED_NOTE
from organon.models.folder import model_folder, public_name
from organon.models.load import load_base, load_tokenizer, named_dtype, quiet, save_full
from organon.store.keys import sha256_file

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def merge_adapter(
    base: BaseModel, adapter: str | Path, dest: Path, *, dtype: str = "auto", device: str | torch.device = "cpu"
) -> None:
    """Merge the adapter in the folder ``adapter`` into ``base`` and write the model, its tokenizer with the chat
    template, and ``merged.json`` into ``dest``, which must be empty or not there. A failure leaves it so.

    ``dtype``: of the saved weights; ``auto`` is that of the base's own files.

    Raises:
        UserError: CKPT-067 to CKPT-071, as ``attach_adapter``; CKPT-070 too if a sum does not fit ``dtype``.
    """
    _check_empty(dest)
    plain = dataclasses.replace(base, quantization="none", compute_dtype="auto")
    saved_in = named_dtype(own_dtype(plain) if dtype == "auto" else dtype, torch.device("cpu"))
    model = attach_adapter(load_base(plain, device=device, dtype=saved_in), adapter, base=plain)
    merged = _merged(model, saved_in, Path(adapter))
    note = {
        "base": public_name(base),
        "revision": base.revision,
        "adapter_sha256": sha256_file(Path(adapter) / ADAPTER_WEIGHTS),
        "trained_on": base.quantization,
        "dtype": str(saved_in).removeprefix("torch."),
    }
    made = not dest.exists()
    dest.mkdir(parents=True, exist_ok=True)
    try:
        save_full(merged, load_tokenizer(plain), dest)
        (dest / MERGED_NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
    except BaseException:
        _empty(dest, remove=made)
        raise


def own_dtype(base: BaseModel) -> str:
    """The dtype that ``base`` asks for, or else that of its files, by config.json; float32 if that does not say."""
    if base.dtype != "auto":
        return base.dtype
    folder = model_folder(base)
    config: dict[str, Any] = json.loads((folder / "config.json").read_text()) if folder is not None else {}
    found = [part.get(k) for part in (config, config.get("text_config") or {}) for k in ("dtype", "torch_dtype")]
    return next((name for name in found if name in ("float32", "bfloat16", "float16")), "float32")


def _merged(model: PeftModel, dtype: torch.dtype, adapter: Path) -> PreTrainedModel:
    was_tied = model.config.get_text_config().tie_word_embeddings
    with quiet(), torch.no_grad():
        # peft adds in float32 and rounds the sum to the weight's dtype once.
        plain: PreTrainedModel = model.merge_and_unload().to(dtype)
    into, out = plain.get_input_embeddings(), plain.get_output_embeddings()
    if was_tied and torch.equal(into.weight, out.weight):  # else peft has written into the config that they are two
        out.weight = into.weight
        plain.config.tie_word_embeddings = plain.config.get_text_config().tie_word_embeddings = True
    for name, weight in plain.named_parameters():
        low, high = weight.aminmax()
        if not bool(torch.isfinite(low) & torch.isfinite(high)):
            raise UserError(
                f"{name}: base and adapter together do not fit {dtype}",
                code="CKPT-070",
                where=str(adapter),
                fix="merge in float32",
            )
    return plain


def _check_empty(dest: Path) -> None:
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise UserError("is not an empty folder", where=str(dest), fix="name a folder that is not there yet")


def _empty(dest: Path, *, remove: bool) -> None:
    if remove:
        shutil.rmtree(dest, ignore_errors=True)
        return
    for path in dest.iterdir():
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
