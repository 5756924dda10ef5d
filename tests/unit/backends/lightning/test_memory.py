"""What a training needs, told before anything is loaded, against what torch, peft and bitsandbytes then make of it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.training.families import save_family

from organon.backends.lightning import memory
from organon.config.schema import AdapterConfig, ModelConfig, OptimConfig, TrainerConfig
from organon.config.spec import BaseModel, TrainSpec
from organon.models.shapes import Layout, layout_of

FAMILIES = ("llama", "mistral", "qwen3", "gemma", "gpt2", "gpt_neox")
CHANGES: list[dict[str, Any]] = [
    {},
    {"use_dora": True, "rank": 4},
    {"train_embeddings": True},
    {"target_modules": ["q_proj", "c_attn", "query_key_value"], "rank_pattern": {r"[.\w]*\.1\.[.\w]*": 2}},
    {"bias": "all"},
    {"bias": "lora_only"},
    {"modules_to_save": ["lm_head"]},
]
WITH_BIASES = ("gpt2", "gpt_neox")


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a random model of a family."""
    return functools.cache(lambda family: save_family(family, tmp_path_factory.mktemp(family)))


def layout(folder: Path) -> Layout:
    found = layout_of(base(folder))
    assert found is not None
    return found


def base(folder: Path, **changes: Any) -> BaseModel:
    return BaseModel(name="x", digest="x", folder=str(folder), **changes)


@pytest.mark.parametrize(
    ("family", "changes"),
    [(f, c) for f in FAMILIES for c in CHANGES if f in WITH_BIASES or "bias" not in c],
    ids=lambda value: value if isinstance(value, str) else ",".join(value) or "default",
)
def test_trainable_parameters_are_pefts(folder_of: Callable[[str], Path], family: str, changes: dict[str, Any]) -> None:
    """CK-70."""
    from transformers import AutoModelForCausalLM

    from organon.models.adapters import new_adapter

    folder = folder_of(family)
    if "target_modules" in changes:
        mine = [t for t in changes["target_modules"] if any(m.endswith(t) for m in layout(folder).linear)]
        changes = {**changes, "target_modules": mine}
    adapter = AdapterConfig(kind="lora", quantization="none", **changes)
    adapted = new_adapter(AutoModelForCausalLM.from_pretrained(folder), adapter, seed=0)
    expected = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert memory.trainable_parameters(layout(folder), adapter) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_full_training_trains_everything(folder_of: Callable[[str], Path], family: str) -> None:
    found = layout(folder_of(family))
    assert memory.trainable_parameters(found, AdapterConfig(kind="full", quantization="none")) == found.count


@pytest.mark.parametrize("quantization", ["nf4", "fp4", "int8", "none"])
@pytest.mark.parametrize("double", [True, False])
def test_weights_take_what_bitsandbytes_takes(tmp_path: Path, quantization: str, double: bool) -> None:
    import torch

    from organon.models.load import load_base

    folder = save_family("llama", tmp_path, hidden_size=256, intermediate_size=512)
    named = base(folder, quantization=quantization, double_quantization=double and quantization in ("nf4", "fp4"))
    model = load_base(named, device="cpu")
    measured = sum(_bytes_of(p) for p in model.parameters())
    told = memory.weight_bytes(layout(folder), named, wide=4)
    assert told == pytest.approx(measured, rel=0.01)
    assert torch.float32 in {p.dtype for p in model.parameters()}


def _bytes_of(parameter: Any) -> int:
    """A weight and its scales."""
    total = int(parameter.nbytes)
    state = getattr(parameter, "quant_state", None)
    if state is not None:
        total += state.absmax.nbytes + (state.state2.absmax.nbytes if state.state2 is not None else 0)
    scales = getattr(parameter, "SCB", None)
    return total + (int(scales.nbytes) if scales is not None else 0)


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit"])
def test_moments_take_what_the_optimizer_takes(name: str) -> None:
    import torch

    from organon.backends.lightning.optimizer import adamw, state_tensors

    shapes = [(64, 256), (256, 64), (8, 16), (4096,)]
    optim = OptimConfig(name=name)
    parameters = {str(i): torch.nn.Parameter(torch.randn(shape)) for i, shape in enumerate(shapes)}
    optimizer = adamw(parameters, optim)
    for parameter in parameters.values():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    measured = sum(t.nbytes for n, t in state_tensors(optimizer, parameters).items() if t.numel() > 1)
    assert memory.optimizer_bytes(shapes, optim) == pytest.approx(measured, rel=0.01)


def test_a_paged_optimizer_is_on_the_host() -> None:
    assert memory.optimizer_bytes([(64, 256)], OptimConfig(name="paged_adamw_8bit")) == 0


def test_available_memory_heeds_the_limits_of_every_group(tmp_path: Path) -> None:
    """As in a batch job, whose limit is that of its outer group."""
    import psutil

    inner = tmp_path / "slurm" / "job_1" / "step_0"
    inner.mkdir(parents=True)
    for name, text in (("max", "1000"), ("current", "700"), ("stat", "anon 5\ninactive_file 100\n")):
        (inner.parent / f"memory.{name}").write_text(f"{text}\n")
    (inner / "memory.max").write_text("max\n")
    (inner / "memory.current").write_text("300\n")
    own = tmp_path / "own"
    own.write_text("0::/slurm/job_1/step_0\n")
    assert list(memory._control_groups(tmp_path, own)) == [400]
    assert 0 < memory.available_memory() <= psutil.virtual_memory().total


# -- activations ----------------------------------------------------------------------------------------


SIZES = {"num_hidden_layers": 3, "hidden_size": 128, "intermediate_size": 352, "max_position_embeddings": 1024}
HEADS = {"head_dim": 32, "sliding_window": 512, "query_pre_attn_scalar": 32}
GPT2 = {"n_embd": 128, "n_layer": 3, "n_positions": 1024}


@pytest.mark.parametrize(
    ("family", "lengths", "dtype", "changes", "factor"),
    [
        ("llama", [64] * 8, "float32", {}, 1.15),
        ("llama", [256, 128, 128], "float32", {}, 1.15),
        ("llama", [700], "bfloat16", {}, 1.15),
        ("llama", [64] * 8, "float32 in bfloat16", {}, 1.15),
        ("qwen3", [64] * 8, "float32", {}, 1.15),
        ("gemma3", [64] * 8, "float32", {}, 1.15),
        ("llama", [64] * 8, "float32", {"use_dora": True}, 1.3),
        ("gpt2", [64] * 8, "float32", {}, 1.3),
        ("llama", [64] * 8, "float32", {"kind": "full"}, 1.6),
        ("olmo2", [64] * 8, "float32", {}, 1.6),
    ],
)
def test_activations_are_what_autograd_keeps(
    tmp_path: Path, family: str, lengths: list[int], dtype: str, changes: dict[str, Any], factor: float
) -> None:
    """CK-70: within ``factor`` of the bytes that the layers keep for the backward pass."""
    import torch
    from transformers import AutoModelForCausalLM

    from organon.backends.lightning import attention, fused
    from organon.models.adapters import new_adapter

    dtype, _, autocast = dtype.partition(" in ")
    heads = HEADS if family.startswith("gemma") else {"head_dim": 32} if family == "qwen3" else {}
    folder = save_family(family, tmp_path, **(GPT2 if family == "gpt2" else {**SIZES, **heads}))
    adapter = AdapterConfig(**{"kind": "lora", "quantization": "none", **changes})
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation=attention.register()
    )
    if adapter.kind != "full":
        model.requires_grad_(False)
        new_adapter(model, adapter, seed=0)
    fused.apply(model.train())
    kept = {p.untyped_storage().data_ptr(): 0 for p in model.parameters()}
    alive = []

    def pack(tensor: Any) -> Any:
        alive.append(tensor)  # or another could take its address
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes())
        return tensor

    ids = torch.zeros((1, sum(lengths)), dtype=torch.long)
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    with (
        attention.documents(lengths),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bool(autocast)),
    ):
        model.base_model(input_ids=ids, position_ids=positions, use_cache=False)
    largest = memory.ForwardPass(len(lengths), sum(lengths), 0, sum(n * n for n in lengths))
    precision = (
        "bf16" if "bfloat16" in (dtype, autocast) else "32"
    )  # a model in bfloat16 computes in it without autocast, too
    spec = training(folder, adapter=adapter, dtype=dtype, compute={"device": "cpu", "precision": precision})
    told, measured = memory.activation_bytes(layout(folder), spec, largest), sum(kept.values())
    assert measured / factor < told < measured * factor


def test_what_takes_less_is_told_to_take_less(tmp_path: Path) -> None:
    """Each of the ways out that a warning names."""
    folder = save_family("llama", tmp_path, **SIZES)

    def total(micro: int = 8, quantization: str = "none", kind: str = "lora", **trainer: Any) -> int:
        adapter = AdapterConfig(kind=kind, quantization=quantization)
        spec = training(folder, adapter=adapter, dtype="auto", compute={"device": "cpu", "precision": "32"}, **trainer)
        spec = dataclasses.replace(spec, base=base(folder, quantization=quantization))
        return memory.estimate(layout(folder), spec, memory.ForwardPass(micro, 64 * micro, 64, 64**2 * micro)).total

    assert total(micro=4) < total()
    assert total(activation_checkpointing=True) < total()
    assert total(kind="qlora", quantization="nf4") < total()
    assert total() < total(kind="full")
    assert total(kind="full", strategy="fsdp", devices=4) < total(kind="full")


def test_largest_pass_is_that_of_the_plan() -> None:
    from organon.backends.lightning.plan import Geometry, Plan, share

    lengths, trained = [5, 50, 7, 9, 11, 30, 2, 3], [1, 10, 2, 2, 3, 5, 1, 1]
    plan = Plan(lengths, seed=1, epochs=3, global_batch_size=4)
    for packed in (True, False):
        for world in (1, 2):
            geometry = Geometry(2, None, packed)
            found = memory.largest_pass(plan, geometry, trained, world=world)
            passes = [
                rows
                for step in range(1, plan.total_steps + 1)
                for rank in range(world)
                for rows in geometry.split(share(plan.rows(step), rank, world), lengths)
            ]
            sizes = [[lengths[row] for row in rows] for rows in passes]
            assert found.tokens == max(sum(s) if packed else len(s) * max(s) for s in sizes)
            assert found.squares in {sum(n * n for n in s) for s in sizes}


def training(folder: Path, *, adapter: AdapterConfig, dtype: str, compute: dict[str, Any], **trainer: Any) -> TrainSpec:
    model = ModelConfig(name="x", path=str(folder))
    return TrainSpec(
        base=base(folder, dtype=dtype), dataset_hash="0" * 64, validation_hash=None, model=model, adapter=adapter,
        trainer=TrainerConfig(**trainer), compute=compute,
    )  # fmt: skip


def test_what_is_told_without_torch_agrees_with_the_code_that_has_it() -> None:
    """This module must not import torch, so it names families and sizes once more."""
    from organon.backends.lightning import attention, fused, loss

    families = {kind.__module__.split(".")[2] for kind in fused.ATTENTIONS}
    assert {family.removesuffix("_text") for family in memory.FUSED} == families
    assert set(memory.CHUNKED) == {kind.config_class.model_type for kind in loss.KNOWN}
    assert memory.LOGITS_AT_ONCE == loss.CHUNK
    assert memory.KEPT_TOKENS == attention.KEPT_TOKENS
