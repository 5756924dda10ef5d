"""States of the user's callbacks over an interrupt: as they were after the last step that counts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from organon.config.spec import TrainSpec
from organon.pipeline.resolve import _own_code as own_code

MODULE = '''
import os, signal
from pathlib import Path
import torch
from lightning.pytorch import Callback

class Watcher(Callback):
    """Counts the steps that begin, in a tensor; asks once to stop in the middle of step 2."""
    def __init__(self, path: str):
        self.path, self.begun = Path(path), torch.zeros(1, dtype=torch.int64)
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.begun += 1
        flag = self.path.with_suffix(".asked")
        if batch.step == 2 and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGTERM)
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        with self.path.open("a") as file:
            file.write(f"{batch.step} {int(self.begun)} {trainer.global_step}\\n")
    def state_dict(self):
        return {"begun": self.begun}
    def load_state_dict(self, state):
        self.begun = state["begun"]

class Numbered(Callback):
    def state_dict(self):
        return {"by_step": {1: "one"}}
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that caller and worker can import."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "callbacks_with_states.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(folder))
    return "callbacks_with_states"


def with_callback(spec: TrainSpec, target: str, **arguments: Any) -> TrainSpec:
    callbacks, digests = own_code(dataclasses.replace(spec.callbacks, extra=[{"_target_": target, **arguments}]))
    return dataclasses.replace(spec, callbacks=callbacks, code_digests=digests, allow_targets=[target])


def test_an_interrupted_step_leaves_no_trace(lab: Any, module: str, tmp_path: Path) -> None:
    """K3: each step begins once; Lightning's `global_step` goes on where it was."""
    spec = with_callback(lab.spec(), f"{module}.Watcher", path=str(tmp_path / "seen"))
    assert lab.run(spec, tmp_path / "work") == 143
    assert int(lab.final_state(tmp_path / "work")[:8]) == 1
    assert lab.run(spec, tmp_path / "work") == 0
    assert (tmp_path / "seen").read_text().splitlines() == [f"{step} {step} {step}" for step in range(1, 7)]


def test_a_state_that_no_checkpoint_holds_is_refused_before_the_first_step(
    lab: Any, module: str, tmp_path: Path
) -> None:
    assert lab.run(with_callback(lab.spec(), f"{module}.Numbered"), tmp_path / "work") == 2
    found = lab.status(tmp_path / "work")
    assert (found["code"], found["step"]) == ("CFG-053", 0)
    assert "0:Numbered/by_step is a dict with keys that are no text" in found["error"]
