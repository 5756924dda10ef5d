"""What decides a training's result: the one answer for the cache's keys and for the checkpoints. No torch."""

from __future__ import annotations

from typing import Any

from organon.config.spec import TrainSpec, identity


def spec_identity(spec: TrainSpec) -> dict[str, Any]:
    """All fields of the spec that decide the trained weights' bytes."""
    found: dict[str, Any] = identity(spec)
    if spec.adapter.kind == "full":
        found["adapter"] = {"kind": "full"}  # rank and the like do nothing then
    for extra in found["callbacks"]["extra"]:
        if ":" in extra["_target_"]:  # where the file lies decides nothing; its digest is in `code_digests`
            extra["_target_"] = extra["_target_"].rpartition(":")[2]
    return found
