"""What a training needs, told before anything is loaded, against what torch, peft and bitsandbytes then make of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from tests.integration.training.families import save_family

from organon.backends.lightning import memory
from organon.config.schema import AdapterConfig, ModelConfig, OptimConfig, TrainerConfig
from organon.config.spec import BaseModel, TrainSpec
from organon.models.shapes import Layout, layout_of

FAMILIES = ("llama", "mistral", "qwen3", "gemma", "gpt2", "gpt_neox")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_family(request.param, tmp_path_factory.mktemp(request.param))


def layout(folder: Path) -> Layout:
    found = layout_of(base(folder))
    assert found is not None
    return found


def base(folder: Path, **changes: Any) -> BaseModel:
    return BaseModel(name="x", digest="x", folder=str(folder), **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_dora": True, "rank": 4},
        {"train_embeddings": True},
        {"target_modules": ["q_proj", "c_attn", "query_key_value"], "rank_pattern": {r"[.\w]*\.1\.[.\w]*": 2}},
        {"bias": "all"},
        {"bias": "lora_only"},
        {"modules_to_save": ["lm_head"]},
    ],
    ids=lambda changes: ",".join(changes) or "default",
)
def test_trainable_parameters_are_pefts(family: Path, changes: dict[str, Any]) -> None:
    """CK-70."""
    from transformers import AutoModelForCausalLM

    from organon.errors import ConfigError
    from organon.models.adapters import new_adapter

    if "target_modules" in changes:
        mine = [t for t in changes["target_modules"] if any(m.endswith(t) for m in layout(family).linear)]
        changes = {**changes, "target_modules": mine}
    adapter = AdapterConfig(kind="lora", quantization="none", **changes)
    model = AutoModelForCausalLM.from_pretrained(family)
    try:
        adapted = new_adapter(model, adapter, seed=0)
    except ConfigError as error:
        pytest.skip(error.cause)  # no biases, or no such module, in this family
    expected = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert memory.trainable_parameters(layout(family), adapter) == expected


def test_full_training_trains_everything(family: Path) -> None:
    found = layout(family)
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
    told = memory.weight_bytes(layout(folder), named, full=False, device="cpu")
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


@pytest.mark.parametrize("lengths", [[64] * 8, [256, 128, 128], [700]], ids=["short", "mixed", "one"])
@pytest.mark.parametrize(("dtype", "bytes_each"), [("float32", 4), ("bfloat16", 2)])
def test_activations_are_what_autograd_keeps(tmp_path: Path, lengths: list[int], dtype: str, bytes_each: int) -> None:
    """CK-70: within 15 % of the bytes that the layers save for the backward pass, temporaries apart."""
    import torch
    from transformers import AutoModelForCausalLM

    from organon.backends.lightning import attention, fused
    from organon.models.adapters import new_adapter

    folder = save_family(
        "llama", tmp_path, hidden_size=128, intermediate_size=352, num_hidden_layers=3, max_position_embeddings=1024
    )
    adapter = AdapterConfig(kind="lora", quantization="none")
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation=attention.register()
    )
    model.requires_grad_(False)
    adapted = new_adapter(model, adapter, seed=0).train()
    fused.apply(adapted)
    kept = {p.untyped_storage().data_ptr(): 0 for p in adapted.parameters()}
    alive = []

    def pack(tensor: Any) -> Any:
        alive.append(tensor)  # or another could take its address
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes())
        return tensor

    ids = torch.zeros((1, sum(lengths)), dtype=torch.long)
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    with attention.documents(lengths), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        adapted.get_base_model().model(input_ids=ids, position_ids=positions, use_cache=False)
    largest = memory.ForwardPass(len(lengths), sum(lengths), 0, sum(n * n for n in lengths))
    spec = training(folder, adapter=adapter, dtype=dtype, compute={"device": "cpu", "precision": "32"})
    if bytes_each == 2:  # a model in bfloat16 computes in it, with or without autocast
        spec = dataclasses.replace(spec, compute={"device": "cpu", "precision": "bf16"})
    told = memory.activation_bytes(layout(folder), spec, largest)
    assert told == pytest.approx(sum(kept.values()), rel=0.15)


def training(folder: Path, *, adapter: AdapterConfig, dtype: str, compute: dict[str, Any], **trainer: Any) -> TrainSpec:
    model = ModelConfig(name="x", path=str(folder))
    return TrainSpec(
        base=base(folder, dtype=dtype), dataset_hash="0" * 64, validation_hash=None, model=model, adapter=adapter,
        trainer=TrainerConfig(**trainer), compute=compute,
    )  # fmt: skip
