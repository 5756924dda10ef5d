"""Loading bases and adapters: what training and evaluation share."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from organon.config.schema import AdapterConfig, ModelConfig
from organon.config.spec import BaseModel
from organon.errors import ConfigError, UserError
from organon.models import load
from organon.models.adapters import attach_adapter, new_adapter, save_adapter
from organon.models.folder import EMBEDDED_FOLDER, public_name, resolve_base
from organon.models.load import load_base, load_tokenizer, named_dtype

IDS = torch.tensor([[3, 70, 71, 72, 1, 4]])


def base_of(lab: Any, adapter: AdapterConfig | None = None, **model: Any) -> BaseModel:
    return resolve_base(ModelConfig(name="llama", path=str(lab.model_folder), **model), adapter or AdapterConfig())


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    model.eval()
    return model(IDS).logits


def test_4_bit_on_a_cpu(lab: Any) -> None:
    """Bad input 60 no more: bitsandbytes works here. Nothing is printed, nothing is warned of."""
    from bitsandbytes.nn import Linear4bit

    model = load_base(base_of(lab), device="cpu")
    layers = [m for m in model.modules() if isinstance(m, Linear4bit)]
    assert len(layers) == 14
    assert {layer.weight.quant_type for layer in layers} == {"nf4"}
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)
    assert not any(p.requires_grad for p in model.parameters())
    plain = load_base(base_of(lab, AdapterConfig(kind="lora")), device="cpu")
    assert 0 < float((logits(model) - logits(plain)).abs().mean()) < 0.5 * float(logits(plain).abs().mean())


def test_repeated_evaluation_changes_nothing(lab: Any) -> None:
    model = load_base(base_of(lab), device="cpu")
    first = logits(model)
    assert torch.equal(first, logits(model))


@pytest.mark.parametrize(("name", "expected"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_dtype(lab: Any, name: str, expected: torch.dtype) -> None:
    model = load_base(base_of(lab, AdapterConfig(kind="lora"), dtype=name), device="cpu")
    assert model.lm_head.weight.dtype == expected
    assert named_dtype("auto", torch.device("cuda")) == torch.bfloat16


def test_the_adapters_start_depends_on_the_seed_alone(lab: Any) -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(int.from_bytes(os.urandom(4), "big"))
        model = new_adapter(load_base(base_of(lab), device="cpu"), AdapterConfig(rank=4), seed=seed)
        return torch.cat([p.flatten() for p in model.parameters() if p.requires_grad])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_a_saved_adapter_gives_the_same_answers(lab: Any, tmp_path: Path) -> None:
    base = base_of(lab)
    model = new_adapter(load_base(base, device="cpu"), AdapterConfig(rank=4, alpha=8), seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1)
    save_adapter(model, tmp_path, base)
    found = attach_adapter(load_base(base, device="cpu"), tmp_path)
    assert torch.equal(logits(found), logits(model))
    assert not any(p.requires_grad for p in found.parameters())
    with found.disable_adapter():
        assert torch.equal(logits(found), logits(load_base(base, device="cpu")))
    again = attach_adapter(found, tmp_path, "second")
    assert again is found
    assert set(again.peft_config) == {"default", "second"}


def test_names_in_files_that_are_passed_on(lab: Any, tmp_path: Path) -> None:
    assert public_name(BaseModel(name="x", digest="d@1", hub_id="owner/model", revision="1")) == "owner/model"
    assert public_name(BaseModel(name="x", digest="d", folder=str(EMBEDDED_FOLDER))) == "organon/tiny"
    assert public_name(base_of(lab)) == f"local/sha256-{base_of(lab).digest[:16]}"


def test_a_named_chat_template_is_used(lab: Any, tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{{ messages[0].content }}!")
    tokenizer = load_tokenizer(base_of(lab, chat_template=str(tmp_path / "t.jinja")))
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "hi!"


def test_a_model_that_transformers_cannot_load(lab: Any, tmp_path: Path) -> None:
    for file in lab.model_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0garbage")
    base = resolve_base(ModelConfig(name="x", path=str(tmp_path)), AdapterConfig())
    with pytest.raises(ConfigError, match="transformers cannot load it") as caught:
        load_base(base, device="cpu")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_base_with_nan_is_refused_before_it_is_quantised(lab: Any, tmp_path: Path, quantization: str) -> None:
    """Case 70: quantised, the NaN would be an ordinary number."""
    shutil.copytree(lab.model_folder, tmp_path / "bad")
    file = tmp_path / "bad" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = torch.nan
    save_file(tensors, file, {"format": "pt"})
    adapter = AdapterConfig(quantization=quantization)
    base = resolve_base(ModelConfig(name="x", path=str(tmp_path / "bad")), adapter)
    assert base.quantization == quantization
    with pytest.raises(UserError, match=r"up_proj\.weight: 1 of \d+ values are NaN") as caught:
        load_base(base, device="cpu")
    assert caught.value.code == "CKPT-070"


def test_a_good_base_is_read_through_once(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr(load, "check_finite", read.append)
    monkeypatch.setattr(load, "_finite", set())
    for _ in range(2):
        load_base(base_of(lab), device="cpu")
    assert [file.name for file in read] == ["model.safetensors"]


def test_adapter_config_is_the_same_under_any_hash_seed(lab: Any, tmp_path: Path) -> None:
    base = base_of(lab)
    model = new_adapter(load_base(base, device="cpu"), AdapterConfig(target_modules=["v_proj", "q_proj"]), seed=0)
    save_adapter(model, tmp_path, base)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["target_modules"] == ["q_proj", "v_proj"]
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (8, 16, "LORA")
