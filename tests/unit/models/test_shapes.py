"""The shapes of a model's parameters, told without loading it, against the model itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.integration.training.families import FAMILIES, save_family

from organon.config.spec import BaseModel
from organon.models.shapes import Layout, layout_of

CONFIG_ALONE = sorted(set(FAMILIES) - {"phi", "phi3", "gpt_neox"})


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, save_family(request.param, tmp_path_factory.mktemp(request.param))


def layout(folder: Path) -> Layout | None:
    return layout_of(BaseModel(name="x", digest="x", folder=str(folder)))


def test_parameters_and_linear_layers_are_those_of_the_model(family: tuple[str, Path]) -> None:
    from transformers import AutoModelForCausalLM

    from organon.models.adapters import module_shapes

    model = AutoModelForCausalLM.from_pretrained(family[1])
    found = layout(family[1])
    assert found is not None
    assert found.count == sum(p.numel() for p in model.parameters())
    assert found.tied == (model.get_input_embeddings().weight is model.get_output_embeddings().weight)
    prefixes = ("model.", "transformer.", "gpt_neox.")
    ends = {id(model.get_input_embeddings()), id(model.get_output_embeddings())}
    linear = {
        name: shape
        for name, shape in module_shapes(model).items()
        if id(model.get_submodule(name)) not in ends and not name.endswith("wpe")
    }
    bare = {shorten(name, prefixes): shape for name, shape in found.linear.items()}
    assert bare == {shorten(name, prefixes): shape for name, shape in linear.items()}
    assert (found.layers, found.vocabulary, found.hidden, found.heads) == (2, 264, 32, 4)


def shorten(name: str, prefixes: tuple[str, ...]) -> str:
    return next((name.removeprefix(p) for p in prefixes if name.startswith(p)), name)


def test_a_config_without_weights_tells_the_same(family: tuple[str, Path], tmp_path: Path) -> None:
    """For a hub model of which only the small files are here."""
    name, folder = family
    whole = layout(folder)
    shutil.copy(folder / "config.json", tmp_path)
    alone = layout(tmp_path)
    assert whole is not None
    if name not in CONFIG_ALONE:
        assert alone is None  # said to be unknown, not guessed
        return
    assert alone is not None
    assert alone.count == whole.count
    assert sorted(alone.linear.values()) == sorted(whole.linear.values())


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_biases_and_separate_embeddings(tmp_path: Path, kind: str) -> None:
    changes: dict[str, Any] = {"tie_word_embeddings": False}
    if kind == "llama":
        changes |= {"attention_bias": True, "mlp_bias": True}
    whole = layout(save_family(kind, tmp_path / "a", **changes))
    (tmp_path / "b").mkdir()
    shutil.copy(tmp_path / "a" / "config.json", tmp_path / "b")
    alone = layout(tmp_path / "b")
    assert whole is not None
    assert alone is not None
    assert alone.count == whole.count


def test_what_is_not_known_is_not_guessed(tmp_path: Path) -> None:
    assert layout(tmp_path) is None
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "quantization_config": {}}))
    assert layout(tmp_path) is None
