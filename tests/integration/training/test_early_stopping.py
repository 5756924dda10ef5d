"""Early stopping of a real worker: when, what it leaves, and that an interrupt changes nothing of it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

# The rate is so high that the validation loss goes up and down.
WILD: dict[str, Any] = {
    "epochs": 4,
    "learning_rate": 0.2,
    "schedule": "constant",
    "run_val_every_n_steps": 1,
    "early_stopping_patience": 2,
    "best_metric": "val/loss",
    "dropout": 0.1,
}


@pytest.fixture(scope="module")
def stopped(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(lab.train(lab.spec(**WILD), tmp_path_factory.mktemp("stopped")))


def test_it_stops_after_so_many_validations_without_a_gain(lab: Any, stopped: Path) -> None:
    losses = [row["val/loss"] for row in lab.metrics(stopped)]
    best = losses.index(min(losses))
    assert len(losses) == best + 1 + 2 < 12  # of 12 steps
    status = lab.status(stopped)
    assert (status["state"], status["step"], status["total_steps"]) == ("succeeded", len(losses), 12)
    assert (
        f"no better val/loss in 2 validations; the best one is {losses[best]:g} at step {best + 1}"
        in status["stopped_early"]
    )
    assert f"stopped after step {len(losses)}" in (stopped / "logs.txt").read_text()
    assert int(lab.final_state(stopped)[:8]) == len(losses)


def test_the_epoch_it_stopped_in_is_saved(lab: Any, stopped: Path) -> None:
    steps = len(lab.metrics(stopped))
    epoch = (steps - 1) // 3
    assert sorted(p.name for p in stopped.glob("epoch_*")) == [f"epoch_{n}" for n in range(epoch + 1)]
    assert json.loads((stopped / "best" / "best.json").read_text()) == lab.status(stopped)["best"]


def test_it_saves_that_epoch_whatever_epochs_were_named_unless_none(lab: Any, tmp_path: Path) -> None:
    lab.train(lab.spec(**WILD, epochs_to_save=[3]), tmp_path / "named")
    steps = len(lab.metrics(tmp_path / "named"))
    assert [p.name for p in (tmp_path / "named").glob("epoch_*")] == [f"epoch_{(steps - 1) // 3}"]
    lab.train(lab.spec(**WILD, epochs_to_save="none"), tmp_path / "none")
    assert not list((tmp_path / "none").glob("epoch_*"))
    assert (tmp_path / "none" / "best").is_dir()


@pytest.mark.parametrize("point", ["step:{}", "validation:2", "checkpoint:{}:before_rename", "best:{}:before_rename"])
def test_a_killed_run_stops_at_the_same_step(lab: Any, stopped: Path, tmp_path: Path, point: str) -> None:
    """K3 for early stopping: what has been waited is part of the checkpoint."""
    last = len(lab.metrics(stopped))
    at = {"step:{}": last, "best:{}:before_rename": lab.status(stopped)["best"]["step"]}.get(point, last // 2)
    spec = lab.spec(**WILD)
    assert lab.run(spec, tmp_path, kill_at=point.format(at)) == -9
    lab.train(spec, tmp_path)
    assert_same(lab, tmp_path, stopped)


def assert_same(lab: Any, after: Path, before: Path) -> None:
    assert lab.final_state(after) == lab.final_state(before)
    assert lab.metrics(after, times=False) == lab.metrics(before, times=False)
    for file in [*before.glob("epoch_*/*"), *before.glob("best/*")]:
        assert (after / file.relative_to(before)).read_bytes() == file.read_bytes()
    told = ("stopped_early", "best", "step")
    assert {k: lab.status(after)[k] for k in told} == {k: lab.status(before)[k] for k in told}


def test_a_second_start_of_a_stopped_run_trains_nothing(lab: Any, stopped: Path) -> None:
    before = (lab.final_state(stopped), (stopped / "metrics.jsonl").read_bytes(), lab.status(stopped)["stopped_early"])
    lab.train(lab.spec(**WILD), stopped)
    assert (
        lab.final_state(stopped),
        (stopped / "metrics.jsonl").read_bytes(),
        lab.status(stopped)["stopped_early"],
    ) == before


def test_a_metric_to_bring_up(lab: Any, tmp_path: Path) -> None:
    """A training loss that falls, to be brought up: the first value is the best, and the second one ends it."""
    goal = {"early_stopping_metric": "train/loss", "early_stopping_mode": "max", "early_stopping_patience": 1}
    lab.train(lab.spec(**goal, run_val_every_n_steps=1, warmup_steps=0, validation=[]), tmp_path)
    losses = [row["train/loss"] for row in lab.metrics(tmp_path)]
    assert all(later > earlier for earlier, later in itertools.pairwise(losses[:-1]))
    assert losses[-1] <= losses[-2]
