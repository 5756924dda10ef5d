"""What the training benchmarks share: chats, tokenizer, model folder, a peer's step log, a watched process.

Nothing is downloaded, and nothing heavy is imported before it is needed: peers import this file too.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

CACHE = Path(os.environ.get("BENCH_CACHE", "outputs/bench")).absolute()
PEERS = Path(sys.prefix) / "peers"  # trl and datasets (benchmarks/requirements.txt); ours never sees them
METRICS = "metrics.jsonl"
SAMPLE_SECONDS = 0.05

# ChatML. The assistant's text and its end-of-turn token are trained, for us and for the peers.
CHAT_TEMPLATE = (
    "{% for m in messages %}{% if not loop.first %}{{ '\n' }}{% endif %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n<|im_start|>assistant\n' }}{% endif %}"
)
SPECIALS = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
SYLLABLES = ["ba", "ko", "ri", "tu", "ne", "sol", "mar", "vi", "da", "pel", "gu", "hen", "lo", "fi", "zar", "me"]
VOCABULARY = 2048


@dataclass(frozen=True)
class Geometry:
    """A Llama by its sizes. ``vocabulary`` may exceed the tokenizer's: the output layer's cost depends on it."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int = VOCABULARY
    tied: bool = True
    dtype: str = "float32"  # of the saved weights


GEOMETRIES = {
    "toy": Geometry(64, 2, 2, 1, 176),
    "10m": Geometry(384, 6, 6, 2, 1024),
    "1b": Geometry(2048, 16, 32, 8, 8192, 128_256, True, "bfloat16"),  # Llama 3.2 1B
    "8b": Geometry(4096, 32, 32, 8, 14_336, 128_256, False, "bfloat16"),  # Llama 3.1 8B
}


# ------------------------------------------------------------------------------------------------ data


def chats(
    count: int,
    *,
    seed: int = 0,
    median_words: float = 60,
    sigma: float = 0.8,
    longest: int = 400,
    second_turn: float = 0.25,
    kinds: Sequence[str] = ("reverse", "sort", "count", "add"),
) -> Iterator[dict[str, Any]]:
    """Conversations of log-normal length about word lists. ``second_turn``: share of those with two turns.

    ``median_words`` and ``longest`` are words of a turn: half of them are in the question, and in the answers that
    reverse or sort them.
    """
    rng = random.Random(seed)
    words = sorted({"".join(rng.choice(SYLLABLES) for _ in range(rng.randint(1, 3))) for _ in range(1200)})
    for _ in range(count):
        messages = [{"role": "system", "content": "You are a careful assistant."}]
        for _ in range(2 if rng.random() < second_turn else 1):
            size = int(min(longest, max(4, rng.lognormvariate(math.log(median_words), sigma)))) // 2
            question, answer = _turn(rng, rng.choice(kinds), [rng.choice(words) for _ in range(size)])
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        yield {"messages": messages}


def _turn(rng: random.Random, kind: str, words: list[str]) -> tuple[str, str]:
    text = " ".join(words)
    if kind == "reverse":
        return f"Reverse the order of these words: {text}", " ".join(reversed(words))
    if kind == "sort":
        return f"Sort these words: {text}", " ".join(sorted(words))
    if kind == "count":
        return f"How many words are there? {text}", f"There are {len(words)} words."
    a, b = rng.randint(0, 999), rng.randint(0, 999)
    return f"What is {a} + {b}? {text}", f"{a} + {b} = {a + b}"


def chat_file(count: int, *, max_length: int, **sizes: Any) -> Path:
    """JSON Lines of ``chats`` whose answers all begin within ``max_length`` tokens, so that no tool drops one."""
    name = "-".join([str(count), str(max_length), *(f"{k}{v}" for k, v in sizes.items() if k != "kinds")])
    path = CACHE / f"chats-{name}.jsonl"
    if not path.exists():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(tokenizer_folder() / "tokenizer.json"))
        kept = 0
        with _Unfinished(path) as file:
            for row in chats(2 * count + 100, **sizes):
                if kept < count and _last_answer_begins(tokenizer, row["messages"]) < max_length - 1:
                    file.write(json.dumps(row) + "\n")
                    kept += 1
        if kept < count:
            path.unlink()
            raise SystemExit(f"only {kept} of {count} conversations fit into {max_length} tokens")
    return path


def _last_answer_begins(tokenizer: Any, messages: list[dict[str, str]]) -> int:
    """Upper bound of the position of the last answer's first token."""
    text = "\n".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>" for m in messages[:-1])
    return len(tokenizer.encode(text + "\n<|im_start|>assistant\n", add_special_tokens=False).ids)


class _Unfinished:
    """Write beside the place and rename: a file that is there is complete."""

    def __init__(self, path: Path) -> None:
        self.path, self.beside = path, path.with_name(f".{path.name}.{os.getpid()}")

    def __enter__(self) -> Any:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.beside.open("w")
        return self.file

    def __exit__(self, kind: Any, *_: Any) -> None:
        self.file.close()
        if kind is None:
            self.beside.replace(self.path)


def tokenizer_folder() -> Path:
    """A byte-level BPE trained on other conversations of the same kind, with the chat template."""
    folder = CACHE / f"tokenizer-{VOCABULARY}"
    if not (folder / "tokenizer_config.json").exists():
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator((m["content"] for row in chats(4000, seed=123) for m in row["messages"]), trainer)
        fast = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|im_end|>", model_max_length=8192
        )
        fast.chat_template = CHAT_TEMPLATE
        fast.save_pretrained(folder)
    return folder


def model_folder(geometry: str, *, seed: int = 0, device: str = "cpu") -> Path:
    """A Llama of these sizes with random weights, and the tokenizer: what ``from_pretrained`` reads, for everyone."""
    folder = CACHE / f"model-{geometry}"
    if not (folder / "config.json").exists() or not (folder / "tokenizer.json").exists():
        import torch
        from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

        sizes = GEOMETRIES[geometry]
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder())
        config = LlamaConfig(
            vocab_size=sizes.vocabulary,
            hidden_size=sizes.hidden,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            num_key_value_heads=sizes.kv_heads,
            intermediate_size=sizes.intermediate,
            tie_word_embeddings=sizes.tied,
            max_position_embeddings=8192,
            rms_norm_eps=1e-5,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
            dtype=sizes.dtype,
        )
        torch.manual_seed(seed)
        torch.set_default_dtype(getattr(torch, sizes.dtype))
        with torch.device(device):
            model = LlamaForCausalLM(config)
        torch.set_default_dtype(torch.float32)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


# ------------------------------------------------------------------------------------------------ a peer's steps


@dataclass
class StepLog:
    """Writes a peer's ``metrics.jsonl`` with the fields of ours: one line per optimizer step.

    ``tokens`` (real input tokens) and ``positions`` (padding included) are counted here, from the tensors that the
    model gets, not taken from the tool.
    """

    folder: Path
    tokens: int = 0
    positions: int = 0
    row: dict[str, Any] = field(default_factory=dict)

    def count(self, inputs: dict[str, Any]) -> None:
        """Add a micro-batch as it goes into the model."""
        positions = inputs["input_ids"].numel()
        mask = inputs.get("attention_mask")
        padded = mask is not None and mask.dim() == 2
        self.tokens += int(mask.sum()) if padded else positions
        self.positions += positions

    def step(self, number: int, **extra: Any) -> None:
        """The optimizer step ``number`` has just ended."""
        self.row = {"step": number, "time": time.time(), "tokens": self.tokens, "positions": self.positions, **extra}

    def write(self, loss: float, grad_norm: float) -> None:
        """The tool has said loss and gradient norm of that step."""
        with (self.folder / METRICS).open("a") as file:
            file.write(json.dumps({**self.row, "train/loss": loss, "grad_norm": grad_norm}) + "\n")


def log_steps(trainer: Any, folder: Path) -> None:
    """Make a Hugging Face ``Trainer`` (TRL's is one) keep a ``StepLog`` in ``folder``."""
    import torch
    from transformers import TrainerCallback

    log, inner = StepLog(folder), trainer.training_step

    def training_step(model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        log.count(inputs)
        return inner(model, inputs, *rest, **named)

    class Steps(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            extra = {"peak_bytes": torch.cuda.max_memory_allocated()} if torch.cuda.is_available() else {}
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            log.step(state.global_step, **extra)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                log.write(float(logs["loss"]), float(logs["grad_norm"]))

    trainer.training_step = training_step
    trainer.add_callback(Steps())


# ------------------------------------------------------------------------------------------------ watching


@dataclass
class Watched:
    """What was seen of a process tree from outside. Times are wall-clock seconds since the epoch."""

    started: float
    steps: list[dict[str, Any]] = field(default_factory=list)  # rows of metrics.jsonl
    clock: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  # CPU seconds of the tree at these times
    peak_bytes: int = 0
    returncode: int | None = None  # None: ended by us, when it had done enough

    def cpu_at(self, moment: float) -> float:
        """CPU seconds of the tree up to ``moment``, between two samples in proportion."""
        after = min(max(bisect_left(self.clock, moment), 1), len(self.clock) - 1)
        t0, t1, c0, c1 = self.clock[after - 1], self.clock[after], self.cpu[after - 1], self.cpu[after]
        return c0 + (c1 - c0) * min(1.0, (moment - t0) / (t1 - t0))


def watch(
    command: list[str],
    folder: Path,
    *,
    enough: Callable[[list[dict[str, Any]]], bool],
    environment: dict[str, str],
    metrics: Path | None = None,
    limit_seconds: float = 1800,
) -> Watched:
    """Run ``command`` in ``folder`` until its ``metrics.jsonl`` is ``enough`` or it ends; look at it 20 times a second.

    Everyone is measured by this one function: CPU seconds and resident bytes are the kernel's, not the tool's word.
    """
    with (folder / "log.txt").open("wb") as log:
        started = time.time()
        process = psutil.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment, start_new_session=True)
    seen, reader = Watched(started, clock=[started], cpu=[0.0]), _Rows(metrics or folder / METRICS)
    try:
        while process.poll() is None:
            _sample(process, seen)
            seen.steps += reader.new()
            if enough(seen.steps):
                return seen
            if time.time() - started > limit_seconds:
                raise SystemExit(f"{folder}: no end after {limit_seconds:.0f} s\n{_tail(folder)}")
            time.sleep(SAMPLE_SECONDS)
        seen.steps += reader.new()
        seen.returncode = process.returncode
        if process.returncode:
            raise SystemExit(f"{folder}: {' '.join(command)} ended with {process.returncode}\n{_tail(folder)}")
        return seen
    finally:
        _end(process)


def _end(process: psutil.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # its own session, which we began
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        raise SystemExit(f"process {process.pid} does not end") from None


def _tail(folder: Path) -> str:
    return (folder / "log.txt").read_text(errors="replace")[-3000:]


def _sample(process: psutil.Process, seen: Watched) -> None:
    cpu, resident = 0.0, 0
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        try:
            with member.oneshot():
                times, memory = member.cpu_times(), member.memory_info()
        except psutil.NoSuchProcess:
            continue
        cpu += times.user + times.system + times.children_user + times.children_system
        resident += memory.rss
    if cpu >= seen.cpu[-1]:  # a child that has just ended is in nobody's sum for a moment
        seen.clock.append(time.time())
        seen.cpu.append(cpu)
    alone = _high_water(process.pid) if len(family) == 1 else 0  # the kernel's own maximum, between samples too
    seen.peak_bytes = max(seen.peak_bytes, resident, alone)


def _high_water(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


class _Rows:
    """The lines that a growing JSON Lines file gained since the last look."""

    def __init__(self, path: Path) -> None:
        self.path, self.read = path, 0

    def new(self) -> list[dict[str, Any]]:
        try:
            with self.path.open("rb") as file:
                file.seek(self.read)
                text = file.read()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self.read += len(whole)
        return [json.loads(line) for line in whole.splitlines()]


def thread_environment(threads: int) -> dict[str, str]:
    """This process's environment, with the threads of every library fixed; no hub, no telemetry."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return {
        **os.environ,
        **dict.fromkeys(names, str(threads)),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONUNBUFFERED": "1",
    }
