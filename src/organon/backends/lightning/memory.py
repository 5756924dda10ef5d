"""What a training needs and what there is: trainable parameters and bytes, told before anything is loaded. No torch.

Bytes on each device. T tokens (N of them with a label, W = sum of the documents' squared lengths) in the
largest forward pass, L layers, H hidden size, A width of all query heads together, h their number, V
vocabulary entries, O the outputs of all linear layers together, c bytes of a value in the precision that is
computed in, m bytes of one of the weights that are not quantised:

    weights      quantised layers: half a byte a value (nf4, fp4) or one (int8), and the scales: 4 bytes for each
                 block of 64, or 1 + 4/256 with double quantisation (QLoRA, Dettmers et al. 2023, section 3),
                 for int8 4 bytes a row. All other weights: m bytes
    trained      4 bytes for each trainable parameter (float32); with adapter=full they are the weights
    gradients    4 bytes for each trainable parameter
    optimizer    8 bytes for each (two moments of AdamW); 2 + 2 * 4/256 in 8 bit, paged ones on the host
    activations  what the backward pass needs: T c (O + L A), of each linear layer its output or what stands for
                 it, where ``fused`` knows the layers, 2.5 times as much elsewhere and 3.5 times with DoRA
                 (measured: 1.5 to 4.3, most for GPT-2 in bfloat16); T m for each input of a norm; on a CPU also
                 the attention weights of documents up to 2,048 tokens, c h L (W / 2 + 48 T). With activation
                 checkpointing T L H m and one layer's share of it. Then the largest layer's temporaries: 4 c T
                 times its outputs, and its weights once in c
    logits       N V (c + 8), of at most 2^24 at once where ``loss`` knows the model; and the output layer in c
    overhead     on a CPU what Python, torch and the other libraries take (measured: 0.5 GiB); on a GPU CUDA's
                 context and what the allocator cannot use (1 GiB; an assumption)
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from organon.backends.lightning.plan import Geometry, Plan, share
from organon.config.schema import AdapterConfig, OptimConfig
from organon.config.spec import BaseModel, TrainSpec
from organon.models.adapter_files import rank_of
from organon.models.shapes import Layout

BLOCK, SCALE_BLOCK = 64, 256  # bitsandbytes: values of a block with one scale; scales that share one
EIGHT_BIT_BLOCK = 256  # values of an 8-bit moment with one scale
OVERHEAD = {"cpu": 500 * 2**20, "cuda": 2**30}
FUSED = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text")  # `fused.ATTENTIONS`
UNFUSED_FACTOR, DORA_FACTOR = 2.5, 3.5
CHUNKED = (*FUSED, "gpt2", "cohere", "granite")  # `loss.KNOWN`
LOGITS_AT_ONCE = 2**24  # `loss.CHUNK`
KEPT_TOKENS, BLOCK_TOKENS = 2048, 96  # `attention`: longer documents keep no weights; queries of a block


@dataclass(frozen=True)
class Memory:
    """Bytes on each device, see the module's docstring."""

    weights: int
    trained: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    overhead: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(asdict(self).values())


def available_memory() -> int:
    """Bytes of main memory that this process can still get: the machine's, or less where a container or a batch job
    has a limit of its own."""
    import psutil

    return min([psutil.virtual_memory().available, *_control_groups()])


def _control_groups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterable[int]:
    """What each control group (version 2) that holds this process still allows; file pages count as free."""
    try:
        place = next(line[3:] for line in own.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return
    folder = root / place.strip("/")
    for group in (folder, *folder.parents):
        if group != root and root not in group.parents:
            return
        try:
            limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
            pages = re.search(r"^inactive_file (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
        except (OSError, ValueError):  # no limit, which reads "max"
            continue
        yield limit - used + (int(pages.group(1)) if pages else 0)


# -- what is trained ------------------------------------------------------------------------------------


def trainable_parameters(layout: Layout, adapter: AdapterConfig) -> int:
    """How many parameters are trained, as peft counts them."""
    return sum(map(math.prod, trained_shapes(layout, adapter)))


def trained_shapes(layout: Layout, adapter: AdapterConfig) -> list[tuple[int, ...]]:
    """The shapes of all parameters that are trained."""
    if adapter.kind == "full":
        return list(layout.parameters.values())
    adapted = _adapted(layout, adapter.target_modules)
    shapes: list[tuple[int, ...]] = []
    for module, (outputs, inputs) in adapted.items():
        rank = _rank(module, adapter)
        shapes += [(rank, inputs), (outputs, rank)]
        if adapter.use_dora:
            shapes.append((inputs if module in layout.embeddings else outputs,))
    whole = _saved_whole(layout, adapter)
    shapes += [layout.parameters[name] for name in sorted(whole)]
    if adapter.bias != "none":
        biases = [n for n in layout.parameters if n.endswith(".bias") and n not in whole]
        of_adapted = {f"{module}.bias" for module in adapted}
        shapes += [layout.parameters[n] for n in biases if adapter.bias == "all" or n in of_adapted]
    return shapes


def _adapted(layout: Layout, targets: Any) -> dict[str, tuple[int, int]]:
    if targets == "all-linear":
        return dict(layout.linear)
    names = [targets] if isinstance(targets, str) else list(targets)
    every = {**layout.linear, **layout.embeddings}
    return {module: shape for module, shape in every.items() if any(_ends_with(module, name) for name in names)}


def _rank(module: str, adapter: AdapterConfig) -> int:
    return int(rank_of({"r": adapter.rank, "rank_pattern": adapter.rank_pattern}, module))


def _saved_whole(layout: Layout, adapter: AdapterConfig) -> set[str]:
    """Parameters of the modules that are trained in full beside the adapter."""
    modules = {name.rpartition(".")[0] for name in layout.parameters}
    wanted = {m for m in modules if any(_ends_with(m, name) for name in adapter.modules_to_save)}
    if "lm_head" in adapter.modules_to_save:  # the checkpoint may call it otherwise, and has none if it is tied
        wanted |= {m for m in layout.embeddings if layout.tied or m.endswith("embed_out")}
    if adapter.train_embeddings:
        wanted |= set(layout.embeddings)
    wanted = {m for m in wanted if not m.endswith("wpe") or "wpe" in adapter.modules_to_save}  # positions stay
    return {name for name in layout.parameters if name.rpartition(".")[0] in wanted}


def _ends_with(module: str, name: str) -> bool:
    return module == name or module.endswith(f".{name}")


# -- bytes ----------------------------------------------------------------------------------------------


def weight_bytes(layout: Layout, base: BaseModel, *, wide: int) -> int:
    """Of the base model as it is loaded. ``wide``: bytes of a value that is not quantised."""
    if base.quantization == "none":
        return layout.count * wide
    packed = sum(outputs * inputs for outputs, inputs in layout.linear.values())
    rest = (layout.count - packed) * wide
    if base.quantization == "int8":
        return rest + packed + 4 * sum(outputs for outputs, _ in layout.linear.values())
    scale = 1 + 4 / SCALE_BLOCK if base.double_quantization else 4
    return rest + round(packed * (0.5 + scale / BLOCK))


def optimizer_bytes(shapes: Iterable[tuple[int, ...]], optim: OptimConfig) -> int:
    """Of AdamW's two moments on the device."""
    sizes = [math.prod(shape) for shape in shapes]
    if optim.name == "adamw":
        return 8 * sum(sizes)
    small = 8 * sum(size for size in sizes if size < 4096)  # kept in 32 bit by bitsandbytes
    if optim.name.startswith("paged"):
        return small
    return small + round(sum(size for size in sizes if size >= 4096) * (2 + 2 * 4 / EIGHT_BIT_BLOCK))


@dataclass(frozen=True)
class ForwardPass:
    """The largest forward pass of a training: ``tokens`` with padding, and labels that it is ``trained`` on."""

    rows: int
    tokens: int
    trained: int
    squares: int = 0  # sum of the squared lengths


def largest_pass(
    plan: Plan, geometry: Geometry, trained: Sequence[int] | np.ndarray, *, world: int = 1, most_steps: int = 2000
) -> ForwardPass:
    """The largest forward pass of the first ``most_steps`` steps. ``trained``: labels of each row that count."""
    largest = ForwardPass(0, 0, 0)
    for step in range(1, min(plan.total_steps, most_steps) + 1):
        for rank in range(world):
            for rows in geometry.split(share(plan.rows(step), rank, world), plan.lengths):
                sizes = plan.lengths[rows]
                tokens = int(sizes.sum() if geometry.packed else len(rows) * sizes.max())
                squares = int((sizes.astype(np.int64) ** 2).sum())
                found = ForwardPass(len(rows), tokens, int(sum(trained[row] for row in rows)), squares)
                largest = max(largest, found, key=lambda one: (one.tokens, one.trained))
    return largest


def estimate(layout: Layout, spec: TrainSpec, largest: ForwardPass) -> Memory:
    """What ``spec`` needs on each device, as the module's docstring has it. With FSDP the weights are shared out."""
    device, full = str(spec.compute.get("device", "cpu")), spec.adapter.kind == "full"
    shapes = trained_shapes(layout, spec.adapter)
    trained = 4 * sum(map(math.prod, shapes))
    shards = spec.trainer.devices * spec.trainer.num_nodes if spec.trainer.strategy == "fsdp" else 1
    return Memory(
        weights=weight_bytes(layout, spec.base, wide=_loaded_in(spec)) // shards,
        trained=0 if full else trained // shards,
        gradients=trained // shards,
        optimizer=optimizer_bytes(shapes, spec.optim) // shards,
        activations=activation_bytes(layout, spec, largest) + temporary_bytes(layout, spec, largest),
        logits=logit_bytes(layout, spec, largest),
        overhead=OVERHEAD[device],
    )


def activation_bytes(layout: Layout, spec: TrainSpec, largest: ForwardPass) -> int:
    """What the layers keep of ``largest`` for the backward pass."""
    c, m, tokens = _computed_in(spec), _loaded_in(spec), largest.tokens
    outputs = sum(shape[0] for shape in layout.linear.values())
    kept = tokens * c * (outputs + layout.layers * _attention_width(layout))
    kept = round(kept * _factor(layout, spec)) + tokens * m * _norm_inputs(layout)
    if spec.compute.get("device") == "cpu" and largest.squares <= KEPT_TOKENS * tokens:
        kept += c * layout.heads * layout.layers * (largest.squares + BLOCK_TOKENS * tokens) // 2
    if spec.trainer.activation_checkpointing:
        kept = kept // max(1, layout.layers) + tokens * layout.layers * layout.hidden * m
    return kept


def _factor(layout: Layout, spec: TrainSpec) -> float:
    if spec.adapter.use_dora:
        return DORA_FACTOR
    plain = spec.adapter.kind == "full" or spec.base.quantization == "int8" or spec.adapter.dropout > 0
    return UNFUSED_FACTOR if plain or layout.family not in FUSED else 1.0


def _norm_inputs(layout: Layout) -> int:
    """Values for each token: of the hidden states, or of all heads of queries or keys."""
    norms = ((n, shape[0]) for n, shape in layout.parameters.items() if n.endswith("norm.weight") and len(shape) == 1)
    sizes = (layout.linear.get(n.replace("_norm.weight", "_proj"), (size, 0))[0] for n, size in norms)
    return sum(sizes) or 2 * layout.layers * layout.hidden


def temporary_bytes(layout: Layout, spec: TrainSpec, largest: ForwardPass) -> int:
    """What the largest layer takes while it is computed: gradients of its outputs, and its weights in full."""
    widest = max((shape[0] for shape in layout.linear.values()), default=0)
    heaviest = max(map(math.prod, layout.linear.values()), default=0)
    return _computed_in(spec) * (4 * largest.tokens * widest + heaviest)


def logit_bytes(layout: Layout, spec: TrainSpec, largest: ForwardPass) -> int:
    """Of logits and their gradient, and of the output layer in the precision that it computes in."""
    c, m = _computed_in(spec), _loaded_in(spec)
    logits = largest.trained * layout.vocabulary
    if layout.family in CHUNKED:
        logits = min(logits, LOGITS_AT_ONCE)
    return logits * (c + 8) + (layout.vocabulary * layout.hidden * c if c != m else 0)


def _attention_width(layout: Layout) -> int:
    """The width of all query heads together: the inputs of the layer behind the attention."""
    names = ("o_proj", "c_proj", "dense", "out_proj")
    found = (inputs for name, (_, inputs) in layout.linear.items() if name.endswith(names) and "mlp" not in name)
    return next(found, layout.hidden)


def _computed_in(spec: TrainSpec) -> int:
    return 2 if spec.compute.get("precision") == "bf16" else 4


def _loaded_in(spec: TrainSpec) -> int:
    """As `build_model` has it."""
    if spec.adapter.kind == "full":
        return 4
    auto = 2 if spec.compute.get("device") == "cuda" else _computed_in(spec)
    return {"float32": 4, "bfloat16": 2, "float16": 2}.get(spec.base.dtype, auto)
