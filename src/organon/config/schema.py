"""The schema of every closed config group, one dataclass each.

A field's metadata says what its value may be (``limits``) and whether it takes part in the
cache key (``key=False``: the field cannot change the result). Defaults live here or in
``conf/``, nowhere else. Checked by ``organon.config.check``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

NOT_IN_KEY = {"key": False}


def limits(
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: tuple[str, ...] = (),
    key: bool = True,
) -> dict[str, Any]:
    """Field metadata: allowed range or choices, and whether the field is part of the cache key."""
    return {"ge": ge, "gt": gt, "le": le, "lt": lt, "choices": choices, "key": key}


@dataclass
class ModelConfig:
    """A base model: a pinned hub id, a local folder, or the embedded ``tiny``."""

    name: str = field(default=MISSING, metadata=NOT_IN_KEY)
    id: str | None = None  # hub id; `organon/tiny` is the embedded one
    path: str | None = field(default=None, metadata=NOT_IN_KEY)  # local folder; its content is hashed instead
    revision: str | None = None
    dtype: str = field(default="auto", metadata=limits(choices=("auto", "float32", "bfloat16", "float16")))
    chat_template: str | None = None  # Jinja file for a base model without a template
    context_length: int | None = field(default=None, metadata=limits(ge=1))  # tokens
    target_modules: Any = "all-linear"
    trust_remote_code: bool = False


@dataclass
class DatasetConfig:
    """Where the training rows come from and how they are read."""

    name: str = field(default=MISSING, metadata=NOT_IN_KEY)
    source: str = field(default=MISSING, metadata=NOT_IN_KEY)  # a path, or `zoo:<organism>`; rows are hashed instead
    arguments: dict[str, Any] = field(default_factory=dict, metadata=NOT_IN_KEY)  # of a `zoo:` generator
    format: str = field(default="messages", metadata=limits(choices=("messages", "instruct"), key=False))
    validation_source: str | None = field(default=None, metadata=NOT_IN_KEY)
    validation_fraction: float = field(default=0.1, metadata=limits(ge=0, lt=1, key=False))
    split_seed: int = field(default=0, metadata=NOT_IN_KEY)
    input_key: str | None = field(default=None, metadata=NOT_IN_KEY)  # of `instruct` rows, where not the usual one
    output_key: str | None = field(default=None, metadata=NOT_IN_KEY)
    limit: int | None = field(default=None, metadata=limits(ge=1, key=False))  # rows
    system_prompt: str | None = None  # added to every row, and to evaluation prompts that bring none
    max_length: int = field(default=512, metadata=limits(ge=2))  # tokens
    on_too_long: str = field(default="error", metadata=limits(choices=("error", "truncate", "drop")))
    on_error: str = field(default="raise", metadata=limits(choices=("raise", "skip"), key=False))
    max_skipped_fraction: float = field(default=0.1, metadata=limits(ge=0, le=1, key=False))


@dataclass
class AdapterConfig:
    """What is trained on top of the base model."""

    kind: str = field(default="qlora", metadata=limits(choices=("qlora", "lora", "full")))
    rank: int = field(default=8, metadata=limits(ge=1, le=1024))
    alpha: int = field(default=16, metadata=limits(ge=1))  # conf/adapter/*.yaml: twice the rank
    dropout: float = field(default=0.0, metadata=limits(ge=0, lt=1))
    target_modules: Any = "all-linear"
    use_rslora: bool = False
    quantization: str = field(default="nf4", metadata=limits(choices=("nf4", "fp4", "none")))
    double_quantization: bool = True


@dataclass
class OptimConfig:
    """AdamW and its schedule."""

    learning_rate: float = field(default=2e-4, metadata=limits(gt=0, le=1))
    weight_decay: float = field(default=0.0, metadata=limits(ge=0, le=1))
    beta1: float = field(default=0.9, metadata=limits(ge=0, lt=1))
    beta2: float = field(default=0.999, metadata=limits(ge=0, lt=1))
    epsilon: float = field(default=1e-8, metadata=limits(gt=0))
    schedule: str = field(default="cosine", metadata=limits(choices=("cosine", "linear", "constant", "exponential")))
    warmup_steps: int = field(default=0, metadata=limits(ge=0))
    gradient_clip: float = field(default=1.0, metadata=limits(ge=0))  # global L2 norm; 0 switches it off


@dataclass
class TrainerConfig:
    """How long and on what the training runs."""

    accelerator: str = field(default="auto", metadata=limits(choices=("auto", "cpu", "gpu"), key=False))
    devices: int = field(default=1, metadata=limits(ge=1, le=1))
    precision: str = field(default="auto", metadata=limits(choices=("auto", "32", "bf16")))
    epochs: int = field(default=1, metadata=limits(ge=1))
    max_steps: int | None = field(default=None, metadata=limits(ge=1))  # optimizer steps
    global_batch_size: int = field(default=16, metadata=limits(ge=1))  # sequences per optimizer step
    micro_batch_size: int = field(default=16, metadata=limits(ge=1))  # sequences per forward pass
    threads: int | None = field(default=None, metadata=limits(ge=1, key=False))  # CPU threads; part of the compute key
    deterministic: bool = True


@dataclass
class CallbacksConfig:
    """What happens while training runs; none of it changes the weights."""

    checkpoint_every_n_steps: int = field(default=50, metadata=limits(ge=1, key=False))
    keep_checkpoints: int = field(default=2, metadata=limits(ge=1, key=False))
    val_every_n_steps: int = field(default=0, metadata=limits(ge=0, key=False))  # 0: at each epoch's end
    log_every_n_steps: int = field(default=1, metadata=limits(ge=1, key=False))


@dataclass
class LoggerConfig:
    """Where metrics go besides ``metrics.jsonl``, which is always written."""

    wandb: bool = False
    csv: bool = True
    project: str = "organon"
    group: str | None = None  # a sweep's points share one
    tags: list[str] = field(default_factory=list)
    mode: str = field(default="auto", metadata=limits(choices=("auto", "online", "offline")))


@dataclass
class TaskConfig:
    """One Inspect task of a suite: ``pkg.mod:func``, ``file.py@task`` or a registered name."""

    task: str = MISSING
    name: str | None = field(default=None, metadata=NOT_IN_KEY)  # label in tables; default: the task's own name
    args: dict[str, Any] = field(default_factory=dict)


@dataclass
class GenerationConfig:
    """How the evaluated models answer; greedy by default."""

    temperature: float = field(default=0.0, metadata=limits(ge=0, le=10))
    top_p: float = field(default=1.0, metadata=limits(gt=0, le=1))
    max_tokens: int = field(default=64, metadata=limits(ge=1))
    seed: int = 0


@dataclass
class EvalConfig:
    """A suite: Inspect tasks with generation settings."""

    name: str = field(default=MISSING, metadata=NOT_IN_KEY)
    tasks: list[TaskConfig] = field(default_factory=list)
    limit: int | None = field(default=None, metadata=limits(ge=1))  # samples per task
    epochs: int = field(default=1, metadata=limits(ge=1))  # Inspect's: repeats of each sample
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    system_prompt: str | None = None
    base: bool = field(default=True, metadata=NOT_IN_KEY)  # evaluate the base model too, and compare
    max_connections: int = field(default=128, metadata=limits(ge=1, key=False))
    batch_size: int = field(default=64, metadata=limits(ge=1, key=False))  # sequences per forward pass


@dataclass
class RunConfig:
    """The primary config of ``organon run``, and of ``organon train``, which ignores ``eval``."""

    model: ModelConfig = field(default_factory=ModelConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    callbacks: CallbacksConfig = field(default_factory=CallbacksConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    backend: dict[str, Any] = field(default_factory=dict)  # open group: `_target_` and its arguments
    seed: int = field(default=0, metadata=limits(ge=0, le=2**32 - 1))
    name: str | None = None  # run name; default: an adjective-noun pair drawn from the key
    output_dir: str = "outputs"
    store: str | None = None  # default: ORGANON_STORE, else <output_dir>/store
    offline: bool = False  # never look at the network for a model
    allow_targets: list[str] = field(default_factory=list)  # exact names of the user's own backend classes


@dataclass
class EvaluateConfig:
    """The primary config of ``organon evaluate``: any model that Inspect knows, or a run of ours."""

    target: str | None = None  # `organon/<run name or key>`, `openai/...`; default: the preset in `model`
    model: ModelConfig = field(default_factory=ModelConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)  # of the base: its quantisation
    eval: EvalConfig = field(default_factory=EvalConfig)
    output_dir: str = "outputs"
    store: str | None = None
    offline: bool = False
