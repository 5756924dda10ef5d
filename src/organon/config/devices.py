"""What this machine can compute on, found without importing torch."""

from __future__ import annotations

import importlib.util
import os
import re
from functools import lru_cache
from pathlib import Path


def gpu_present() -> bool:
    """Whether an NVIDIA device is there (``/dev/dxg``: under WSL 2) and not hidden."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1", "NoDevFiles"):
        return False
    return any(Path(place).exists() for place in ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg"))


@lru_cache(maxsize=1)
def torch_has_cuda() -> bool:
    """Whether the installed torch was built for CUDA: its ``version.py`` says so without an import."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return False
    text = (Path(found.origin).parent / "version.py").read_text()
    built_for = re.search(r"^cuda\b[^=]*=\s*(.*)$", text, re.MULTILINE)
    return built_for is not None and built_for.group(1).strip() != "None"


def default_device() -> str:
    """``cuda`` where torch would find a GPU, else ``cpu``."""
    return "cuda" if torch_has_cuda() and gpu_present() else "cpu"
