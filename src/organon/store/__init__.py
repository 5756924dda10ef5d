"""The content-addressed store. Public names are imported on first use, so that a key costs no SQLite."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from organon.store.cache import Cache, register_results_class
    from organon.store.files import write_atomic
    from organon.store.locks import LockBusy, LockInfo
    from organon.store.records import Checkpoint
    from organon.store.store import Entry, Store

__all__ = ["Cache", "Checkpoint", "Entry", "LockBusy", "LockInfo", "Store", "register_results_class", "write_atomic"]

_HOME = {
    "Cache": "organon.store.cache",
    "Checkpoint": "organon.store.records",
    "Entry": "organon.store.store",
    "LockBusy": "organon.store.locks",
    "LockInfo": "organon.store.locks",
    "Store": "organon.store.store",
    "register_results_class": "organon.store.cache",
    "write_atomic": "organon.store.files",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'organon.store' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOME[name]), name)
