"""The faster forms equal stock peft and transformers, and leave everything else as it is."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from tests.unit.backends.lightning.families import FAMILIES, Documents, assert_close, family, gradients

from organon.backends.lightning import attention, fused, kernels
from organon.backends.lightning.loss import label_log_probabilities
from organon.models.load import quiet

LENGTHS = (9, 1, 40, 13)
DOCUMENTS = Documents(*LENGTHS)


def with_lora(model: Any, **settings: Any) -> Any:
    """The model with an adapter whose B is not zero, the same each time."""
    torch.manual_seed(3)
    config = LoraConfig(
        **{"r": 4, "lora_alpha": 6, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **settings}
    )
    with quiet():
        adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return adapted.train()


def step(
    model: Any, *, autocast: bool = False, documents: Documents = DOCUMENTS
) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of the packed documents."""
    with attention.documents(documents.lengths), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = -label_log_probabilities(model, **documents.packed()).sum()
    loss.backward()
    return loss.item(), gradients(model)


def assert_same(model: Any, *, tolerance: float = 5e-6, **how: Any) -> dict[str, int]:
    """Loss and gradients with the faster forms are those without."""
    expected, wanted = step(model, **how)
    counts = fused.apply(model)
    found, got = step(model, **how)
    assert found == pytest.approx(expected, rel=1e-6)
    assert_close(got, wanted, tolerance)
    return counts


@pytest.mark.parametrize("name", FAMILIES)
def test_lora_on_all_linear_layers(name: str) -> None:
    counts = assert_same(with_lora(family(name)))
    norms = {"gpt2": 0, "qwen3": 9, "gemma2": 9, "gemma3": 13}.get(name, 5)
    linear = {"lora linear": 8} if name == "gpt2" else {"attention": 2, "gated mlp": 2, "lora linear": 14}
    assert counts == {**linear, **({"rms norm": norms} if norms else {})}


@pytest.mark.parametrize("name", FAMILIES)
def test_lora_on_some_layers(name: str) -> None:
    """Rank-stabilised and with ranks of their own; the layers beside them stay plain."""
    targets = ["c_attn"] if name == "gpt2" else ["q_proj", "v_proj", "down_proj"]
    assert_same(with_lora(family(name), target_modules=targets, use_rslora=True, rank_pattern={targets[-1]: 2}))


@pytest.mark.parametrize("name", FAMILIES)
def test_full_training(name: str) -> None:
    """Every weight is trained: linear layers stay stock, norms and the rest get their gradients."""
    counts = assert_same(family(name))
    assert "lora linear" not in counts


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16(name: str) -> None:
    """Frozen weights in bfloat16, factors in float32: within 1e-2 of float32, and no farther off than stock."""
    exact, wanted = step(with_lora(family(name)))
    model = with_lora(family(name).to(torch.bfloat16))
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters() if parameter.requires_grad)
    stock, stock_got = step(model, autocast=True)
    fused.apply(model)
    found, got = step(model)
    assert found == pytest.approx(exact, rel=1e-2)
    assert abs(found - exact) <= abs(stock - exact) + 2e-3 * exact

    def error(of: dict[str, torch.Tensor]) -> float:
        return float(sum((of[name] - wanted[name]).norm() for name in wanted) / sum(g.norm() for g in wanted.values()))

    assert error(got) <= 1.1 * error(stock_got)


def test_autocast_over_float32_weights() -> None:
    """As transformers' Trainer does it: products in bfloat16, results of their dtype."""
    model = with_lora(family("llama"))
    mlp, x = model.get_submodule("base_model.model.model.layers.0.mlp"), torch.randn(2, 32)
    with torch.autocast("cpu", torch.bfloat16):
        plain = mlp.up_proj(x), mlp(x)
    expected, wanted = step(model, autocast=True)
    fused.apply(model)
    with torch.autocast("cpu", torch.bfloat16):
        faster = mlp.up_proj(x), mlp(x)
    for one, other in zip(faster, plain, strict=True):
        assert one.dtype == torch.bfloat16
        torch.testing.assert_close(one, other, rtol=5e-2, atol=5e-2)
    found, got = step(model, autocast=True)
    assert found == pytest.approx(expected, rel=1e-2)
    assert_close(got, wanted, 5e-2)
    assert all(gradient.dtype == torch.float32 for gradient in got.values())


def in_four_bit(model: Any, quantization: str, *, double: bool, compute_dtype: torch.dtype) -> Any:
    """The model with its linear layers, but for the last, in 4 bit."""
    from bitsandbytes.nn import Linear4bit

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is torch.nn.Linear and name != "lm_head":
                packed = Linear4bit(
                    child.in_features, child.out_features, child.bias is not None, compute_dtype, double, quantization
                )
                packed.load_state_dict(child.state_dict())
                setattr(parent, name, packed.to("cpu"))
    return model


@pytest.mark.parametrize("quantization", ["nf4", "fp4"])
@pytest.mark.parametrize("double", [True, False])
def test_four_bit(quantization: str, double: bool) -> None:
    base = in_four_bit(family("qwen2"), quantization, double=double, compute_dtype=torch.float32)
    model = with_lora(base)
    counts = assert_same(model)
    assert counts["lora linear"] == 14
    layer = base.model.layers[0].mlp.up_proj.base_layer
    assert layer.weight.dtype == torch.uint8
    assert not getattr(layer.weight.quant_state, "packing_format_for_cpu", False)


def test_a_four_bit_layer_that_computes_in_another_dtype_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """`adapter.compute_dtype=bfloat16` in a float32 training."""
    model = with_lora(in_four_bit(family("llama"), "nf4", double=True, compute_dtype=torch.bfloat16))
    expected, wanted = step(model)
    fused.apply(model)
    for name in ("project", "gated_project"):
        monkeypatch.setattr(kernels, name, None)  # a call would fail
    found, got = step(model)
    assert found == pytest.approx(expected, rel=1e-3)
    assert_close(got, wanted, 2e-2)


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_activation_checkpointing(name: str) -> None:
    model = with_lora(family(name))
    fused.apply(model)
    expected, wanted = step(model)
    model.get_base_model().activation_checkpointing_enable(
        {"use_reentrant": False, "context_fn": attention.checkpoint_contexts}
    )
    model.enable_input_require_grads()
    found, got = step(model)
    assert found == expected
    assert all(torch.equal(got[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_dropout_on_the_adapter_takes_the_stock_way(name: str) -> None:
    """With the same random numbers, to the last digits; without any in evaluation the fast one is taken again."""
    model = with_lora(family(name), lora_dropout=0.5)
    torch.manual_seed(0)
    expected, wanted = step(model)
    fused.apply(model)
    torch.manual_seed(0)
    found, got = step(model)
    assert found == pytest.approx(expected, rel=1e-6)
    assert_close(got, wanted, 5e-6)
    assert step(model)[0] != found
    assert step(model.eval())[0] == step(model)[0]


@pytest.mark.parametrize(
    "settings",
    [{"use_dora": True}, {"lora_bias": True}, {"bias": "lora_only"}, {"trainable_token_indices": [3, 5]}],
    ids=str,
)
def test_other_variants_of_lora_are_left_to_peft(settings: dict[str, Any]) -> None:
    assert_same(with_lora(family("qwen2"), **settings))


def test_an_adapter_that_is_switched_off_merged_or_joined_by_another() -> None:
    """Each time the result is stock's."""
    model = with_lora(family("llama")).eval()
    with torch.no_grad():
        for _ in range(3):
            model.get_submodule("base_model.model.model.norm").weight.mul_(1.1)
    batch = {key: value for key, value in DOCUMENTS.packed().items() if key != "labels"}

    def logits() -> torch.Tensor:
        with attention.documents(LENGTHS), torch.no_grad():
            found: torch.Tensor = model(**batch, use_cache=False).logits
        return found

    def compare() -> torch.Tensor:
        fused.apply(model)
        found = logits()
        fused.undo(model)
        torch.testing.assert_close(found, logits(), rtol=1e-5, atol=1e-5)
        return found

    adapted = compare()
    with model.disable_adapter():
        base = compare()
    assert not torch.allclose(adapted, base, atol=1e-2)
    model.merge_adapter()
    torch.testing.assert_close(compare(), adapted, rtol=1e-4, atol=1e-4)
    model.unmerge_adapter()
    model.add_adapter("other", LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    model.base_model.set_adapter(["default", "other"])
    assert not torch.allclose(compare(), adapted, atol=1e-2)


@pytest.mark.parametrize(
    "name",
    ["self_attn.q_proj", "mlp.up_proj.base_layer", "mlp.down_proj.lora_A.default", "mlp.act_fn", "self_attn.o_proj"],
)
def test_hooks_of_others_still_see_their_module(name: str) -> None:
    """Activations are read in many an experiment."""
    model = with_lora(family("llama"))
    fused.apply(model)
    expected, wanted = step(model)
    seen = []
    module = model.get_submodule(f"base_model.model.model.layers.1.{name}")
    handle = module.register_forward_hook(lambda module, arguments, output: seen.append(output.shape))
    found, got = step(model)
    assert len(seen) == 1
    assert found == pytest.approx(expected, rel=1e-6)
    assert_close(got, wanted, 5e-6)
    handle.remove()
    step(model)
    assert len(seen) == 1


def test_only_instances_change_and_everything_can_be_undone() -> None:
    """Class, weights, saved adapter and copies are as before; generation with a cache gives the same text."""
    model = with_lora(family("llama", "sdpa")).eval()
    prompt = torch.tensor([[5, 6, 7]])
    before = {name: value.clone() for name, value in get_peft_model_state_dict(model).items()}
    text = model.generate(input_ids=prompt, max_new_tokens=8, do_sample=False, pad_token_id=0)
    forwards = [name for name, module in model.named_modules() if "forward" in module.__dict__]
    fused.apply(model)
    assert fused.apply(model) == {}
    twin = family("llama")
    assert not any("forward" in module.__dict__ for module in twin.modules())
    assert torch.equal(model.generate(input_ids=prompt, max_new_tokens=8, do_sample=False, pad_token_id=0), text)
    after = get_peft_model_state_dict(model)
    assert all(torch.equal(after[name], before[name]) for name in before | after)
    assert copy.deepcopy(model).state_dict().keys() == model.state_dict().keys()
    fused.undo(model)
    assert [name for name, module in model.named_modules() if "forward" in module.__dict__] == forwards


def test_other_attention_implementations_keep_their_mask() -> None:
    """In a model that was loaded with torch's attention, and padded on the left."""
    model = with_lora(family("llama", "sdpa")).eval()
    batch = {
        "input_ids": torch.randint(3, 60, (2, 7)),
        "attention_mask": torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1] * 7]),
    }
    expected = model(**batch).logits
    fused.apply(model)
    torch.testing.assert_close(
        model(**batch).logits[batch["attention_mask"] == 1], expected[batch["attention_mask"] == 1]
    )


def test_a_lookalike_is_left_alone() -> None:
    """Types are compared exactly: a subclass may compute something else."""

    class LlamaRMSNorm(type(family("llama").model.norm)):  # type: ignore[misc]
        def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
            return hidden_states

    model = torch.nn.ModuleDict({"norm": LlamaRMSNorm(8), "linear": torch.nn.Linear(8, 8)})
    assert fused.apply(model) == {}
    assert torch.equal(model["norm"](torch.ones(8)), torch.ones(8))


def test_less_is_kept_for_the_backward() -> None:
    """Bytes that autograd holds between forward and backward, weights left out: under 60 % of stock's."""
    wide = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2, "head_dim": 64}
    model = with_lora(family("llama", **wide).to(torch.bfloat16))
    documents = Documents(*[32] * 10)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def held() -> int:
        storages: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with (
            attention.documents(documents.lengths),
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        ):
            loss = label_log_probabilities(model, **documents.packed()).sum()
        found = sum(storages.values())
        loss.backward()
        return found

    stock = held()
    fused.apply(model)
    assert held() < 0.6 * stock


def test_gradients_by_finite_differences() -> None:
    """Of each kernel alone, in float64."""
    torch.manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=torch.float64, requires_grad=True)

    cos, sin = draw(1, 3, 4).detach(), draw(1, 3, 4).detach()
    assert torch.autograd.gradcheck(lambda x: kernels.rotate(x, cos, sin), draw(1, 3, 2, 4))
    base = torch.nn.Linear(4, 5, dtype=torch.float64).requires_grad_(False)

    def layer(a: torch.Tensor, b: torch.Tensor) -> kernels.Projection:
        return kernels.Projection(base, (a, b), 1.5)

    factors = (draw(2, 4), draw(5, 2))
    assert torch.autograd.gradcheck(lambda x, a, b: kernels.project(x, layer(a, b))[0], (draw(3, 4), *factors))
    for activation in (kernels.SILU, kernels.GELU, kernels.GELU_TANH):
        assert torch.autograd.gradcheck(
            lambda gate, up, a, b, f=activation: kernels.gated_project(gate, up, f, layer(a, b)),
            (draw(3, 4), draw(3, 4), *factors),
        )


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_rms_norm(offset: float) -> None:
    """Value and both gradients; float32 inside also for bfloat16."""
    x, weight = torch.randn(5, 3, 16, requires_grad=True), torch.randn(16, requires_grad=True)
    d_out = torch.randn(5, 3, 16)
    wide = x.double()
    plain = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5) * (weight.double() + offset)
    found = kernels.rms_norm(x, weight, 1e-5, offset)
    torch.testing.assert_close(found.double(), plain, rtol=1e-5, atol=1e-6)
    for one, other in zip(
        torch.autograd.grad(found, (x, weight), d_out),
        torch.autograd.grad(plain, (x, weight), d_out.double()),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    short = kernels.rms_norm(x.bfloat16(), weight.bfloat16(), 1e-5, offset)
    torch.testing.assert_close(short.double(), plain, rtol=2e-2, atol=2e-2)
