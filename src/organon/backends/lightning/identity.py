"""What decides a training's result: the one answer for the cache's keys and for the checkpoints. No torch."""

from __future__ import annotations

from typing import Any

from organon.config.spec import TrainSpec, identity


def spec_identity(spec: TrainSpec) -> dict[str, Any]:
    """All fields of the spec that decide the trained weights' bytes."""
    found: dict[str, Any] = identity(spec)
    if spec.adapter.kind == "full":
        found["adapter"] = {"kind": "full"}  # rank and the like do nothing then
    return found
