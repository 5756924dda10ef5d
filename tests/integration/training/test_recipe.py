"""The user's own recipe: loaded in the worker, checked before anything is spent, and part of the key (CK-43, CK-64)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from organon.backends.lightning.module import CompletionModule
from organon.backends.lightning.preference import PreferenceModule
from organon.backends.lightning.recipe import module_class
from organon.config.schema import MethodConfig
from organon.config.user_code import locate
from organon.errors import ConfigError

RECIPE = '''
"""Twice the loss, and how many tokens it is made of."""
import torch
from loguru import logger
from organon.backends.lightning.module import CompletionModule
from organon.backends.lightning.preference import PreferenceModule


class Twice(CompletionModule):
    names = ("loss", "answers")

    def micro_loss(self, micro):
        return 2 * self.loss_sum(micro), {"answers": torch.tensor(float(len(micro.lengths)))}

    def add_constraints(self, model):
        assert not self.optimizer.state
        for name, parameter in model.named_parameters():
            if "layers.0." in name:
                parameter.requires_grad_(False)


class Greedy(CompletionModule):
    def add_constraints(self, model):
        model.requires_grad_(True)


class Pairs(PreferenceModule):
    pass


class Stranger:
    pass


def function():
    pass
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.py"
    path.write_text(RECIPE)
    return path


def with_recipe(lab: Any, reference: str, **changes: Any) -> Any:
    """A spec as resolving makes it, on an unquantised base."""
    code = locate(reference, "method.recipe")
    return lab.spec(
        **{"kind": "lora", "quantization": "none", "epochs": 1, "gradient_clip": 0.0, **changes},
        method=MethodConfig(recipe=code.reference),
        code_digests={"method.recipe": f"{code.digest}:{code.name}"},
    )


def test_a_recipe_trains(lab: Any, file: Path, tmp_path: Path) -> None:
    """Its loss is minimised, its metrics are logged, its constraint holds and is called once."""
    import torch
    from safetensors.torch import load_file

    spec = with_recipe(lab, f"{file}:Twice")
    lab.train(spec, tmp_path / "mine")
    lab.train(dataclasses.replace(spec, method=MethodConfig(), code_digests={}), tmp_path / "plain")
    mine, plain = lab.metrics(tmp_path / "mine"), lab.metrics(tmp_path / "plain")
    assert mine[0]["train/loss"] == pytest.approx(2 * plain[0]["train/loss"], rel=1e-5)
    assert mine[0]["train/answers"] > 0
    assert mine[-1]["val/loss"] > 0
    assert mine[-1]["val/answers"] > 0
    weights = load_file(tmp_path / "mine" / "epoch_0" / "adapter_model.safetensors")
    moved = {name for name, weight in weights.items() if "lora_B" in name and torch.any(weight != 0)}
    assert moved
    assert all("layers.1." in name for name in moved)
    log = (tmp_path / "mine" / "logs.txt").read_text()
    assert log.count("constraints: Twice.add_constraints; 14 parameters frozen") == 1
    assert f"the module is {file}:Twice (sha256 " in log
    assert "constraints: none" in (tmp_path / "plain" / "logs.txt").read_text()


def test_a_recipe_resumes_exactly(lab: Any, file: Path, tmp_path: Path) -> None:
    spec = with_recipe(lab, f"{file}:Twice", dropout=0.2)
    lab.train(spec, tmp_path / "before")
    assert lab.run(spec, tmp_path / "after", kill_at="step:3") == -9
    lab.train(spec, tmp_path / "after")
    assert lab.final_state(tmp_path / "after") == lab.final_state(tmp_path / "before")


def test_a_recipe_in_a_package(lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its module's name, where Python finds it."""
    package = tmp_path / "path" / "mine_of_test"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "recipes.py").write_text(RECIPE)
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    found = module_class(with_recipe(lab, "mine_of_test.recipes:Twice"))
    assert issubclass(found, CompletionModule)
    assert found.__module__ == "mine_of_test.recipes"


REFUSED = {
    "Stranger": "'Stranger' is a class, and no recipe on organon.backends.lightning.module.CompletionModule.",
    "function": "'function' is a function, and no recipe on",
    "Pairs": "'Pairs' is a class, and no recipe on organon.backends.lightning.module.CompletionModule.",
    "Twcie": "'Twcie' is not in",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_recipe_is_refused(lab: Any, file: Path, name: str) -> None:
    spec = dataclasses.replace(with_recipe(lab, f"{file}:Twice"), method=MethodConfig(recipe=f"{file}:{name}"))
    with pytest.raises(ConfigError) as caught:
        module_class(spec)
    assert (caught.value.code, caught.value.where) == ("CFG-053", "method.recipe")
    assert REFUSED[name] in caught.value.cause
    assert ("Did you mean 'Twice'" if name == "Twcie" else "There are: Twice, Greedy") in caught.value.cause


def test_a_recipe_must_fit_its_method(lab: Any, file: Path) -> None:
    dpo = MethodConfig(type="dpo", recipe=f"{file}:Pairs")
    spec = dataclasses.replace(with_recipe(lab, f"{file}:Twice"), method=dpo)
    assert issubclass(module_class(spec), PreferenceModule)
    with pytest.raises(ConfigError, match=r"preference\.PreferenceModule\. There are: Pairs\n"):
        module_class(dataclasses.replace(spec, method=dataclasses.replace(dpo, recipe=f"{file}:Twice")))


def test_it_is_refused_before_the_model_is_loaded(lab: Any, file: Path, tmp_path: Path) -> None:
    assert lab.run(with_recipe(lab, f"{file}:Stranger"), tmp_path / "work") == 2
    found = lab.status(tmp_path / "work")
    assert (found["code"], found["where"]) == ("CFG-053", "method.recipe")
    assert "device" not in found  # it is said when loading begins


def test_a_file_edited_after_the_submit_is_refused(lab: Any, file: Path, tmp_path: Path) -> None:
    spec = with_recipe(lab, f"{file}:Twice")
    file.write_text(RECIPE.replace("2 * self", "3 * self"))
    assert lab.run(spec, tmp_path / "work") == 2
    found = lab.status(tmp_path / "work")
    assert (found["code"], found["where"]) == ("CFG-028", "method.recipe")
    assert "has changed since the run was started" in found["cause"]


def test_constraints_cannot_make_parameters_trainable(lab: Any, file: Path, tmp_path: Path) -> None:
    assert lab.run(with_recipe(lab, f"{file}:Greedy"), tmp_path / "work") == 2
    assert "Greedy.add_constraints makes" in lab.status(tmp_path / "work")["cause"]
