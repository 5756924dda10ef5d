"""Merged models: the same answers as base and adapter, in a folder that anybody can load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.integration.training.conftest import TEMPLATE, save_tokenizer
from tests.integration.training.families import save_family
from tests.integration.training.test_adapters import LORA, QLORA, base_in, logits, plain_peft, trained

from organon.config.schema import AdapterConfig
from organon.errors import UserError
from organon.models import merge
from organon.models.adapters import save_adapter
from organon.models.load import load_base, quiet
from organon.models.merge import merge_adapter, own_dtype


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("bases")
    made = {name: save_family(name, place / name) for name in ("llama", "qwen2", "gpt2", "gemma3")}
    made["tied"] = save_family("llama", place / "tied", tie_word_embeddings=True)
    made["bf16"] = save_family("llama", place / "bf16", dtype="bfloat16")
    for folder in made.values():
        save_tokenizer(folder)
    return made


@pytest.fixture
def made(folders: dict[str, Path], tmp_path: Path) -> Any:
    """A trained adapter and its base: ``made(family, settings)`` -> base, adapter folder, model."""

    def make(family: str, settings: dict[str, Any]) -> Any:
        adapter = AdapterConfig(**settings)
        base = base_in(folders[family], adapter)
        model = trained(base, adapter)
        folder = tmp_path / "adapter"
        folder.mkdir()
        save_adapter(model, folder, base)
        return base, folder, model

    return make


def from_disk(folder: Path, **arguments: Any) -> Any:
    from transformers import AutoModelForCausalLM, logging

    logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(folder, **arguments)


KINDS = {
    "lora": ("llama", LORA),
    "dora": ("llama", {**LORA, "use_dora": True}),
    "rslora patterns": ("llama", {**LORA, "use_rslora": True, "rank_pattern": {"q_proj": 2}}),
    "pissa": ("llama", {**LORA, "init": "pissa"}),
    "conv1d": ("gpt2", {**LORA, "train_embeddings": True}),
    "gemma3": ("gemma3", LORA),
    "embeddings": ("llama", {**LORA, "train_embeddings": True}),
    "tied embeddings": ("tied", {**LORA, "train_embeddings": True}),
    "norms": ("llama", {**LORA, "modules_to_save": ["norm"]}),
    "biases": ("qwen2", {**LORA, "bias": "all"}),
    "lora on embeddings": ("llama", {**LORA, "target_modules": ["embed_tokens", "lm_head", "q_proj"]}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_model_answers_as_base_and_adapter(made: Any, tmp_path: Path, kind: str) -> None:
    """CK-73, CK-42: equal up to the rounding of float32 sums."""
    base, adapter, model = made(*KINDS[kind])
    merge_adapter(base, adapter, tmp_path / "merged")
    found = from_disk(tmp_path / "merged")
    torch.testing.assert_close(logits(found), logits(model), atol=2e-5, rtol=1e-5)
    tied = KINDS[kind][0] in ("tied", "gpt2", "gemma3")
    assert found.config.tie_word_embeddings == tied
    assert (found.get_input_embeddings().weight is found.get_output_embeddings().weight) == tied


def test_an_adapter_of_others_that_unties_the_embeddings(folders: dict[str, Path], tmp_path: Path) -> None:
    """Plain peft trains the output embeddings of a tied model alone, if told to; the merged config must say so."""
    from peft import LoraConfig, get_peft_model

    base = base_in(folders["tied"], AdapterConfig(**LORA))
    config = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    with quiet():
        model = get_peft_model(load_base(base, device="cpu"), config)
        head = model.get_base_model().lm_head.modules_to_save["default"]
        head.weight = torch.nn.Parameter(torch.randn_like(head.weight))
        model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    merge_adapter(base, tmp_path / "adapter", tmp_path / "merged")
    found = from_disk(tmp_path / "merged")
    torch.testing.assert_close(logits(found), logits(model), atol=2e-5, rtol=1e-5)
    assert not found.config.tie_word_embeddings


def test_what_the_folder_holds(made: Any, tmp_path: Path) -> None:
    """Model, tokenizer with the chat template, config, and a note; no path of this machine, no pickle."""
    base, adapter, _ = made("llama", LORA)
    merge_adapter(base, adapter, tmp_path / "merged")
    files = {file.name for file in (tmp_path / "merged").iterdir()}
    assert files >= {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "merged.json"}
    assert not {name for name in files if name.endswith((".bin", ".pt", ".pkl"))}
    assert (tmp_path / "merged" / "chat_template.jinja").read_text() == TEMPLATE
    for name in files - {"model.safetensors"}:
        assert str(base.folder) not in (tmp_path / "merged" / name).read_text()
    note = json.loads((tmp_path / "merged" / "merged.json").read_text())
    assert note["base"] == f"local/sha256-{base.digest[:16]}"
    assert note["trained_on"] == "none"


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_an_adapter_of_a_quantised_base(made: Any, tmp_path: Path, quantization: str) -> None:
    """Merged into the unquantised base: exactly that base with the adapter. From the model that was trained it
    differs by no more than the bases differ: the error of the quantisation, which the merged model is free of."""
    base, adapter, model = made("llama", {**QLORA, "quantization": quantization})
    merge_adapter(base, adapter, tmp_path / "merged")
    found = logits(from_disk(tmp_path / "merged"))
    plain = base_in(Path(base.folder), AdapterConfig(**LORA))
    torch.testing.assert_close(found, logits(plain_peft(plain, adapter)), atol=2e-5, rtol=1e-5)
    bases = logits(load_base(base, device="cpu")) - logits(load_base(plain, device="cpu"))
    assert 0 < float((found - logits(model)).abs().mean()) < 1.5 * float(bases.abs().mean())


@pytest.mark.parametrize("changes", [{}, {"use_dora": True}])
def test_the_saved_dtype_is_the_bases_own(made: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Rounded to bfloat16 once, after sums in float32."""
    base, adapter, model = made("bf16", {**LORA, **changes})
    assert own_dtype(base) == "bfloat16"
    merge_adapter(base, adapter, tmp_path / "merged")
    merge_adapter(base, adapter, tmp_path / "wide", dtype="float32")
    found, wide = from_disk(tmp_path / "merged"), from_disk(tmp_path / "wide")
    assert (found.dtype, wide.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(logits(wide), logits(model), atol=2e-5, rtol=1e-5)
    for name, weight in found.named_parameters():
        assert torch.equal(weight, wide.get_parameter(name).to(torch.bfloat16)), name


def test_a_failure_leaves_nothing(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, adapter, _ = made("llama", LORA)

    def full_disk(*arguments: Any) -> None:
        (arguments[-1] / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(merge, "save_full", full_disk)
    with pytest.raises(OSError, match="No space"):
        merge_adapter(base, adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    (tmp_path / "there").mkdir()
    with pytest.raises(OSError, match="No space"):
        merge_adapter(base, adapter, tmp_path / "there")
    assert list((tmp_path / "there").iterdir()) == []


def test_a_folder_with_files_is_not_written_into(made: Any, tmp_path: Path) -> None:
    base, adapter, _ = made("llama", LORA)
    with pytest.raises(UserError, match="not an empty folder"):
        merge_adapter(base, adapter, adapter)
    assert {file.name for file in adapter.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}


def test_a_sum_that_does_not_fit_the_dtype(made: Any, tmp_path: Path) -> None:
    """Case 70: an infinite weight is not exported."""
    from safetensors.torch import load_file, save_file

    base, adapter, _ = made("llama", LORA)
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: 1e4 * w for name, w in weights.items()}, adapter / "adapter_model.safetensors")
    with pytest.raises(UserError, match=r"do not fit torch\.float16") as caught:
        merge_adapter(base, adapter, tmp_path / "merged", dtype="float16")
    assert caught.value.code == "CKPT-070"
    assert not (tmp_path / "merged").exists()
