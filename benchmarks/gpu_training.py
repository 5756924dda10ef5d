"""Training speed, FLOP utilisation and memory on one GPU: Llama geometries of 1B and 8B parameters with random weights.

    python benchmarks/gpu_training.py --model 1b --adapter lora --length 2048
    python benchmarks/gpu_training.py --smoke                  (the same code on the CPU, with a toy model)

The worker of ``organon train``, and TRL where it is installed, train the same folder on rows of one length. Random
weights are right for speed and memory and say nothing about quality. Every result is appended to the results file as
soon as it is there, for a lent machine can be taken away; run it again with other options to go on.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib.util
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import CACHE, GEOMETRIES, PEERS, Geometry, Watched, chat_file, model_folder
from training import BF16, HERE, RANK, WARM_UP, Rival, Setting, check_learning, machine, run_once

PEAK_TFLOPS = {"NVIDIA H200": 989, "NVIDIA H100": 989, "NVIDIA A100": 312}  # dense bfloat16, the maker's figures


def rivals(adapter: str) -> dict[str, Rival]:
    """Ours and TRL with its defaults (base in float32) and with the base in bfloat16; QLoRA's base is nf4 for all."""
    quantized = (("quantized", True),) if adapter == "qlora" else ()
    return {
        "organon": Rival("organon", overrides=(f"adapter={adapter}", f"adapter.rank={RANK}")),
        "trl": Rival("TRL default", "trl_sft", options=quantized),
        "trl-bf16": Rival("TRL, weights in bf16", "trl_sft", options=(*quantized, *BF16)),
    }


def matmul_weights(sizes: Geometry) -> int:
    """N: weights that take part in a matrix product: all but the input embedding."""
    head = sizes.hidden // sizes.heads
    attention = sizes.hidden * head * (2 * sizes.heads + 2 * sizes.kv_heads)
    return sizes.layers * (attention + 3 * sizes.hidden * sizes.intermediate) + sizes.vocabulary * sizes.hidden


def flops_per_token(sizes: Geometry, length: int) -> tuple[float, float]:
    """Of LoRA without recomputation: 4 N (forward and gradient of the input), and causal attention's share.

    Attention: two products of ``length / 2`` keys on average, once forward and twice backward. Adapters are left out.
    """
    return 4.0 * matmul_weights(sizes), 6.0 * sizes.layers * sizes.hidden * length


def data_of_length(length: int, rows: int) -> Path:
    """Rows that are all cut to exactly ``length`` tokens: their one answer begins before it and ends behind it."""
    words = int(0.88 * length)  # a word is 1.6 tokens; half of them are in the question, half in the answer
    return chat_file(
        rows,
        max_length=length,
        median_words=words,
        sigma=0.0,
        longest=words,
        second_turn=0.0,
        kinds=("reverse", "sort"),
    )


def measured(seen: Watched, sizes: Geometry, length: int, peak_tflops: float | None) -> dict[str, Any]:
    """Speed after the warm-up, and what share of the card's peak it is."""
    check_learning(seen.steps)
    start, end = seen.steps[WARM_UP - 1], seen.steps[-1]
    speed = (end["tokens"] - start["tokens"]) / (end["time"] - start["time"])
    weights, attention = flops_per_token(sizes, length)
    found = {
        "tokens_per_second": round(speed, 1),
        "tflops_4n": round(speed * weights / 1e12, 2),
        "tflops_with_attention": round(speed * (weights + attention) / 1e12, 2),
        "first_step_seconds": round(seen.steps[0]["time"] - seen.started, 1),
        "steps": len(seen.steps),
        "resident_peak_bytes": seen.peak_bytes,
    }
    if peak_tflops:
        found["mfu_4n"] = round(found["tflops_4n"] / peak_tflops, 3)
        found["mfu_with_attention"] = round(found["tflops_with_attention"] / peak_tflops, 3)
    return found


def peak_memory(rival: Rival, seen: Watched, folder: Path) -> int | None:
    """Bytes by ``torch.cuda.max_memory_allocated``, read by the training process itself; on the CPU resident bytes."""
    if rival.ours:
        return json.loads((folder / "status.json").read_text()).get("peak_memory_bytes")
    return seen.steps[-1].get("peak_bytes", seen.peak_bytes)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["1b", "8b"], choices=GEOMETRIES)
    parser.add_argument("--adapter", nargs="+", default=["lora", "qlora"], choices=("lora", "qlora"))
    parser.add_argument("--length", type=int, nargs="+", default=[512, 2048, 4096], help="tokens of each row")
    parser.add_argument("--tokens-per-step", type=int, default=8192, help="in one micro-batch, for everyone")
    parser.add_argument("--steps", type=int, default=12, help="the first three are warm-up")
    parser.add_argument("--only", nargs="+", choices=rivals("lora"))
    parser.add_argument("--override", action="append", default=[], help="of ours: trainer.compile=true")
    parser.add_argument("--peak-tflops", type=float, help="of the card, dense bf16; known: " + ", ".join(PEAK_TFLOPS))
    parser.add_argument("--smoke", action="store_true", help="on the CPU, with a toy model and short rows")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "gpu-training.jsonl")
    args = parser.parse_args(arguments)
    if args.steps < WARM_UP + 3:
        parser.error(f"--steps is at least {WARM_UP + 3}")
    if args.smoke:
        args.model, args.length, args.tokens_per_step = ["toy"], [128, 256], 512
    return args


def card(args: argparse.Namespace) -> tuple[str, float | None]:
    """The device's name and its peak in TFLOP/s. Ends with 2 if there is no GPU to measure."""
    if args.smoke:
        return "cpu", args.peak_tflops
    import torch

    if not torch.cuda.is_available():
        print("torch sees no CUDA GPU; --smoke runs the same code on the CPU", file=sys.stderr)
        raise SystemExit(2)
    name = torch.cuda.get_device_name()
    return name, args.peak_tflops or next((v for k, v in PEAK_TFLOPS.items() if name.startswith(k)), None)


def main() -> None:
    args = parse()
    device, peak = card(args)
    has_trl = (PEERS / "trl").is_dir() or importlib.util.find_spec("trl") is not None
    print("| model | adapter | tokens a row | | tokens / s | TFLOP/s by 4N | MFU | peak memory GB |")
    print("|---|---|---|---|---|---|---|---|")
    for model in args.model:
        folder = model_folder(model, device="cpu" if args.smoke else "cuda")
        for adapter in args.adapter:
            for length in args.length:
                for name, rival in rivals(adapter).items():
                    if (args.only and name not in args.only) or (not rival.ours and not has_trl):
                        continue
                    one(args, model, folder, adapter, length, name, rival, device, peak)


def one(
    args: argparse.Namespace,
    model: str,
    folder: Path,
    adapter: str,
    length: int,
    name: str,
    rival: Rival,
    device: str,
    peak: float | None,
) -> None:
    """One cell of the table: a run in processes of its own, written at once. What fails is written too."""
    batch = max(1, args.tokens_per_step // length)
    setting = Setting(
        model=folder,
        data=data_of_length(length, batch * (args.steps + 4)),
        threads=1 if args.smoke else 8,
        tokens=0,
        max_length=length,
        batch=batch,
        learning_rate=2e-2 if args.smoke else 1e-3,
        device="cpu" if args.smoke else "gpu",
    )
    run = CACHE / "runs" / f"gpu-{name}"
    rival = dataclasses.replace(rival, overrides=(*rival.overrides, *(args.override if rival.ours else ())))
    row: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": device,
        "model": model,
        "adapter": adapter,
        "length": length,
        "batch": batch,
        "rival": name,
        "overrides": args.override if rival.ours else [],
    }
    try:
        seen = run_once(rival, setting, run, caches=CACHE / "caches", steps=args.steps)
        row |= measured(seen, GEOMETRIES[model], length, peak)
        row["peak_memory_bytes"] = peak_memory(rival, seen, run)
    except (SystemExit, ValueError) as error:
        row["error"] = str(error)[-2000:]
    row["machine"] = machine()
    args.results.parent.mkdir(parents=True, exist_ok=True)
    with args.results.open("a") as file:
        file.write(json.dumps(row) + "\n")
    shutil.rmtree(run, ignore_errors=True)
    cells = [model, adapter, length, rival.label]
    if "error" in row:
        cells += ["failed: " + row["error"].strip().splitlines()[-1][:120], "", "", ""]
    else:
        share = f"{100 * row['mfu_4n']:.0f} %" if "mfu_4n" in row else ""
        memory = f"{row['peak_memory_bytes'] / 1e9:.1f}" if row["peak_memory_bytes"] else ""
        cells += [f"{row['tokens_per_second']:.0f}", row["tflops_4n"], share, memory]
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
