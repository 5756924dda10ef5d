"""The evaluation metrics in the wandb run that the training began, under ``eval/<task>/<metric>``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from loguru import logger

from organon.backends.lightning.metrics import wandb_mode
from organon.config.spec import TrainSpec
from organon.report.record import Metrics


def flat(metrics: Metrics) -> dict[str, float]:
    """``eval/<task>/<metric>`` for the tuned model, with ``/base`` and ``/difference`` beside it."""
    values = {}
    for task, cells in metrics.items():
        for metric, cell in cells.items():
            for name, suffix in (("tuned", ""), ("base", "/base"), ("difference", "/difference")):
                if cell.get(name) is not None:
                    values[f"eval/{task}/{metric}{suffix}"] = float(cell[name])
    return values


def mirror_metrics(spec: TrainSpec, key: str, metrics: Metrics, folder: Path) -> None:
    """Add the evaluation to the training's wandb run. A failure is a warning: wandb is a mirror."""
    if not spec.logger.wandb or not metrics:
        return
    directory = folder / "logs" / "wandb"
    directory.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("WANDB_SILENT", "true")  # the setting of that name comes too late for some of its words
    try:
        import wandb

        settings: Any = wandb.Settings(
            silent=True, console="off", disable_git=True, save_code=False, x_disable_meta=True
        )
        mirror = wandb.init(
            project=spec.logger.project,
            group=spec.logger.group,
            name=spec.name,
            id=key[:16],
            resume="allow",
            job_type="eval",
            dir=str(directory.parent),
            mode=wandb_mode(spec.logger.mode),
            settings=settings,
        )
        mirror.log(flat(metrics))
        mirror.finish()
    except Exception as error:  # noqa: BLE001 - whatever wandb raises, the run's own files are complete
        logger.warning("wandb did not take the evaluation metrics: {}", error)
