"""What a training process on a CPU asks of the libraries below torch."""

from __future__ import annotations

import ctypes
import os
import sys

# oneDNN keeps the kernels that it has made, one for each shape of a product: 0.65 MB each (measured), 1024 of them
# by default. A step with two lengths of rows needs about 250.
ONEDNN_KERNELS = 256

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_MMAP_BYTES, _TRIM_BYTES = 1 << 30, 2**31 - 1


def prepare_cpu() -> bool:
    """Less time and memory for the same numbers; before the process's first matrix product.

    Bounds oneDNN's kernels, unless the environment says otherwise, and makes glibc reuse what is freed: each
    tensor of a step is asked for again in the next, and by default large ones are mapped anew each time and
    cleared by the system, which is 6 % of a step (measured), at the same peak. Returns whether the second worked
    (glibc on Linux only).
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(ONEDNN_KERNELS))
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)) and bool(mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES))
