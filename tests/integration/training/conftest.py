"""A tiny random Llama with a byte-level tokenizer, specs on it, and real worker processes that start quickly."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

import pytest

from organon.backends.lightning.compute import versions
from organon.backends.lightning.launch import Place, log_name, met
from organon.backends.lightning.workdir import Workdir
from organon.config.schema import (
    AdapterConfig,
    CallbacksConfig,
    DatasetConfig,
    LoggerConfig,
    ModelConfig,
    OptimConfig,
    TrainerConfig,
)
from organon.config.spec import TrainSpec, to_dict
from organon.models.folder import resolve_base

TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
Row = dict[str, Any]
KEY = "0123456789abcdef" * 4
SPECIALS = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")


def save_tokenizer(folder: Path, template: str | None = TEMPLATE) -> None:
    """One token per byte, and the chat template's special ones."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIALS, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>")
    fast.add_special_tokens({"additional_special_tokens": list(SPECIALS[2:])})
    fast.chat_template = template
    fast.save_pretrained(folder)


def save_llama(folder: Path) -> None:
    """Random weights: hidden size 64, 2 layers."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=264,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.2,  # large enough that an adapter can move the logits of tied embeddings
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "llama"
    folder.mkdir()
    save_llama(folder)
    save_tokenizer(folder)
    return folder


def conversation(word: str) -> Row:
    return {"messages": [{"role": "user", "content": word}, {"role": "assistant", "content": word.upper()}]}


def words(count: int, start: int = 0) -> list[Row]:
    """Rows of different lengths."""
    return [
        conversation(f"{i * 7919 % 997:03d}"[: 1 + i % 3] + "abcdefgh"[: i % 8 + 1])
        for i in range(start, start + count)
    ]


class Lab:
    """What these tests work with: specs on the tiny model, workers, and what workers leave in a workdir."""

    def __init__(self, model_folder: Path, data: Path, context: Any) -> None:
        self.model_folder, self.data, self.context = model_folder, data, context

    def spec(
        self,
        *,
        rows: list[Row] | None = None,
        validation: list[Row] | None = None,
        model: dict[str, Any] | None = None,
        **changes: Any,
    ) -> TrainSpec:
        """24 rows in 2 epochs of 3 steps, checkpoints every 2; a field of any group can be given by its name."""
        groups: dict[str, Any] = {
            "dataset": DatasetConfig(name="words", source="words.jsonl", max_length=64),
            "adapter": AdapterConfig(rank=4, alpha=8),
            "optim": OptimConfig(learning_rate=1e-2, warmup_steps=2),
            "trainer": TrainerConfig(epochs=2, global_batch_size=8, micro_batch_size=4, accelerator="cpu"),
            "callbacks": CallbacksConfig(checkpoint_every_n_steps=2),
            "logger": LoggerConfig(),
        }
        for name, group in groups.items():
            own = {f.name for f in dataclasses.fields(group)} & set(changes)
            groups[name] = dataclasses.replace(group, **{field: changes.pop(field) for field in own})
        base = ModelConfig(**{"name": "llama", "path": str(self.model_folder), **(model or {})})
        train = self.store(words(24) if rows is None else rows)
        held = self.store(words(6, start=100) if validation is None else validation) if validation != [] else None
        precision = groups["trainer"].precision
        spec = TrainSpec(
            base=resolve_base(base, groups["adapter"]),
            dataset_hash=train[0],
            dataset_path=train[1],
            store=str(self.data / "store"),
            validation_hash=held[0] if held else None,
            validation_path=held[1] if held else None,
            model=base,
            compute={"device": "cpu", "precision": "32" if precision == "auto" else precision, "threads": 1},
            versions=versions(),
            **groups,
        )
        return dataclasses.replace(spec, **changes)

    def store(self, rows: list[Row]) -> tuple[str, str]:
        """A canonical file as the store writes it: its hash and path."""
        content = "".join(json.dumps(row) + "\n" for row in rows)
        digest = hashlib.sha256(content.encode()).hexdigest()
        path = self.data / f"{digest}.jsonl"
        path.write_text(content)
        return digest, str(path)

    def start(self, spec: TrainSpec, workdir: Path, kill_at: str = "", **environment: str) -> Any:
        """A worker process in ``workdir``."""
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / "spec.json").write_text(json.dumps(to_dict(spec)))
        (workdir / "job.json").write_text(json.dumps({"job_id": f"lightning-{KEY[:16]}", "key": KEY}))
        process = self.context.Process(
            target=run_worker,
            args=(str(workdir), {"ORGANON_KILL_AT": kill_at, "ORGANON_NO_MEMORY_AT": "", **environment}),
        )
        process.start()
        return process

    def start_node(self, workdir: Path, node: int, kill_at: str = "") -> Any:
        """The leader of a further node's ranks, once rank 0 in ``workdir`` listens."""
        until = time.monotonic() + 60
        while met(Workdir(workdir)) is None:
            assert time.monotonic() < until
            time.sleep(0.05)
        arguments = (str(workdir), {"ORGANON_KILL_AT": kill_at}, None, "--node", str(node))
        process = self.context.Process(target=run_worker, args=arguments)
        process.start()
        return process

    def run(self, spec: TrainSpec, workdir: Path, kill_at: str = "", **environment: str) -> int:
        """A worker's exit code, negative for the signal that killed it."""
        process = self.start(spec, workdir, kill_at, **environment)
        process.join(120)
        assert process.exitcode is not None, "the worker hangs"
        return int(process.exitcode)

    def train(self, spec: TrainSpec, workdir: Path) -> Path:
        """Run a worker that must succeed; its workdir."""
        code = self.run(spec, workdir)
        assert code == 0, (workdir / "logs.txt").read_text()
        return workdir

    def spawn(self, place: Workdir, lock: int, environment: dict[str, str]) -> Forked:
        """Stands for the backend's ``_spawn``: the same worker, forked."""
        environment = {"ORGANON_KILL_AT": "", "ORGANON_NO_MEMORY_AT": "", **environment}  # not those of the server
        process = self.context.Process(target=run_worker, args=(str(place.path), environment, Descriptor(lock)))
        process.start()
        return Forked(process)

    @staticmethod
    def adapter(workdir: Path, epoch: int = 1) -> str:
        """The hash of an epoch's adapter."""
        return hashlib.sha256((workdir / f"epoch_{epoch}" / "adapter_model.safetensors").read_bytes()).hexdigest()

    @staticmethod
    def metrics(workdir: Path, *, times: bool = True) -> list[Row]:
        """The rows of ``metrics.jsonl``, with or without what depends on the clock."""
        rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        left_out = () if times else ("time", "tokens_per_second")
        return [{name: value for name, value in row.items() if name not in left_out} for row in rows]

    @staticmethod
    def status(workdir: Path) -> Row:
        """``status.json``."""
        return dict(json.loads((workdir / "status.json").read_text()))

    @staticmethod
    def final_state(workdir: Path) -> str:
        """The name of the newest checkpoint: its step and the hash of weights, optimizer and position."""
        return sorted(f.name for f in (workdir / "checkpoints").glob("*.safetensors"))[-1]

    words = staticmethod(words)
    conversation = staticmethod(conversation)
    save_tokenizer = staticmethod(save_tokenizer)
    save_llama = staticmethod(save_llama)


@pytest.fixture(scope="session")
def lab(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    # Workers are forked from a server that has everything imported: real processes that can really be
    # killed, without ten seconds of imports each.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["organon.backends.lightning.training", "peft", "transformers", "bitsandbytes"])
    return Lab(model_folder, tmp_path_factory.mktemp("data"), context)


class Forked:
    """A forked worker, as ``subprocess.Popen`` would present it."""

    def __init__(self, process: Any) -> None:
        self.process, self.pid = process, process.pid

    def poll(self) -> int | None:
        """The exit code, once there is one."""
        self.process.join(0)
        return self.returncode

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal."""
        code: int | None = self.process.exitcode
        return code


class Descriptor:
    """A file descriptor that goes to a forked process."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (DupFd(self.number),)


def _received(descriptor: Any) -> int:
    return int(descriptor.detach())


def run_worker(workdir: str, environment: dict[str, str], lock: int | None = None, *arguments: str) -> None:
    """What ``python -m organon.backends.lightning.worker`` does, in a process that has imported everything."""
    os.environ.update(environment)
    log = os.open(Path(workdir) / "logs.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    from organon.backends.lightning import launch, worker

    launch.spawn = fork_rank
    os._exit(worker.main([workdir, *arguments] if lock is None else [workdir, str(lock)]))


def fork_rank(workdir: Workdir, place: Place, environment: dict[str, str]) -> ForkedRank:
    """Stands for ``launch.spawn``: another rank, forked from a worker that has not computed anything yet."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(reading)
        return ForkedRank(pid, writing)
    os.environ.update(environment)
    log = os.open(workdir.path / log_name(place.rank), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for source, target in ((reading, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(writing)
    from organon.backends.lightning import worker

    os._exit(worker.main([str(workdir.path), "--rank"]))


class ForkedRank:
    """A forked rank, as ``subprocess.Popen`` would present it; ``pipe`` is open as long as rank 0 lives."""

    def __init__(self, pid: int, pipe: int) -> None:
        self.pid, self.stdin = pid, os.fdopen(pipe, "wb")
        self._code: int | None = None
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        with self._lock:
            if self._code is None:
                ended, status = os.waitpid(self.pid, os.WNOHANG)
                self._code = os.waitstatus_to_exitcode(status) if ended else None
            return self._code

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        until = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if until is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            time.sleep(0.01)
        return code
