"""Weight files that are damaged, absurd or not finite (cases 67, 68, 70)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from organon.errors import UserError
from organon.models.weight_files import MOST_TENSORS, TensorInfo, check_finite, read_header


def safetensors(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A file with this header (text, or a value to be written as JSON), telling ``length`` for it."""
    text = header.encode() if isinstance(header, str) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def tensor(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_a_sound_file(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file({"w": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.int8)}, file, metadata={"format": "pt"})
    assert read_header(file) == {"w": TensorInfo("F32", (2, 3)), "b": TensorInfo("I8", (4,))}
    check_finite(file)


BAD = {
    "empty": b"",
    "short": b"abc",
    "header of 2^40 bytes": (1 << 40).to_bytes(8, "little") + b"{}",
    "header longer than the file": safetensors({}, length=5000),
    "not JSON": safetensors('{"a": '),
    "a list": safetensors([1, 2]),
    "deep JSON": safetensors("[" * 100_000),
    "offsets past the end": safetensors({"a": tensor([4], 0, 16)}, b"\0" * 8),
    "overlap": safetensors({"a": tensor([2], 0, 8), "b": tensor([2], 4, 12)}, b"\0" * 12),
    "hole": safetensors({"a": tensor([1], 0, 4), "b": tensor([1], 8, 12)}, b"\0" * 12),
    "wrong shape": safetensors({"a": tensor([3], 0, 8)}, b"\0" * 8),
    "trailing bytes": safetensors({"a": tensor([2], 0, 8)}, b"\0" * 100),
    "negative shape": safetensors({"a": tensor([-2], 0, 8)}, b"\0" * 8),
    "unknown dtype": safetensors({"a": tensor([2], 0, 8, "F31")}, b"\0" * 8),
    "a pickle": b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.",
}


@pytest.mark.parametrize("name", BAD)
def test_damaged(tmp_path: Path, name: str) -> None:
    """Case 67: refused with the file named, nothing of it read."""
    file = tmp_path / "a.safetensors"
    file.write_bytes(BAD[name])
    with pytest.raises(UserError) as caught:
        read_header(file)
    assert caught.value.code == "CKPT-067"
    assert caught.value.exit_code == 2
    assert str(file) in str(caught.value)


def test_the_message_tells_both_sizes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(safetensors({}, length=5000))
    with pytest.raises(UserError, match=r"header is to have 5,000 bytes, the file has 10"):
        read_header(tmp_path / "a")


ABSURD = {
    "100,000 tensors": lambda: safetensors({f"t{i}": tensor([0], 0, 0) for i in range(100_000)}),
    "100 MB header": lambda: safetensors("{}" + " " * 100_000_000),
    "shape of 2^62": lambda: safetensors({"a": tensor([1 << 62], 0, 8)}, b"\0" * 8),
    "shape that overflows": lambda: safetensors({"a": tensor([1 << 62, 8], 0, 8)}, b"\0" * 8),
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd(tmp_path: Path, name: str) -> None:
    """Case 68."""
    file = tmp_path / "a.safetensors"
    file.write_bytes(ABSURD[name]())
    with pytest.raises(UserError) as caught:
        read_header(file)
    assert caught.value.code == "CKPT-068"


def test_the_most_tensors(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(safetensors({f"t{i}": tensor([0], 0, 0) for i in range(MOST_TENSORS)}))
    assert len(read_header(tmp_path / "a")) == MOST_TENSORS


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(tmp_path: Path, value: float) -> None:
    """Case 70: the tensor and the count are named."""
    weights = np.zeros((3, 4), np.float32)
    weights[1, 2] = weights[2, 0] = value
    save_file({"a": np.ones(2, np.float32), "lora_A.3": weights}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"lora_A\.3: 2 of 12 values are NaN or infinite") as caught:
        check_finite(tmp_path / "a.safetensors")
    assert caught.value.code == "CKPT-070"


def test_16_bit_floats_are_read(tmp_path: Path) -> None:
    """numpy has no bfloat16; 0x7F80 is its infinity."""
    data = np.array([0x3F80, 0x7F80], np.uint16).tobytes()
    (tmp_path / "a").write_bytes(safetensors({"w": tensor([2], 0, 4, "BF16")}, data))
    with pytest.raises(UserError, match="w: 1 of 2 values"):
        check_finite(tmp_path / "a")
