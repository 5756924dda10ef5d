"""Training speed and memory beside TRL's SFTTrainer and the plain Hugging Face Trainer, on the CPU.

    make bench-training                                   (or: python benchmarks/training.py [--rounds 5] [--threads 1])
    python benchmarks/training.py --only organon --only trl-grouped
    python benchmarks/training.py --growth                 (1k to 1M rows: cost a token, memory, start)

Same model folder, rows, adapter, precision, loss mask, batch and threads for everyone; each run is a process of its own
that is watched from outside and ended after the same number of real tokens. The correctness gate
(benchmarks/training_gate.py) comes first: no figures without it. README.md beside this file says what is measured how.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import CACHE, PEERS, Watched, chat_file, model_folder, thread_environment, watch

HERE = Path(__file__).resolve().parent
MAX_LENGTH, BATCH, RANK = 512, 8, 8
WARM_UP = 3  # steps that are left out of the speed
REFERENCE = "trl"
WORKER = "organon.backends.lightning.worker"


@dataclass(frozen=True)
class Rival:
    """One way to train. ``script`` of a peer with its ``variant``, or ``overrides`` of ours."""

    label: str
    script: str | None = None
    variant: str = "default"
    options: tuple[tuple[str, Any], ...] = ()  # further fields of a peer's job.json
    overrides: tuple[str, ...] = ()
    usual: bool = True  # part of a run without --only

    @property
    def ours(self) -> bool:
        return self.script is None


BF16 = (("weights", "bfloat16"),)
RIVALS = {
    "trl": Rival("TRL default", "trl_sft"),
    "trl-grouped": Rival("TRL, grouped by length", "trl_sft", "grouped"),
    "trl-packed": Rival("TRL, packed (bfd, 1 row x 3)", "trl_sft", "packed"),
    "hf": Rival("HF Trainer default", "hf_trainer"),
    "hf-grouped": Rival("HF Trainer, grouped by length", "hf_trainer", "grouped"),
    "organon": Rival("organon default"),
    "organon-float32": Rival("organon, base in float32", overrides=("model.dtype=float32",)),
    "trl-grouped-bf16": Rival("TRL, grouped, base in bf16", "trl_sft", "grouped", BF16, usual=False),
    "hf-grouped-bf16": Rival("HF, grouped, base in bf16", "hf_trainer", "grouped", BF16, usual=False),
    "trl-qlora": Rival("TRL, grouped, QLoRA nf4", "trl_sft", "grouped", (("quantized", True),), usual=False),
    "organon-qlora": Rival("organon, QLoRA nf4", overrides=("adapter=qlora",), usual=False),
}  # fmt: skip


@dataclass(frozen=True)
class Figures:
    """One run's measurement. Speeds: real (non-padding) input tokens after the first three steps."""

    tokens_per_cpu_second: float
    tokens_per_second: float
    cores_used: float
    tokens: int  # measured
    seconds: float
    padding: float  # share of the positions that the model computed
    peak_bytes: int  # resident, of the process tree
    first_step_seconds: float  # from the start of the process to the end of its first step, tokens cached
    first_step_cpu_seconds: float
    steps: int
    losses: list[float]
    load: float  # average of the last minute


def figures(seen: Watched, *, padding: float | None = None, warm_up: int = WARM_UP) -> Figures:
    """What a watched run measured. ``padding``: for a tool that does not report its positions.

    Raises:
        ValueError: too few steps, a gradient norm of zero, or a loss that does not fall: not a training.
    """
    if len(seen.steps) < warm_up + 2:
        raise ValueError(f"{len(seen.steps)} steps: at least {warm_up + 2} are needed")
    check_learning(seen.steps)
    first, start, end = seen.steps[0], seen.steps[warm_up - 1], seen.steps[-1]
    tokens, seconds = end["tokens"] - start["tokens"], end["time"] - start["time"]
    cpu = seen.cpu_at(end["time"]) - seen.cpu_at(start["time"])
    if padding is None:
        padding = 1 - end["tokens"] / end["positions"]
    return Figures(
        tokens_per_cpu_second=tokens / cpu,
        tokens_per_second=tokens / seconds,
        cores_used=cpu / seconds,
        tokens=tokens,
        seconds=seconds,
        padding=padding,
        peak_bytes=seen.peak_bytes,
        first_step_seconds=first["time"] - seen.started,
        first_step_cpu_seconds=seen.cpu_at(first["time"]),
        steps=len(seen.steps),
        losses=[first["train/loss"], end["train/loss"]],
        load=os.getloadavg()[0],
    )


def check_learning(steps: Sequence[dict[str, Any]]) -> None:
    """Refuse a run whose gradients are zero or whose loss does not fall (a 'fast' run may not train at all)."""
    if not all(step["grad_norm"] > 0 for step in steps):
        raise ValueError("a gradient norm of zero: nothing was trained")
    third = max(1, len(steps) // 3)
    before, after = (statistics.fmean(s["train/loss"] for s in part) for part in (steps[:third], steps[-third:]))
    if not after < before:
        raise ValueError(f"the loss does not fall: {before:.3f} -> {after:.3f}")


# ------------------------------------------------------------------------------------------------ one run


@dataclass(frozen=True)
class Setting:
    """What all runs of one measurement share."""

    model: Path
    data: Path
    threads: int
    tokens: int  # real ones to measure, after the warm-up
    max_length: int = MAX_LENGTH
    batch: int = BATCH
    learning_rate: float = 1e-3
    precision: str = "bf16"
    device: str = "cpu"  # or gpu

    def packed_rows(self) -> int:
        """Full rows that hold about the tokens of a batch: the mean length is about a third of the longest."""
        return max(1, round(self.batch * 0.36))


def run_once(rival: Rival, setting: Setting, folder: Path, *, caches: Path, steps: int | None = None) -> Watched:
    """Train in ``folder`` until ``setting.tokens`` are measured, or for ``steps``. ``caches``: of tokenised rows."""

    def enough(rows: list[dict[str, Any]]) -> bool:
        if steps is not None:
            return len(rows) >= steps
        return len(rows) > WARM_UP + 1 and rows[-1]["tokens"] - rows[WARM_UP - 1]["tokens"] >= setting.tokens

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    environment = thread_environment(setting.threads)
    if rival.ours:
        prepare_worker(rival, setting, folder, store=caches / "store")
        command = [sys.executable, "-P", "-m", WORKER, str(folder)]
    else:
        job = {
            "variant": rival.variant,
            "model": str(setting.model),
            "data": str(setting.data),
            "device": setting.device,
            "threads": setting.threads,
            "max_length": setting.max_length,
            "batch": setting.batch,
            "packed_rows": setting.packed_rows(),
            "precision": setting.precision,
            "rank": RANK,
            "learning_rate": setting.learning_rate,
            "seed": 0,
            **dict(rival.options),
        }
        (folder / "job.json").write_text(json.dumps(job))
        environment |= {"PYTHONPATH": str(PEERS), "HF_DATASETS_CACHE": str(caches / "datasets")}
        command = [sys.executable, str(HERE / "peers" / f"{rival.script}.py"), str(folder / "job.json")]
    return watch(command, folder, enough=enough, environment=environment)


def prepare_worker(rival: Rival, setting: Setting, folder: Path, *, store: Path) -> None:
    """``spec.json`` and ``job.json`` as ``organon train`` writes them before it starts the worker."""
    from organon.backends.lightning.backend import LightningBackend
    from organon.backends.lightning.workdir import JOB, SPEC, Workdir
    from organon.config.compose import compose
    from organon.config.spec import to_dict
    from organon.pipeline.resolve import resolve
    from organon.store.store import Store

    config = compose("train", overrides(rival, setting))
    spec = resolve(config, Store.open(store), LightningBackend())
    workdir = Workdir(folder)
    workdir.write(SPEC, to_dict(spec))
    workdir.write(JOB, {"job_id": "benchmark", "key": "0" * 64})


def overrides(rival: Rival, setting: Setting) -> list[str]:
    """What a user would write on ``organon train``'s command line to get what the peers do."""
    return [
        "model.id=null",
        "model.name=bench",
        "model.context_length=null",
        f"model.path={setting.model}",
        "dataset=messages",
        f"dataset.source={setting.data}",
        "dataset.validation_fraction=0",
        f"dataset.max_length={setting.max_length}",
        "dataset.on_too_long=truncate",
        "adapter=lora",
        f"adapter.rank={RANK}",
        f"optim.learning_rate={setting.learning_rate}",
        "optim.schedule=linear",
        "optim.warmup_steps=0",
        f"trainer={setting.device}",
        f"trainer.precision={setting.precision}",
        f"trainer.threads={setting.threads}",
        f"trainer.global_batch_size={setting.batch}",
        f"trainer.micro_batch_size={setting.batch}",
        "trainer.epochs=1",
        "logger=none",
        *rival.overrides,
    ]


# ------------------------------------------------------------------------------------------------ rounds and table


def is_crowded(found: Figures, threads: int) -> bool:
    """Whether others took so much of the CPU that the run had less than nine tenths of its threads."""
    return found.cores_used < 0.9 * threads


def kept_rounds(rounds: Sequence[dict[str, Figures]], threads: int) -> list[dict[str, Figures]]:
    """The rounds in which nobody was crowded."""
    return [one for one in rounds if not any(is_crowded(found, threads) for found in one.values())]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def summary(rounds: Sequence[dict[str, Figures]]) -> dict[str, dict[str, Any]]:
    """Per rival: median and range of each figure, and ratios within each round to the default and to the best rival.

    The best rival is the peer with the highest median of tokens per CPU second.
    """
    names = list(rounds[0])
    per_cpu = {name: statistics.median(one[name].tokens_per_cpu_second for one in rounds) for name in names}
    peers = [name for name in names if not RIVALS[name].ours]
    best = max(peers, key=per_cpu.__getitem__, default=None)
    table: dict[str, dict[str, Any]] = {}
    for name in names:
        row: dict[str, Any] = {
            field: spread([getattr(one[name], field) for one in rounds])
            for field in (
                "tokens_per_cpu_second", "tokens_per_second", "cores_used", "padding", "peak_bytes",
                "first_step_seconds", "first_step_cpu_seconds",
            )
        }  # fmt: skip
        for title, other in (("default", REFERENCE if REFERENCE in names else None), ("best", best)):
            if other is not None:
                row[f"times_{title}"] = {
                    field: spread([getattr(one[name], field) / getattr(one[other], field) for one in rounds])
                    for field in ("tokens_per_cpu_second", "tokens_per_second", "peak_bytes")
                }
        table[name] = row
    return {"rivals": table, "best_rival": best}


def render(found: dict[str, Any], cold: dict[str, list[float]]) -> str:
    """The table in Markdown."""
    best = found["best_rival"]
    lines = [
        "| | tokens / CPU s | tokens / s | padding | peak RSS MB | first step s, cached (CPU s) | cold s "
        "| x default | x best | RSS x default | RSS x best |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in found["rivals"].items():
        cells = [
            RIVALS[name].label,
            _range(row["tokens_per_cpu_second"], "{:.0f}"),
            _range(row["tokens_per_second"], "{:.0f}"),
            f"{100 * row['padding']['median']:.0f} %",
            _range({k: v / 2**20 for k, v in row["peak_bytes"].items()}, "{:.0f}"),
            f"{row['first_step_seconds']['median']:.1f} ({row['first_step_cpu_seconds']['median']:.1f})",
            f"{statistics.median(cold[name]):.1f}" if cold.get(name) else "",
        ]
        for field, form in (("tokens_per_cpu_second", "{:.2f}"), ("peak_bytes", "{:.2f}")):
            for title in ("times_default", "times_best"):
                cells.append(form.format(row[title][field]["median"]) if title in row else "")
        lines.append("| " + " | ".join(cells) + " |")
    legend = f"\nx default: tokens / CPU s over {RIVALS[REFERENCE].label}"
    return "\n".join(lines) + legend + (f"; x best: over {RIVALS[best].label}" if best else "")


def _range(value: dict[str, float], form: str) -> str:
    low, high = form.format(value["low"]), form.format(value["high"])
    return form.format(value["median"]) + ("" if low == high else f" ({low}-{high})")


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    names = ("torch", "transformers", "peft", "lightning", "bitsandbytes", "accelerate")
    text = Path("/proc/cpuinfo").read_text()
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return {
        "cpu": next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "?"),
        "cores": os.cpu_count(),
        "avx512_bf16": "avx512_bf16" in flags,
        "python": sys.version.split()[0],
        "versions": {
            **{name: importlib.metadata.version(name) for name in names},
            **{d.name: d.version for d in importlib.metadata.distributions(path=[str(PEERS)])},
        },
    }


# ------------------------------------------------------------------------------------------------ commands


def compare(names: Sequence[str], setting: Setting, args: argparse.Namespace) -> dict[str, Any]:
    """All rivals in turn, round by round, after the gate."""
    gate = run_gate(setting) if not args.no_gate else None
    if gate is not None and not gate["green"]:
        raise SystemExit(f"the correctness gate is red; nothing is measured\n{json.dumps(gate, indent=1)}")
    runs = CACHE / "runs"
    caches, cold = CACHE / "caches", {name: [] for name in names}
    for name in names:  # fills the token caches, and the disk cache: not measured
        run_once(RIVALS[name], setting, runs / f"prime-{name}", caches=caches, steps=1)
    rounds: list[dict[str, Figures]] = []
    while len(kept_rounds(rounds, setting.threads)) < args.rounds and len(rounds) < 2 * args.rounds:
        done: dict[str, Figures] = {}
        for name in names if len(rounds) % 2 == 0 else reversed(names):
            padding = gate["padding"] if gate and RIVALS[name].ours else 0.0 if RIVALS[name].ours else None
            seen = run_once(RIVALS[name], setting, runs / name, caches=caches)
            done[name] = figures(seen, padding=padding)
            say(f"round {len(rounds) + 1}  {name:<18} {line(done[name])}")
            if args.cold > len(cold[name]):
                fresh = CACHE / "fresh"
                shutil.rmtree(fresh, ignore_errors=True)
                seen = run_once(RIVALS[name], setting, runs / f"cold-{name}", caches=fresh, steps=1)
                cold[name].append(seen.steps[0]["time"] - seen.started)
        rounds.append({name: done[name] for name in names})
    kept = kept_rounds(rounds, setting.threads)
    say(f"{len(kept)} of {len(rounds)} rounds kept; in the others a run had less than 0.9 x {setting.threads} cores")
    if not kept:
        say("EVERY round was crowded: the table is of all of them, and its seconds (not its CPU seconds) mean little")
    found = summary(kept or rounds)
    print(render(found, cold))
    return {
        "gate": gate,
        "setting": {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(setting).items()},
        "rounds": [{name: dataclasses.asdict(f) for name, f in one.items()} for one in rounds],
        "kept": len(kept),
        "cold_first_step_seconds": cold,
        **found,
    }


def run_gate(setting: Setting) -> dict[str, Any]:
    """The correctness gate, in a process of its own."""
    folder = CACHE / "runs" / "gate"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    prepare_worker(RIVALS["organon"], dataclasses.replace(setting, precision="32"), folder, store=folder / "store")
    environment = {**thread_environment(setting.threads), "PYTHONPATH": str(PEERS)}
    command = [sys.executable, str(HERE / "training_gate.py"), str(folder), str(setting.data), str(setting.model)]
    subprocess.run(command, check=True, env=environment)
    return json.loads((folder / "gate.json").read_text())


def line(found: Figures) -> str:
    """One run in one line, for whoever waits."""
    return (
        f"{found.tokens_per_cpu_second:6.0f} tok/CPU s {found.tokens_per_second:6.0f} tok/s"
        f"  {found.cores_used:.2f} cores  pad {100 * found.padding:2.0f} %  {found.peak_bytes / 2**20:5.0f} MB"
        f"  first step {found.first_step_seconds:5.1f} s ({found.first_step_cpu_seconds:.1f} CPU)"
        f"  loss {found.losses[0]:.2f} -> {found.losses[1]:.2f}  load {found.load:.1f}"
    )


def growth(args: argparse.Namespace, threads: int) -> dict[str, Any]:
    """Ours from 1k to 1M short rows: tokenising once, then start, speed and memory with cached tokens."""
    rows: dict[str, Any] = {}
    print("| rows | first step s, cold | cached (CPU s) | peak RSS MB, cold | cached | tokens / CPU s |")
    print("|---|---|---|---|---|---|")
    for count in args.rows:
        data = chat_file(count, max_length=128, median_words=8, longest=24)
        setting = Setting(model_folder(args.model), data, threads, tokens=args.tokens // 2, max_length=128, batch=32)
        caches = CACHE / "growth" / str(count)
        shutil.rmtree(caches, ignore_errors=True)
        cold = run_once(RIVALS["organon"], setting, CACHE / "runs" / "growth", caches=caches, steps=2)
        warm = figures(run_once(RIVALS["organon"], setting, CACHE / "runs" / "growth", caches=caches), padding=0.0)
        rows[str(count)] = {
            "cold_first_step_seconds": cold.steps[0]["time"] - cold.started,
            "cold_first_step_cpu_seconds": cold.cpu_at(cold.steps[0]["time"]),
            "cold_peak_bytes": cold.peak_bytes,
            **dataclasses.asdict(warm),
        }
        print(
            f"| {count:,} | {rows[str(count)]['cold_first_step_seconds']:.1f} | {warm.first_step_seconds:.1f} "
            f"({warm.first_step_cpu_seconds:.1f}) | {cold.peak_bytes / 2**20:.0f} | {warm.peak_bytes / 2**20:.0f} "
            f"| {warm.tokens_per_cpu_second:.0f} |",
            flush=True,
        )
        shutil.rmtree(caches, ignore_errors=True)
    return {"growth": rows}


def say(text: str) -> None:
    """A line for whoever waits; the table alone goes to stdout."""
    print(text, file=sys.stderr, flush=True)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds", type=int, default=5, help="rounds that must not be crowded; at most twice as many run"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=40_000, help="real tokens that each run is measured over")
    parser.add_argument("--rows-of-data", type=int, default=2000)
    parser.add_argument("--model", default="10m", help="a geometry of common.py")
    parser.add_argument("--only", action="append", choices=RIVALS, help="this rival only; may be given again")
    parser.add_argument("--qlora", action="store_true", help="the nf4 pair besides")
    parser.add_argument("--cold", type=int, default=2, help="starts with empty token caches, for each rival")
    parser.add_argument(
        "--no-gate", action="store_true", help="for work on this script: figures without the gate are not results"
    )
    parser.add_argument("--growth", action="store_true", help="instead: ours over growing data")
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000], help="of --growth")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    args = parser.parse_args(arguments)
    if args.rounds < 1 or args.threads < 1:
        parser.error("--rounds and --threads are at least 1")
    return args


def chosen(args: argparse.Namespace) -> list[str]:
    """The rivals of this run, in the table's order."""
    if args.only:
        return [name for name in RIVALS if name in args.only]
    return [name for name, rival in RIVALS.items() if rival.usual or (args.qlora and "qlora" in name)]


def main() -> None:
    args = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the rival at work is ended too
    names = chosen(args)
    if not args.growth and any(not RIVALS[name].ours for name in names) and not (PEERS / "trl").is_dir():
        raise SystemExit(f"the peers are not in {PEERS}; run: make bench-training")
    begin = time.time()
    if args.growth:
        result = growth(args, args.threads)
    else:
        data = chat_file(args.rows_of_data, max_length=MAX_LENGTH)
        result = compare(names, Setting(model_folder(args.model), data, args.threads, args.tokens), args)
    now = datetime.datetime.now(datetime.UTC)
    result = {
        "date": now.isoformat(timespec="seconds"),
        "seconds": round(time.time() - begin),
        "machine": machine(),
        **result,
    }
    if args.no_gate:
        return
    args.results.mkdir(parents=True, exist_ok=True)
    kind = "training-growth" if args.growth else "training"
    place = args.results / f"{kind}-{now:%Y-%m-%d-%H%M}.json"
    place.write_text(json.dumps(result, indent=1) + "\n")
    say(f"written to {place}")


if __name__ == "__main__":
    main()
