"""CK-36..42 by command line: the folders that each rule leaves, in the place that the user names.

The command line runs in this process and its workers are forked from a server that has everything
imported; one command runs as a user runs it, through a shell.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.main_job.process import clean_environment
from tests.integration.training.conftest import Lab

from organon.cli.main import main
from organon.store.store import Store

ADAPTER = ["adapter_config.json", "adapter_model.safetensors"]
BASICS = ("model=tiny", "dataset=messages", "dataset.source=rows.jsonl", "logger=none", "trainer=cpu",
          "trainer.epochs=3", "trainer.threads=1", "trainer.global_batch_size=8", "trainer.micro_batch_size=8",
          "dataset.validation_fraction=0.2", "name=warm-otter")  # fmt: skip
PLACE = "checkpoint_dir=outputs/ck-out-{name}"

Train = Callable[..., int]


@pytest.fixture(scope="session")
def spawn(tmp_path_factory: pytest.TempPathFactory) -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["organon.backends.lightning.training", "peft", "transformers", "bitsandbytes"])
    return Lab(Path(), tmp_path_factory.mktemp("data"), context).spawn


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spawn: Any, capsys: pytest.CaptureFixture[str]) -> Train:
    """``organon train`` on ten rows in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ORGANON_STORE", raising=False)
    monkeypatch.setattr("organon.backends.lightning.backend._spawn", spawn)
    rows = [
        {"messages": [{"role": "user", "content": w}, {"role": "assistant", "content": w.upper()}]}
        for w in "abcdefghij"
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return lambda *overrides: main(["train", *BASICS, *overrides])


def listing(folder: Path) -> dict[str, list[str]]:
    """Each folder's files, relative to it."""
    return {
        place.name: sorted(str(f.relative_to(place)) for f in place.rglob("*") if f.is_file())
        for place in sorted(folder.iterdir())
    }


MERGED = ["chat_template.jinja", "config.json", "generation_config.json", "merged.json", "model.safetensors",
          "tokenizer.json", "tokenizer_config.json"]  # fmt: skip
ONLY_LAST = {"epoch_2": ADAPTER}
RULES: dict[str, tuple[list[str], dict[str, list[str]]]] = {
    "CK-37 all": ([], {f"epoch_{n}": ADAPTER for n in range(3)}),
    "CK-38 none": (["callbacks.epochs_to_save=None"], {}),
    "CK-39 text": (['callbacks.epochs_to_save="0,2"'], {"epoch_0": ADAPTER, "epoch_2": ADAPTER}),
    "CK-39 list": (["callbacks.epochs_to_save=[1]"], {"epoch_1": ADAPTER}),
    "CK-40 last": (["callbacks.save_last_epoch_only=true", "callbacks.epochs_to_save=[0]"], ONLY_LAST),
    "CK-41 skipped": (["callbacks.save_last_epoch_only=true", "callbacks.stash_adapter_weights=true"], ONLY_LAST),
    "CK-41 stashed": (
        ["callbacks.save_last_epoch_only=true", "callbacks.save_adapter_weights_only=false",
         "callbacks.stash_adapter_weights=true"],
        {"epoch_2": sorted([*MERGED, *(f"adapter_weights/{name}" for name in ADAPTER)])},
    ),
    "CK-42 merged": (
        ["callbacks.save_last_epoch_only=true", "callbacks.save_adapter_weights_only=false"],
        {"epoch_2": sorted([*MERGED, *ADAPTER])},
    ),
    "best": (
        ["callbacks.epochs_to_save=none", "callbacks.best_metric=val/loss"], {"best": sorted([*ADAPTER, "best.json"])}
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_leaves_its_folders(
    train: Train, tmp_path: Path, rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """CK-36: ck-out-{name}/epoch_N/ with the run's name; files of the user's own, to be changed and removed."""
    overrides, left = RULES[rule]
    assert train(*overrides, PLACE) == 0, capsys.readouterr().err
    place = tmp_path / "outputs" / "ck-out-warm-otter"
    assert listing(place) == left
    assert all(os.access(file, os.W_OK) and file.stat().st_nlink == 1 for file in place.rglob("*") if file.is_file())
    overridden = "save_last_epoch_only=true overrides callbacks.epochs_to_save=[0]" in capsys.readouterr().err
    assert overridden == (rule == "CK-40 last")


def test_from_the_store_and_twice_and_not_over_other_files(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train() == 0
    assert not list((tmp_path / "outputs").glob("ck-out*"))
    assert train("checkpoint_dir=here") == 0
    assert "cached    True" in capsys.readouterr().out
    assert listing(tmp_path / "here") == {f"epoch_{n}": ADAPTER for n in range(3)}
    assert train("checkpoint_dir=here") == 0  # it is all there
    (tmp_path / "here" / "epoch_1" / "adapter_config.json").write_text("{}")
    assert train("checkpoint_dir=here") == 2
    assert "holds files that are not of this training, such as epoch_1/adapter_config.json" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    assert train("checkpoint_dir=other", "seed=1") == 2  # before anything is trained
    assert "other holds files that are not of this training, such as thesis.tex" in capsys.readouterr().err
    assert len(list((tmp_path / "outputs" / "store" / "runs").iterdir())) == 1
    (tmp_path / "other" / "thesis.tex").unlink()
    assert train("checkpoint_dir=other") == 0
    assert listing(tmp_path / "other") == {f"epoch_{n}": ADAPTER for n in range(3)}
    [run] = (tmp_path / "outputs" / "store" / "runs").iterdir()
    Store.open("outputs/store").discard("runs", run.name)
    assert train("checkpoint_dir=other") == 0  # trained again: they are its own files
    assert train("checkpoint_dir=other", "seed=1") == 2


@pytest.mark.parametrize(
    ("verb", "overrides", "said"),
    [
        ("train", ["callbacks.epochs_to_save=[0,3]"], "epoch 3 does not come: there are epochs 0 to 2"),
        ("train", ["callbacks.epochs_to_save=0,2"], "'callbacks.epochs_to_save=[0,2]' for a list"),
        ("train", ["backend=fake", "checkpoint_dir=x"], "backend fake yields no weights on this machine"),
        ("run", ["callbacks.epochs_to_save=none", "eval=capitalization"], "eval=none, or keep the best ones"),
        ("train", ["callbacks.metrics=mine.py:f"], "no file '"),
        ("train", ["callbacks.best_metric=val/loss", "dataset.validation_fraction=0"], "needs validation rows"),
        ("train", ["callbacks.best_metric=val_loss"], "'val_loss' is not measured. Did you mean 'val/loss'?"),
        ("train", ["checkpoint_dir=/proc/foo"], "checkpoint_dir: /proc/foo cannot be made"),
        ("train", ["optim.schedule=polynomial"], "'polynomial' is not a choice"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_spent(
    train: Train, tmp_path: Path, verb: str, overrides: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """CK-38, CK-39, CK-53."""
    assert main([verb, *BASICS, *overrides]) == 2
    assert said in capsys.readouterr().err
    assert not list((tmp_path / "outputs").glob("store/staging/runs/*"))


def test_an_early_stop_and_the_best_model_are_in_the_record(train: Train, tmp_path: Path) -> None:
    rules = ["callbacks.best_metric=train/loss", "callbacks.best_mode=max", "callbacks.early_stopping_patience=1"]
    goal = ["callbacks.early_stopping_metric=train/loss", "callbacks.early_stopping_mode=max", "eval=none"]
    assert main(["run", *BASICS, *rules, *goal]) == 0
    run = tmp_path / "outputs" / "runs" / "warm-otter"
    told = json.loads((run / "result.json").read_text())
    assert told["train"]["steps"] == 2
    assert told["train"]["best"]["step"] == 1
    assert "no better train/loss in 1 validations" in told["train"]["stopped_early"]
    assert told["paths"]["checkpoints"] == ["epoch_0", "epoch_1", "best"]
    assert (run / "best" / "adapter_model.safetensors").is_file()
    assert "no better train/loss" in (run / "report.html").read_text()


@pytest.mark.slow
def test_the_quotes_that_the_documentation_shows_work_in_a_shell(train: Train, tmp_path: Path) -> None:
    """CK-36, CK-39: as a user types it."""
    line = f"""{sys.executable} -m organon.cli train {" ".join(BASICS)} 'callbacks.epochs_to_save="0,2"' '{PLACE}'"""
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=clean_environment(), check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "outputs" / "ck-out-warm-otter").iterdir()) == ["epoch_0", "epoch_2"]


def test_a_failing_metrics_function_is_told(train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Once, also where the training comes from the store."""
    (tmp_path / "mine.py").write_text("def f(moment):\n    raise ValueError('boom')\n")
    for _ in range(2):
        assert train("callbacks.metrics=mine.py:f") == 0
        told = [line for line in capsys.readouterr().err.splitlines() if "callbacks.metrics raised" in line]
        assert len(told) == 1
        assert "warning: callbacks.metrics raised ValueError: boom; it is left out; see " in told[0]
