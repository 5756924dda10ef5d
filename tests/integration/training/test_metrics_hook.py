"""CK-14, CK-62: the user's own metrics and callbacks, which see everything and disturb nothing."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from organon.config.spec import TrainSpec
from organon.pipeline.resolve import _own_code as own_code

# Looks at all there is, draws random numbers of every kind, and leaves a gradient behind.
CURIOUS = """
import random
import numpy, torch

def curious(moment):
    random.random(), numpy.random.rand(), torch.rand(1)
    assert not moment.model.training and not torch.is_grad_enabled()
    rows = [batch for batch in moment.validation()]
    assert all(batch.position_ids is None and batch.input_ids.shape == batch.labels.shape for batch in rows)
    logits = moment.model(input_ids=rows[0].input_ids.to(moment.model.device)).logits
    with torch.enable_grad():
        moment.model(input_ids=rows[0].input_ids).logits.sum().backward()
    moment.model.train()
    return {
        "val/rows": sum(len(batch.lengths) for batch in rows),
        "val/first_logit": logits[0, 0, 0],
        "mine": 10 * moment.step + moment.metrics["val/loss"],
        "tokens_in_prompt": len(moment.tokenizer("ab")["input_ids"]),
    }

def broken(moment):
    if moment.step == 4:
        return {"val/mine": 1.0}
    raise KeyError(f"no such thing at {moment.step}")

def odd(moment):
    return {4: {"train/loss": 1.0}, 3: 7, 2: {"val/mine": "x"}}.get(moment.step, {"val/mine": moment.step})

def forward(moment):
    # The validation loss by hand, and an answer.
    total, count = 0.0, 0
    for batch in moment.validation():
        logits = moment.model(input_ids=batch.input_ids).logits[:, :-1]
        labels = batch.labels[:, 1:]
        total += torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="sum", ignore_index=-100)
        count += int((labels != -100).sum())
    answer = moment.model.generate(batch.input_ids[:1, :4], max_new_tokens=3, min_new_tokens=3, do_sample=False)
    return {"val/by_hand": total / count, "answer_length": answer.shape[1]}

def late(moment):
    if moment.step == 2:
        raise KeyError("not yet")
    return {"val/mine": 1.0}

def rising(moment):
    return {"val/mine": moment.step}

NUMBER = 3
"""

HARD = {"dropout": 0.2, "run_val_every_n_steps": 2}


def with_code(spec: TrainSpec, **callbacks: Any) -> TrainSpec:
    """The spec as the pipeline would make it of a config that names code of the user's."""
    found, digests = own_code(dataclasses.replace(spec.callbacks, **callbacks))
    return dataclasses.replace(spec, callbacks=found, code_digests=digests)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("code") / "mine.py"
    path.write_text(CURIOUS)
    return path


@pytest.fixture(scope="module")
def plain(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(lab.train(lab.spec(**HARD), tmp_path_factory.mktemp("plain")))


@pytest.fixture(scope="module")
def watched(lab: Any, file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = with_code(lab.spec(**HARD), metrics=f"{file}:curious")
    return Path(lab.train(spec, tmp_path_factory.mktemp("watched")))


def test_values_are_logged_under_their_names(lab: Any, watched: Path) -> None:
    """CK-14: in metrics.jsonl, metrics.csv and the status, at each validation and nowhere else."""
    assert "failed" not in (watched / "logs.txt").read_text()
    rows = lab.metrics(watched)
    assert [row["step"] for row in rows if "mine" in row] == [2, 3, 4, 6]
    last = rows[-1]
    assert last["mine"] == 60 + last["val/loss"]
    assert (last["val/rows"], last["tokens_in_prompt"]) == (6.0, 2.0)
    with (watched / "metrics.csv").open() as table:
        records = list(csv.DictReader(table))
    assert [float(r["mine"]) if r["mine"] else None for r in records] == [row.get("mine") for row in rows]
    assert {"mine", "val/rows", "val/first_logit"} <= set(lab.status(watched)["metrics"])


def test_the_training_is_the_same_with_and_without(lab: Any, watched: Path, plain: Path) -> None:
    """B1: bytes of the adapters, and the metrics that are ours."""
    assert lab.adapter(watched, 0) == lab.adapter(plain, 0)
    assert lab.adapter(watched) == lab.adapter(plain)
    ours = [
        {k: v for k, v in row.items() if k in first}
        for row, first in zip(lab.metrics(watched, times=False), lab.metrics(plain, times=False), strict=True)
    ]
    assert ours == lab.metrics(plain, times=False)


def test_an_exception_is_logged_and_the_training_goes_on(lab: Any, file: Path, plain: Path, tmp_path: Path) -> None:
    """CK-14: with its traceback once, then in one line."""
    spec = with_code(lab.spec(**HARD), metrics=f"{file}:broken", best_metric="val/mine")
    lab.train(spec, tmp_path)
    log = (tmp_path / "logs.txt").read_text()
    assert log.count("Traceback") == 1
    assert "callbacks.metrics failed at step 2; the training goes on" in log
    assert "callbacks.metrics failed again at step 3: KeyError: 'no such thing at 3'" in log
    assert f'File "{file}"' in log
    assert [row["step"] for row in lab.metrics(tmp_path) if "val/mine" in row] == [4]
    assert lab.adapter(tmp_path) == lab.adapter(plain)
    assert lab.status(tmp_path)["best"]["step"] == 4


def test_what_it_returns_must_be_numbers_under_new_names(lab: Any, file: Path, tmp_path: Path) -> None:
    spec = with_code(lab.spec(**HARD), metrics=f"{file}:odd")
    lab.train(spec, tmp_path)
    log = (tmp_path / "logs.txt").read_text()
    assert "ValueError: could not convert string to float: 'x'" in log
    assert "it returned a int, not a dict of numbers by name" in log
    assert "'train/loss' cannot be the name of a metric of yours" in log
    assert [row["val/mine"] for row in lab.metrics(tmp_path) if "val/mine" in row] == [6.0]


def test_a_killed_run_with_metrics_ends_as_an_undisturbed_one(
    lab: Any, file: Path, watched: Path, tmp_path: Path
) -> None:
    """K3, K5; the columns of the table too."""
    spec = with_code(lab.spec(**HARD), metrics=f"{file}:curious")
    assert lab.run(spec, tmp_path, kill_at="step:5") == -9
    lab.train(spec, tmp_path)
    assert lab.final_state(tmp_path) == lab.final_state(watched)
    assert lab.metrics(tmp_path, times=False) == lab.metrics(watched, times=False)
    header = [(p / "metrics.csv").read_text().splitlines()[0] for p in (tmp_path, watched)]
    assert header[0] == header[1]


@pytest.mark.parametrize(
    ("metrics", "edit", "code", "said"),
    [
        ("{file}:NUMBER", "", "CFG-053", "is a int, not a function"),
        (
            "{file}:curious",
            "import nowhere\n",
            "CFG-053",
            "cannot be loaded: ModuleNotFoundError: No module named 'nowhere'",
        ),
    ],
)
def test_code_that_cannot_be_used_is_refused_before_training(
    lab: Any, file: Path, tmp_path: Path, metrics: str, edit: str, code: str, said: str
) -> None:
    copy = tmp_path / "mine.py"
    copy.write_text(edit + file.read_text())
    spec = with_code(lab.spec(), metrics=metrics.format(file=copy))
    assert lab.run(spec, tmp_path / "work") == 2
    found = lab.status(tmp_path / "work")
    assert (found["code"], found["step"]) == (code, 0)
    assert said in found["error"]


def test_code_that_has_changed_since_is_refused(lab: Any, file: Path, tmp_path: Path) -> None:
    """It is another run then: its key holds the source's hash."""
    copy = tmp_path / "mine.py"
    copy.write_text(file.read_text())
    spec = with_code(lab.spec(), metrics=f"{copy}:curious")
    copy.write_text(file.read_text() + "\n")
    assert lab.run(spec, tmp_path / "work") == 2
    assert lab.status(tmp_path / "work")["code"] == "CFG-028"
    assert with_code(lab.spec(), metrics=f"{copy}:curious").code_digests != spec.code_digests


def test_the_best_model_by_a_metric_of_ones_own(lab: Any, file: Path, tmp_path: Path) -> None:
    spec = with_code(lab.spec(**HARD), metrics=f"{file}:curious", best_metric="mine", best_mode="max")
    lab.train(spec, tmp_path)
    assert json.loads((tmp_path / "best" / "best.json").read_text())["step"] == 6
    spec = with_code(lab.spec(**HARD), metrics=f"{file}:curious", best_metric="mein")
    assert lab.run(spec, tmp_path / "misspelt") == 1  # known only once the function has answered
    assert "'mein' is not measured. Did you mean 'mine'?" in lab.status(tmp_path / "misspelt")["error"]


def test_one_failure_hides_no_misspelt_metric(lab: Any, file: Path, tmp_path: Path) -> None:
    """What the function returned the next time is looked at."""
    spec = with_code(lab.spec(**HARD), metrics=f"{file}:late", best_metric="val/mein")
    assert lab.run(spec, tmp_path) == 1
    assert lab.status(tmp_path)["step"] == 3  # the next validation
    assert "'val/mein' is not measured. Did you mean 'val/mine'?" in lab.status(tmp_path)["error"]


def test_on_two_ranks_one_asks_and_all_decide_the_same(lab: Any, file: Path, tmp_path: Path) -> None:
    """Rank 0's values in all processes, its failures too; the training stops in both at once."""
    goals = {"best_metric": "val/mine", "early_stopping_metric": "val/mine", "early_stopping_patience": 1}
    spec = with_code(lab.spec(**HARD, devices=2), metrics=f"{file}:broken", **goals)
    lab.train(spec, tmp_path / "broken")
    assert lab.status(tmp_path / "broken")["best"]["step"] == 4
    assert "callbacks.metrics" not in (tmp_path / "broken" / "logs_rank1.txt").read_text()
    spec = with_code(lab.spec(**HARD, devices=2), metrics=f"{file}:rising", **goals)
    lab.train(spec, tmp_path / "rising")
    assert [row["step"] for row in lab.metrics(tmp_path / "rising")] == [1, 2, 3]
    assert "no better val/mine in 1 validations" in lab.status(tmp_path / "rising")["stopped_early"]
    assert json.loads((tmp_path / "rising" / "best" / "best.json").read_text())["step"] == 2


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_forward_pass_on_two_ranks(lab: Any, file: Path, tmp_path: Path, strategy: str) -> None:
    """Where the weights are shared, all processes take part in it."""
    plain = {"kind": "lora", "quantization": "none"}
    one = lab.train(with_code(lab.spec(**plain), metrics=f"{file}:forward"), tmp_path / "one")
    spec = with_code(lab.spec(**plain, devices=2, strategy=strategy), metrics=f"{file}:forward")
    two = lab.train(spec, tmp_path / "two")
    for place in (one, two):
        rows = [row for row in lab.metrics(place) if "val/loss" in row]
        assert [row["val/by_hand"] for row in rows] == pytest.approx([row["val/loss"] for row in rows], rel=1e-5)
        assert [row["answer_length"] for row in rows] == [7.0, 7.0]


# -- callbacks of the user's own ----------------------------------------------------------------------

MODULE = '''
from lightning.pytorch import Callback

class Counter(Callback):
    """Counts steps, ends the training after `most`, and remembers over interrupts."""
    def __init__(self, most: int, path: str):
        self.most, self.path, self.count = most, path, 0
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.count += 1
        with open(self.path, "a") as file:
            file.write(f"{batch.step} {self.count} {pl_module.metrics['train/loss']}\\n")
        trainer.should_stop = self.count >= self.most
    def state_dict(self):
        return {"count": self.count}
    def load_state_dict(self, state):
        self.count = state["count"]

class Stranger:
    pass
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that caller and worker can import."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "my_callbacks_of_h5.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(folder))
    return "my_callbacks_of_h5"


def counting(lab: Any, module: str, path: Path, most: int, **changes: Any) -> TrainSpec:
    extra = {"_target_": f"{module}.Counter", "most": most, "path": str(path)}
    spec = with_code(lab.spec(**HARD, **changes), extra=[extra])
    return dataclasses.replace(spec, allow_targets=[extra["_target_"]])


def test_a_callback_gets_lightnings_hooks_and_may_end_the_training(
    lab: Any, module: str, plain: Path, tmp_path: Path
) -> None:
    spec = counting(lab, module, tmp_path / "seen", most=4)
    assert lab.run(spec, tmp_path / "work") == 0
    seen = [line.split() for line in (tmp_path / "seen").read_text().splitlines()]
    rows = lab.metrics(tmp_path / "work")
    assert [(int(step), float(loss)) for step, _, loss in seen] == [(row["step"], row["train/loss"]) for row in rows]
    assert len(rows) == 4
    assert lab.status(tmp_path / "work")["stopped_early"] == "a callback of the user's asked to stop"
    assert sorted(p.name for p in (tmp_path / "work").glob("epoch_*")) == ["epoch_0", "epoch_1"]
    assert lab.adapter(tmp_path / "work", 0) == lab.adapter(plain, 0)


def test_a_callbacks_state_survives_a_kill(lab: Any, module: str, tmp_path: Path) -> None:
    """K3: without its state it would count to 4 from the checkpoint on."""
    spec = counting(lab, module, tmp_path / "seen", most=4)
    assert lab.run(spec, tmp_path / "work", kill_at="step:3") == -9
    assert lab.run(spec, tmp_path / "work") == 0
    assert [line.split()[:2] for line in (tmp_path / "seen").read_text().splitlines()] == [
        ["1", "1"], ["2", "2"], ["3", "3"], ["4", "4"],
    ]  # fmt: skip


def test_only_allowed_classes_that_are_callbacks(lab: Any, module: str, tmp_path: Path) -> None:
    """S2: what the spec allows decides, in the worker as well."""
    spec = counting(lab, module, tmp_path / "seen", most=4)
    refused = {
        "SEC-053": dataclasses.replace(spec, allow_targets=[]),
        "CFG-028": dataclasses.replace(spec, code_digests={}),
        "CFG-053": dataclasses.replace(
            with_code(spec, extra=[{"_target_": f"{module}.Stranger"}]), allow_targets=[f"{module}.Stranger"]
        ),
        "CFG-046": dataclasses.replace(
            spec, callbacks=dataclasses.replace(spec.callbacks, extra=[{**spec.callbacks.extra[0], "msot": 3}])
        ),
    }
    for code, changed in refused.items():
        assert lab.run(changed, tmp_path / code) == 2
        assert lab.status(tmp_path / code)["code"] == code
    assert not (tmp_path / "seen").exists()


def test_name_arguments_and_source_are_in_the_key(lab: Any, module: str, tmp_path: Path) -> None:
    from organon.config.spec import identity

    keys = [identity(counting(lab, module, tmp_path / "seen", most)) for most in (3, 4)]
    assert keys[0] != keys[1]
    source = Path(str(importlib.import_module(module).__file__))
    source.write_text(source.read_text() + "\n")
    assert identity(counting(lab, module, tmp_path / "seen", 3)) != keys[0]
