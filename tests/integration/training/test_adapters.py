"""Every kind of adapter: trained, saved, loaded with plain peft, loaded by us, and switched off again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.integration.training.conftest import save_tokenizer
from tests.integration.training.families import save_family

from organon.config.schema import AdapterConfig, ModelConfig
from organon.config.spec import BaseModel
from organon.errors import ConfigError, UserError
from organon.models.adapters import attach_adapter, new_adapter, save_adapter
from organon.models.folder import resolve_base
from organon.models.load import load_base, quiet

IDS = torch.tensor([[3, 70, 71, 72, 73, 80, 81, 1, 4]])
LORA = {"kind": "lora", "quantization": "none", "rank": 4, "alpha": 8}
QLORA = {"kind": "qlora", "quantization": "nf4", "rank": 4, "alpha": 8}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder for each family that these tests need; ``tied`` is a Llama with tied embeddings."""
    place = tmp_path_factory.mktemp("bases")
    made = {name: save_family(name, place / name) for name in ("llama", "qwen2", "gpt2", "gpt_neox")}
    made["tied"] = save_family("llama", place / "tied", tie_word_embeddings=True)
    for folder in made.values():
        save_tokenizer(folder)
    return made


def base_in(folder: Path, adapter: AdapterConfig) -> BaseModel:
    return resolve_base(ModelConfig(name=folder.name, path=str(folder)), adapter)


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    model.eval()
    return model(IDS, use_cache=False).logits


def trained(base: BaseModel, adapter: AdapterConfig, steps: int = 3) -> Any:
    """A new adapter after a few real steps; every trainable parameter must have moved."""
    model = new_adapter(load_base(base, device="cpu"), adapter, seed=0).train()
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in parameters.items()}
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.05, weight_decay=0.0)
    for _ in range(steps):
        with quiet():
            model(IDS, labels=IDS, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert all(p.dtype == torch.float32 for p in parameters.values())
    still = [name for name, p in parameters.items() if torch.equal(p, before[name])]
    assert not still
    return model


def plain_peft(base: BaseModel, folder: Path) -> Any:
    """The adapter as anybody would load it."""
    from peft import PeftModel

    with quiet():
        return PeftModel.from_pretrained(load_base(base, device="cpu"), folder)


KINDS = {
    "lora": ("llama", LORA),
    "rslora": ("llama", {**LORA, "use_rslora": True}),
    "dora": ("llama", {**LORA, "use_dora": True}),
    "gaussian": ("llama", {**LORA, "init": "gaussian"}),
    "orthogonal": ("llama", {**LORA, "init": "orthogonal"}),
    "pissa": ("llama", {**LORA, "init": "pissa"}),
    "pissa rslora": ("llama", {**LORA, "init": "pissa", "use_rslora": True}),
    "pissa dora": ("llama", {**LORA, "init": "pissa", "use_dora": True}),
    "pissa patterns": ("llama", {**LORA, "init": "pissa", "rank_pattern": {"q_proj": 6}}),
    "pissa conv1d": ("gpt2", {**LORA, "init": "pissa"}),
    "olora": ("llama", {**LORA, "init": "olora"}),
    "patterns": (
        "llama",
        {**LORA, "rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 8}, "alpha_pattern": {"v_proj": 3}},
    ),
    "patterns in an order": ("llama", {**LORA, "alpha_pattern": {"layers.1.self_attn.q_proj": 64, "(q|v)_proj": 3}}),
    "rslora patterns": ("llama", {**LORA, "use_rslora": True, "rank_pattern": {"q_proj": 2}}),
    "norms": ("llama", {**LORA, "modules_to_save": ["norm", "input_layernorm"]}),
    "head": ("llama", {**LORA, "modules_to_save": ["lm_head"]}),
    "embeddings": ("llama", {**LORA, "train_embeddings": True}),
    "tied embeddings": ("tied", {**LORA, "train_embeddings": True}),
    "tied head": ("tied", {**LORA, "modules_to_save": ["lm_head"]}),
    "gpt2": ("gpt2", LORA),
    "gpt2 dora": ("gpt2", {**LORA, "use_dora": True}),
    "gpt2 tied embeddings": ("gpt2", {**LORA, "train_embeddings": True}),
    "gpt_neox embeddings": ("gpt_neox", {**LORA, "train_embeddings": True}),
    "gpt2 biases": ("gpt2", {**LORA, "bias": "all"}),
    "qwen2 biases of adapted layers": ("qwen2", {**LORA, "bias": "lora_only"}),
    "lora on embeddings": ("llama", {**LORA, "target_modules": ["embed_tokens", "lm_head", "q_proj"]}),
    "nf4": ("llama", QLORA),
    "nf4 single": ("llama", {**QLORA, "double_quantization": False}),
    "nf4 bf16": ("llama", {**QLORA, "compute_dtype": "bfloat16"}),
    "nf4 dora": ("llama", {**QLORA, "use_dora": True}),
    "nf4 rslora gaussian": ("llama", {**QLORA, "use_rslora": True, "init": "gaussian"}),
    "nf4 tied embeddings": ("tied", {**QLORA, "train_embeddings": True}),
    "nf4 embeddings and norms": ("llama", {**QLORA, "train_embeddings": True, "modules_to_save": ["norm"]}),
    "nf4 gpt2": ("gpt2", QLORA),
    "fp4": ("llama", {**QLORA, "quantization": "fp4"}),
    "int8": ("llama", {**QLORA, "quantization": "int8"}),
    "int8 gpt2": ("gpt2", {**QLORA, "quantization": "int8"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_adapter_gives_the_same_answers_wherever_it_is_loaded(
    folders: dict[str, Path], tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Point 4: each variant of peft, from the base as it is on disk, with plain peft and with organon."""
    family, settings = KINDS[kind]
    adapter = AdapterConfig(**settings)
    base = base_in(folders[family], adapter)
    model = trained(base, adapter)
    save_adapter(model, tmp_path, base)
    # PiSSA and OLoRA change the base while they train; what is saved holds the difference (sums of floats).
    exact = 1e-4 if adapter.init in ("pissa", "olora") else 0.0
    expected, plain = logits(model), logits(load_base(base, device="cpu"))
    assert float((expected - plain).abs().max()) > 0.01
    torch.testing.assert_close(logits(plain_peft(base, tmp_path)), expected, atol=exact, rtol=exact)
    ours = attach_adapter(load_base(base, device="cpu"), tmp_path, base=base)
    torch.testing.assert_close(logits(ours), expected, atol=exact, rtol=exact)
    if adapter.bias == "none":
        with ours.disable_adapter():
            assert torch.equal(logits(ours), plain)
    assert not [record for record in caplog.records if record.name.startswith("bitsandbytes")]


@pytest.mark.parametrize("family", ["tied", "gpt2", "llama"])
def test_tied_embeddings_are_trained_as_one_matrix(folders: dict[str, Path], family: str) -> None:
    """Which peft does for the names that it knows; GPT-2's are not among them."""
    adapter = AdapterConfig(**LORA, train_embeddings=True)
    model = trained(base_in(folders[family], adapter), adapter).get_base_model()
    into, out = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert (into is out) == (family != "llama")
    assert into.requires_grad
    assert out.requires_grad


def loaded(folder: Path, **settings: Any) -> Any:
    adapter = AdapterConfig(**settings)
    return load_base(base_in(folder, adapter), device="cpu"), adapter


REFUSED = {
    "target": ("llama", {**LORA, "target_modules": ["q_proj", "qq_proj"]}, "CFG-059", "qq_proj: no module"),
    "pattern": ("llama", {**LORA, "rank_pattern": {"c_attn": 2}}, "CFG-059", "c_attn: no module"),
    "pattern outside the targets": (
        "llama",
        {**LORA, "target_modules": ["q_proj"], "alpha_pattern": {"k_proj": 2}},
        "CFG-059",
        r"k_proj: no module of the model matches. Found: q_proj",
    ),
    "saved": ("llama", {**LORA, "modules_to_save": ["score"]}, "CFG-059", "score: no module"),
    "saved but quantised": ("llama", {**QLORA, "modules_to_save": ["q_proj"]}, "CFG-060", "q_proj is quantised"),
    "tied": ("tied", {**LORA, "target_modules": ["lm_head"]}, "CFG-060", "lm_head is one matrix"),
    "tied gpt2": ("gpt2", {**LORA, "target_modules": ["wte"]}, "CFG-060", "wte is one matrix"),
    "no biases": ("llama", {**LORA, "bias": "all"}, "CFG-060", "have no biases"),
    "pissa": ("llama", {**LORA, "init": "pissa", "rank": 64}, "CFG-060", r"rank 64 is above the rank of .*\(32\)"),
    "olora": ("llama", {**LORA, "init": "olora", "rank_pattern": {"k_proj": 17}}, "CFG-060", r"k_proj \(16\)"),
    "int8 dora": ("llama", {**QLORA, "quantization": "int8", "use_dora": True}, "CFG-060", "on a GPU only"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_model_does_not_allow_is_refused_before_training(folders: dict[str, Path], case: str) -> None:
    """Cases 59 and 60: with the reason, and what would do."""
    family, settings, code, words = REFUSED[case]
    model, adapter = loaded(folders[family], **settings)
    with pytest.raises(ConfigError, match=words) as caught:
        new_adapter(model, adapter, seed=0)
    assert caught.value.code == code
    assert caught.value.where.startswith("adapter.")


def test_a_base_in_bfloat16_with_what_is_trained_in_full(folders: dict[str, Path]) -> None:
    """On a GPU the base is in bfloat16; embeddings, norms and head are trained in float32 all the same."""
    base = base_in(folders["llama"], AdapterConfig(**LORA))
    adapter = AdapterConfig(**LORA, train_embeddings=True, modules_to_save=["norm", "input_layernorm"])
    model = new_adapter(load_base(base, device="cpu", dtype=torch.bfloat16), adapter, seed=0)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}
    inner = model.get_base_model().model.layers[1]
    seen: list[torch.dtype] = []
    inner.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].dtype))
    model(IDS, labels=IDS, use_cache=False).loss.backward()
    assert seen == [torch.bfloat16]
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    plain = load_base(base, device="cpu", dtype=torch.bfloat16)
    torch.testing.assert_close(logits(model), logits(plain), atol=0.05, rtol=0.05)
    gpt2 = load_base(base_in(folders["gpt2"], adapter), device="cpu", dtype=torch.bfloat16)
    with pytest.raises(ConfigError, match="biases are trained in float32"):
        new_adapter(gpt2, AdapterConfig(**LORA, bias="all"), seed=0)


def test_gradients_through_an_int8_base_are_right(folders: dict[str, Path]) -> None:
    """Equal to those through the same weights, dequantised, and still so after a forward in evaluation mode."""
    from bitsandbytes.functional import int8_vectorwise_dequant
    from bitsandbytes.nn import Linear8bitLt

    model, adapter = loaded(folders["llama"], **{**QLORA, "quantization": "int8"})
    model = new_adapter(model, adapter, seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero at first, which would hide what passes through it
            parameter.data.normal_(0, 0.05)

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        model.train()
        model(IDS, labels=IDS, use_cache=False).loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}

    found = gradients()
    logits(model)
    again = gradients()
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, Linear8bitLt):
                plain = torch.nn.Linear(layer.in_features, layer.out_features, bias=False)
                weight = int8_vectorwise_dequant(layer.state.CB, layer.state.SCB)
                plain.weight = torch.nn.Parameter(weight.float(), requires_grad=False)
                setattr(parent, name, plain)
    expected = gradients()
    assert len(expected) == 28
    for name, gradient in expected.items():
        assert float((found[name] - gradient).norm() / gradient.norm()) < 1e-5, name
        assert torch.equal(again[name], found[name]), name


# -- adapters side by side on one base ---------------------------------------------------------------


def test_adapters_take_turns_on_one_base(folders: dict[str, Path], tmp_path: Path) -> None:
    """As in an evaluation: one with trained embeddings, one of other ranks, one by DoRA, and the base itself."""
    plain = load_base(base_in(folders["tied"], AdapterConfig(**LORA)), device="cpu")
    expected = {"base": logits(plain)}
    kinds = [{"train_embeddings": True}, {"rank_pattern": {"q_proj": 2}}, {"use_dora": True}, {"init": "pissa"}]
    shared: Any = plain
    for number, changes in enumerate(kinds):
        adapter = AdapterConfig(**{**LORA, **changes})
        base, folder = base_in(folders["tied"], adapter), tmp_path / str(number)
        folder.mkdir()
        model = trained(base, adapter)
        save_adapter(model, folder, base)
        expected[f"a{number}"] = logits(model)
        shared = attach_adapter(shared, folder, f"a{number}")
    for name in ["a2", "a0", "a1", "a3", "a0", "a2"]:
        shared.set_adapter(name)
        torch.testing.assert_close(logits(shared), expected[name], atol=1e-4, rtol=1e-4)
        with shared.disable_adapter():
            assert torch.equal(logits(shared), expected["base"])


# -- adapters that are refused -----------------------------------------------------------------------


def saved(base: BaseModel, folder: Path, **settings: Any) -> Path:
    save_adapter(
        new_adapter(load_base(base, device="cpu"), AdapterConfig(**{**LORA, **settings}), seed=0), folder, base
    )
    return folder


@pytest.mark.parametrize("onto", ["qwen2", "gpt2", "wide", "short", "named"])
def test_an_adapter_of_another_base_is_refused(folders: dict[str, Path], tmp_path: Path, onto: str) -> None:
    """Case 71: with both named, and the base as it was."""
    settings = AdapterConfig(**LORA)
    changes = {"wide": {"hidden_size": 48}, "short": {"num_hidden_layers": 1}, "named": {}}
    other = folders.get(onto)
    if other is None:
        other = save_family("llama", tmp_path / onto, **changes[onto])
        save_tokenizer(other)
        (other / "generation_config.json").write_text('{"do_sample": false}')
    (tmp_path / "adapter").mkdir()
    llama = base_in(folders["llama"], settings)
    folder = saved(llama, tmp_path / "adapter")
    base = base_in(other, settings)
    model = load_base(base, device="cpu")
    before = logits(model)
    with pytest.raises(UserError) as caught:
        attach_adapter(model, folder, base=base if onto in ("named", "qwen2") else None)
    assert caught.value.code == "CKPT-071"
    assert llama.digest[:16] in str(caught.value)
    assert type(model).__name__ != "PeftModel"
    assert torch.equal(logits(model), before)


def test_an_adapter_that_lacks_weights_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """peft would draw them at random, with a warning."""
    from safetensors.torch import load_file, save_file

    base = base_in(folders["llama"], AdapterConfig(**LORA))
    file = saved(base, tmp_path, modules_to_save=["norm"]) / "adapter_model.safetensors"
    weights = load_file(file)
    without = [
        {name: w for name, w in weights.items() if "layers.1.mlp.up_proj" not in name},
        {name: w for name, w in weights.items() if ".norm." not in name},
    ]
    for some, words in zip(without, ("layers.1.mlp.up_proj", "norm"), strict=True):
        save_file(some, file)
        with pytest.raises(UserError, match=rf"lacks the weights of 1 modules: .*{words}") as caught:
            attach_adapter(load_base(base, device="cpu"), tmp_path)
        assert caught.value.code == "CKPT-071"


def test_a_base_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    """Case 70."""
    from safetensors.torch import load_file, save_file

    folder = save_family("llama", tmp_path)
    save_tokenizer(folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] = torch.inf
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"model\.norm\.weight holds NaN or infinite values") as caught:
        loaded(folder, **LORA)
    assert caught.value.code == "CKPT-070"


async def test_an_adapter_that_changes_the_base_gets_a_base_of_its_own(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """Trained biases are the base's: base and other adapters of the same evaluation must not see them."""
    from organon.evals.generation import loaded_base, release

    base = base_in(folders["gpt2"], AdapterConfig(**LORA))
    for name, settings in {"biases": {"bias": "all"}, "plain": {}}.items():
        (tmp_path / name).mkdir()
        save_adapter(trained(base, AdapterConfig(**LORA, **settings)), tmp_path / name, base)
    try:
        shared = await loaded_base(base, "cpu")
        assert await loaded_base(base, "cpu", str(tmp_path / "plain")) is shared
        own = await loaded_base(base, "cpu", str(tmp_path / "biases"))
        assert own is not shared
        before = logits(shared.model)
        own._load_adapter(str(tmp_path / "biases"), "biases")
        biases = [m.get_base_model() if m is own.model else m for m in (own.model, shared.model)]
        assert not torch.equal(*(m.transformer.ln_f.bias for m in biases))  # why it must not be shared
        assert torch.equal(logits(shared.model), before)
    finally:
        release()
