"""How the pipeline tells its caller what it is doing; the command line shows it, a library user may not care."""

from __future__ import annotations

from typing import Any, Protocol


class OnEvent(Protocol):
    """Called as ``on_event("train", label="train", done=3, total=100, metrics={...})`` or ``("note", text=...)``."""

    def __call__(self, kind: str, **data: Any) -> None: ...


def ignore(kind: str, **data: Any) -> None:
    """The caller who does not care."""
