"""CK-36..42: which folders a training leaves, best/ among them, and that they are what they say."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from organon.backends.lightning.backend import LightningBackend
from organon.backends.lightning.workdir import Workdir
from organon.config.spec import TrainSpec
from organon.evals.target import EvalModel
from organon.store.records import Checkpoint

KEY = "0123456789abcdef" * 4
SHORT: dict[str, Any] = {"epochs": 3, "max_length": 64, "kind": "lora", "quantization": "none"}
ADAPTER = ["adapter_config.json", "adapter_model.safetensors"]
MERGED = ["chat_template.jinja", "config.json", "generation_config.json", "merged.json", "model.safetensors",
          "tokenizer.json", "tokenizer_config.json"]  # fmt: skip


def spec_of(lab: Any, **changes: Any) -> TrainSpec:
    """8 rows: one step an epoch."""
    spec: TrainSpec = lab.spec(**{"rows": lab.words(8), "validation": [], **SHORT, **changes})
    return spec


def folders(workdir: Path) -> list[str]:
    return sorted(p.name for p in workdir.iterdir() if p.name.startswith(("epoch", "best", ".")) and p.is_dir())


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize(
    ("rules", "left"),
    [
        ({}, ["epoch_0", "epoch_1", "epoch_2"]),
        ({"epochs_to_save": "None"}, []),
        ({"epochs_to_save": "0, 2"}, ["epoch_0", "epoch_2"]),
        ({"epochs_to_save": 1}, ["epoch_1"]),
        ({"epochs_to_save": [0], "save_last_epoch_only": True}, ["epoch_2"]),
        ({"save_last_epoch_only": True, "max_steps": 2}, ["epoch_1"]),
    ],
)
def test_epochs_that_are_kept(lab: Any, tmp_path: Path, rules: dict[str, Any], left: list[str]) -> None:
    """CK-10, CK-37..40: the same spec, whatever the rule's form; the adapters of an epoch do not depend on it."""
    lab.train(spec_of(lab, **rules), tmp_path)
    assert folders(tmp_path) == left
    assert all(names(tmp_path / name) == ADAPTER for name in left)
    assert len(lab.metrics(tmp_path)) == rules.get("max_steps", 3)


def test_an_epoch_that_max_steps_cuts_off_is_refused_before_training(lab: Any, tmp_path: Path) -> None:
    """CK-39."""
    assert lab.run(spec_of(lab, epochs_to_save="0,2", max_steps=2), tmp_path) == 2
    found = lab.status(tmp_path)
    assert (found["code"], found["step"], found["where"]) == ("CFG-058", 0, "callbacks.epochs_to_save")
    assert "epoch 2 does not come: there are epochs 0 to 1" in found["error"]
    assert not folders(tmp_path)


async def fetched(spec: TrainSpec, workdir: Path) -> Checkpoint:
    backend = LightningBackend()
    job = await backend.submit(spec, KEY, workdir)  # done: it attaches
    return await backend.fetch(job, workdir)


async def test_without_any_folder_there_is_a_run_but_nothing_to_evaluate(lab: Any, tmp_path: Path) -> None:
    """CK-38."""
    spec = spec_of(lab, epochs_to_save="none", epochs=1)
    lab.train(spec, tmp_path)
    checkpoint = await fetched(spec, tmp_path)
    assert (checkpoint.kind, checkpoint.folder, checkpoint.model_id) == ("adapter", None, f"organon/{KEY}")
    from organon.errors import EvaluationError

    with pytest.raises(EvaluationError, match="epochs_to_save=none"):
        EvalModel.of_checkpoint(checkpoint, tmp_path, KEY)


# -- merged models -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def merged(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = spec_of(lab, epochs=2, learning_rate=3e-2, save_adapter_weights_only=False)
    return Path(lab.train(spec, tmp_path_factory.mktemp("merged")))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model(torch.tensor([[3, 70, 71, 4, 80]])).logits
    return out


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft 0.21 on transformers 5.23
def test_a_merged_save_holds_model_and_adapter_and_both_say_the_same(lab: Any, merged: Path, tmp_path: Path) -> None:
    """CK-42: in plain transformers."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    for epoch in ("epoch_0", "epoch_1"):
        assert names(merged / epoch) == sorted([*ADAPTER, *MERGED])
    base = AutoModelForCausalLM.from_pretrained(lab.model_folder)
    plain = logits(base)
    adapted = logits(PeftModel.from_pretrained(base, merged / "epoch_1"))
    for name in MERGED:
        shutil.copy(merged / "epoch_1" / name, tmp_path)
    whole = logits(AutoModelForCausalLM.from_pretrained(tmp_path))
    assert torch.allclose(adapted, whole, atol=1e-4)
    assert not torch.allclose(plain, whole, atol=0.1)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_an_adapter_beside_a_merged_model_is_not_put_on_it_in_silence(merged: Path, tmp_path: Path) -> None:
    """Upstream #98: transformers loads the adapter that it finds in a model's folder; we refuse such a base."""
    from transformers import AutoModelForCausalLM

    from organon.config.schema import AdapterConfig, ModelConfig
    from organon.errors import ConfigError
    from organon.models.folder import resolve_base
    from organon.models.load import load_base

    plain, adapter = (
        ModelConfig(name="merged", path=str(merged / "epoch_1")),
        AdapterConfig("lora", quantization="none"),
    )
    for name in MERGED:
        shutil.copy(merged / "epoch_1" / name, tmp_path)
    whole = logits(AutoModelForCausalLM.from_pretrained(tmp_path))
    assert not torch.allclose(logits(AutoModelForCausalLM.from_pretrained(merged / "epoch_1")), whole, atol=0.1)
    with pytest.raises(ConfigError, match="holds a model and an adapter") as caught:
        resolve_base(plain, adapter)
    assert "adapter_weights/" in caught.value.fix
    shutil.copytree(merged / "epoch_1", tmp_path / "stashed", ignore=shutil.ignore_patterns("adapter_*"))
    stashed = dataclasses.replace(plain, path=str(tmp_path / "stashed"))
    assert torch.equal(logits(load_base(resolve_base(stashed, adapter))), whole)


def test_the_trained_model_is_let_go_before_its_base_is_loaded_once_more(
    lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a merge would need the memory of both."""
    from organon.backends.lightning import saving, training
    from organon.backends.lightning.stop import StopRequest

    trained: list[weakref.ref[Any]] = []
    alive: list[bool] = []
    build, merge = training.build_model, saving.merge_adapter

    def built(*arguments: Any) -> Any:
        model = build(*arguments)
        trained.append(weakref.ref(model))
        return model

    def merged(*arguments: Any) -> None:
        alive.append(trained[0]() is not None)
        merge(*arguments)

    monkeypatch.setattr(training, "build_model", built)
    monkeypatch.setattr(saving, "merge_adapter", merged)
    spec = spec_of(lab, epochs=1, save_adapter_weights_only=False)
    training.train(spec, KEY, Workdir(tmp_path), report=lambda **_: None, stop=StopRequest())
    assert alive == [False]


async def test_stashed_adapters_are_found_by_evaluation(lab: Any, merged: Path, tmp_path: Path) -> None:
    """CK-41: out of the way of the merged model, the same bytes, and what is evaluated is the adapter."""
    spec = spec_of(
        lab,
        epochs=2,
        learning_rate=3e-2,
        save_adapter_weights_only=False,
        stash_adapter_weights=True,
        best_metric="train/loss",
    )
    lab.train(spec, tmp_path)
    assert folders(tmp_path) == ["best", "epoch_0", "epoch_1"]
    assert names(tmp_path / "epoch_1") == sorted([*MERGED, "adapter_weights"])
    assert names(tmp_path / "best") == sorted([*MERGED, "adapter_weights", "best.json"])
    for name in ADAPTER:
        assert (tmp_path / "epoch_1/adapter_weights" / name).read_bytes() == (merged / "epoch_1" / name).read_bytes()
    assert (tmp_path / "epoch_1/model.safetensors").read_bytes() == (merged / "epoch_1/model.safetensors").read_bytes()
    checkpoint = await fetched(spec, tmp_path)
    assert (checkpoint.folder, checkpoint.adapter, checkpoint.merged) == ("best", "adapter_weights", True)
    model = EvalModel.of_checkpoint(checkpoint, tmp_path, KEY)
    assert model.target is not None
    assert model.target.adapter == str(tmp_path / "best" / "adapter_weights")
    assert model.target.base == spec.base


def test_without_a_merged_save_nothing_is_stashed(lab: Any, tmp_path: Path) -> None:
    """CK-41: skipped where only the adapter is saved."""
    lab.train(spec_of(lab, epochs=1, stash_adapter_weights=True), tmp_path)
    assert names(tmp_path / "epoch_0") == ADAPTER


# -- the best one ------------------------------------------------------------------------------------


def val_losses(lab: Any, workdir: Path) -> dict[int, float]:
    return {row["step"]: row["val/loss"] for row in lab.metrics(workdir) if "val/loss" in row}


async def test_best_holds_the_weights_of_the_best_validation(lab: Any, tmp_path: Path) -> None:
    """A rate so high that the validation loss rises at last; the run's result is the best model, not the last."""
    spec = lab.spec(epochs=2, learning_rate=0.2, schedule="constant", best_metric="val/loss", run_val_every_n_steps=1)
    lab.train(spec, tmp_path)
    losses = val_losses(lab, tmp_path)
    best = min(losses, key=losses.__getitem__)
    assert best < max(losses), losses
    note = json.loads((tmp_path / "best" / "best.json").read_text())
    assert note == {"metric": "val/loss", "value": losses[best], "step": best, "epoch": round(best / 3, 6)}
    assert lab.status(tmp_path)["best"] == note
    stopped = lab.train(
        dataclasses.replace(spec, trainer=dataclasses.replace(spec.trainer, max_steps=best)), tmp_path / "b"
    )
    assert lab.adapter(tmp_path / "b", (best - 1) // 3) == weights_hash(tmp_path / "best")
    assert stopped
    checkpoint = await fetched(spec, tmp_path)
    assert checkpoint.folder == "best"
    assert checkpoint.metadata["best"] == note
    assert checkpoint.metadata["epochs"] == 2


def weights_hash(folder: Path) -> str:
    return hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"best_metric": "val/loss"}, 2, "val/loss needs validation rows, and there are none"),
        ({"best_metric": "train/los"}, 2, "'train/los' is not measured. Did you mean 'train/loss'?"),
        ({"early_stopping_patience": 2}, 2, "callbacks.early_stopping_metric: val/loss needs validation rows"),
    ],
)
def test_a_goal_that_is_never_measured_is_refused(
    lab: Any, tmp_path: Path, changes: dict[str, Any], code: int, said: str
) -> None:
    assert lab.run(spec_of(lab, **changes), tmp_path) == code
    assert said in lab.status(tmp_path)["error"]
    assert lab.status(tmp_path)["step"] == 0
