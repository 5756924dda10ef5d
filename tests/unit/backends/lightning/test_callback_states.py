"""What a checkpoint can hold of the user's callbacks, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping

from organon.backends.lightning.callback_states import packed
from organon.backends.lightning.checkpoint_io import Checkpoints, TrainState
from organon.errors import ConfigError


def through_a_checkpoint(folder: Path, states: dict[str, Any]) -> dict[str, Any]:
    Checkpoints(folder).save(TrainState(step=1, tensors={"model/w": torch.ones(2)}, identity={}, callbacks=states))
    found = Checkpoints(folder).latest({})
    assert found is not None
    assert list(found.tensors) == ["model/w"]
    return found.callbacks


def test_tensors_and_plain_data_come_back_as_they_were(tmp_path: Path) -> None:
    half = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    state = {"a": {"b": half, "n": [1, 2.5, None, True, "x", {"deep": torch.tensor(3)}]}, "a/b": half[:1], "e": {}}
    found = through_a_checkpoint(tmp_path, {"0:Mine": state})["0:Mine"]
    assert torch.equal(found["a"]["b"], half)
    assert found["a"]["b"].dtype == torch.bfloat16
    assert torch.equal(found["a/b"], half[:1])
    assert torch.equal(found["a"]["n"].pop()["deep"], torch.tensor(3))
    assert (found["a"]["n"], found["e"]) == ([1, 2.5, None, True, "x"], {})


def test_lightnings_own_early_stopping(tmp_path: Path) -> None:
    """Its best value is a tensor."""
    callback = EarlyStopping("val/loss", patience=7)
    callback.best_score, callback.wait_count = torch.tensor(0.25), 2
    again = EarlyStopping("val/loss")
    again.load_state_dict(through_a_checkpoint(tmp_path, {"0:EarlyStopping": callback.state_dict()})["0:EarlyStopping"])
    assert (again.patience, again.wait_count, float(again.best_score)) == (7, 2, 0.25)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({1: "one"}, "0:Mine/x/0 is a dict with keys that are no text"),
        ((1, 2), "0:Mine/x/0 is a tuple"),
        ({1, 2}, "0:Mine/x/0 is a set"),
        (Path("a"), "0:Mine/x/0 is a PosixPath"),
        (b"", "0:Mine/x/0 is a bytes"),
    ],
)
def test_what_would_come_back_otherwise_is_refused(value: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=f"the state of callback 0:Mine cannot be kept in a checkpoint: {said}") as e:
        packed({"0:Mine": {"x": [value]}})
    assert (e.value.code, e.value.where) == ("CFG-053", "callbacks.extra")
