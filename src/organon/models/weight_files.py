"""Weight files, before anything of them is used: a sound safetensors header, and finite values. No torch until values
are read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from organon.errors import UserError

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
MOST_TENSORS = 20_000
LARGEST_HEADER_BYTES = 25_000_000
_LENGTH_BYTES = 8


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's safetensors dtype (``F32``, ``BF16``) and shape."""

    dtype: str
    shape: tuple[int, ...]


def read_header(file: Path) -> dict[str, TensorInfo]:
    """The tensors of a safetensors file by name. No value is read.

    Raises:
        UserError: CKPT-067, it is truncated or not safetensors; CKPT-068, more than 20,000 tensors, a header
            of more than 25 MB, or a shape that no file can hold.
    """
    from safetensors import SafetensorError, safe_open

    _check_size(file)
    try:
        with safe_open(file, framework="numpy") as opened:  # checks offsets, shapes, overlaps, trailing bytes
            names = list(opened.keys())
            tensors = {name: opened.get_slice(name) for name in names}
            return {name: TensorInfo(t.get_dtype(), tuple(t.get_shape())) for name, t in tensors.items()}
    except SafetensorError as error:
        code = "CKPT-068" if "overflow" in str(error).lower() else "CKPT-067"
        raise _refused(file, f"not a sound safetensors file: {' '.join(str(error).split())}", code) from error


def files_of(folder: Path) -> list[Path]:
    """The safetensors files that a model's folder is loaded from: those its index names, or all but adapters."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = _json(index, index.read_bytes()).get("weight_map")
        if isinstance(named, dict):
            return [folder / str(name) for name in sorted(set(named.values()))]
    whole = folder / "model.safetensors"
    if whole.is_file():
        return [whole]
    return sorted(file for file in folder.glob("*.safetensors") if not file.name.startswith("adapter_"))


def check_finite(file: Path) -> None:
    """Read every value once. Raises UserError: CKPT-070, with the first tensor that holds NaN or infinite values."""
    import torch
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118 - no mapping
            tensor = opened.get_tensor(name)
            if not tensor.is_floating_point() or not tensor.numel() or tensor.element_size() == 1:
                continue  # the extremes of 8-bit floats cannot be taken
            low, high = tensor.aminmax()
            if not bool(torch.isfinite(low) & torch.isfinite(high)):
                bad = int((~torch.isfinite(tensor)).sum())
                raise _refused(file, f"{name}: {bad} of {tensor.numel()} values are NaN or infinite", "CKPT-070")


def _check_size(file: Path) -> None:
    size = file.stat().st_size
    if size < _LENGTH_BYTES:
        raise _refused(file, f"{size} bytes are no safetensors file", "CKPT-067")
    with file.open("rb") as stream:
        told = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if told > size - _LENGTH_BYTES:
            raise _refused(
                file, f"the header is to have {told:,} bytes, the file has {size:,}: truncated or not safetensors",
                "CKPT-067",
            )  # fmt: skip
        if told > LARGEST_HEADER_BYTES:
            raise _refused(file, f"a header of {told:,} bytes > {LARGEST_HEADER_BYTES:,}", "CKPT-068")
        header = stream.read(told)
    count = len(_json(file, header))
    if count > MOST_TENSORS:
        raise _refused(file, f"{count:,} tensors > {MOST_TENSORS:,}", "CKPT-068")


def _json(file: Path, header: bytes) -> dict[str, Any]:
    try:
        found = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise _refused(file, f"the header is not JSON: {error}", "CKPT-067") from error
    if not isinstance(found, dict):
        raise _refused(file, "the header is not a JSON object", "CKPT-067")
    return found


def _refused(file: Path, cause: str, code: str) -> UserError:
    return UserError(cause, code=code, where=str(file), fix="take another copy of the file, or an earlier checkpoint")
