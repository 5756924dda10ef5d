"""What ``--dry-run`` prints: the plan of a training, and what it would cost."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console

from organon.cli.hydra_verb import Invocation
from organon.cli.progress import ProgressDisplay
from organon.config.schema import RunConfig
from organon.report.numbers import count, duration, size

if TYPE_CHECKING:
    from organon.pipeline.dry_run import DryRun

UNKNOWN = "unknown"


def show_plan(config: RunConfig, invocation: Invocation, *, evaluates: bool = False) -> None:
    """Plan one point and print it; with ``--json`` as one line of JSON."""
    from organon.pipeline.dry_run import dry_run  # not for every training: it asks the suite, too

    with ProgressDisplay() as display:
        planned = dry_run(config, evaluates=evaluates, on_event=display)
    if invocation.json_output:
        sys.stdout.write(json.dumps(dataclasses.asdict(planned)) + "\n")
        return
    console = Console(highlight=False)
    for name, text in _lines(planned):
        console.print(f"{name:<11} {text}", markup=False, soft_wrap=True)


def _lines(planned: DryRun) -> Iterator[tuple[str, str]]:
    settings = planned.settings
    yield "plan", f"{planned.name} (key {planned.key[:12]}): nothing is trained"
    yield "in store", "yes: a real run takes the training from there" if planned.in_store else "no"
    yield "model", f"{settings['model']}, {_parameters(planned)}"
    yield "adapter", _adapter(settings)
    yield "optimizer", _optimizer(settings)
    yield "device", ", ".join(f"{name} {value}" for name, value in planned.device.items()) or UNKNOWN
    yield from _data(planned)
    if planned.steps is not None:
        yield "steps", _steps(planned.steps, settings)
    yield "memory", _memory(planned.memory)
    yield "time", _time(planned.time)
    for task in planned.evaluations:
        some = f"{task['limit']} samples" if task["limit"] else "all samples"
        yield "evaluation", f"{task['task']}: {some}{', base model too' if task['base'] else ''}"
    yield "files", f"{planned.folder}: config.yaml spec.json plan.json"
    for warning in planned.warnings:
        yield "warning", warning


def _parameters(planned: DryRun) -> str:
    if planned.parameters is None:
        return f"parameters {UNKNOWN}: neither its weights nor a config of a known family are here"
    total, trained = planned.parameters["total"], planned.parameters["trainable"]
    return f"{count(total)} parameters; {count(trained)} are trained ({trained / total:.2%})"


def _adapter(settings: dict[str, Any]) -> str:
    if "rank" not in settings:
        return str(settings["adapter"])
    targets = settings["target_modules"]
    shown = targets if isinstance(targets, str) else ",".join(targets)
    of = f" on {settings['quantization']}" if settings["quantization"] != "none" else ""
    return f"{settings['adapter']}{of}, rank {settings['rank']}, alpha {settings['alpha']}, {shown}"


def _optimizer(settings: dict[str, Any]) -> str:
    return (
        f"{settings['optimizer']}, learning rate {settings['learning_rate']:g}, {settings['schedule']}, "
        f"{settings['warmup_steps']} warm-up steps"
    )


def _data(planned: DryRun) -> Iterator[tuple[str, str]]:
    for part, found in (planned.data or {}).items():
        if found is None:
            yield "validation", "none"
            continue
        rows, tokens, trained = (count(found[name]) for name in ("rows", "tokens", "trained_tokens"))
        text = f"{rows} rows, {tokens} tokens, {trained} trained on"
        for name, words in (("truncated_rows", "cut"), ("dropped_rows", "left out")):
            text += f", {count(found[name])} {words}" if found[name] else ""
        if found["rows_with_lost_answers"]:
            text += f", {count(found['rows_with_lost_answers'])} with whole answers cut away"
        yield "data" if part == "train" else part, text


def _steps(steps: dict[str, Any], settings: dict[str, Any]) -> str:
    largest = steps["largest_forward_pass"]
    return (
        f"{count(steps['total'])} of {settings['global_batch_size']} rows, {count(steps['per_epoch'])} an epoch, "
        f"{count(steps['tokens'])} tokens; at most {count(largest['rows'])} rows and {count(largest['tokens'])} tokens "
        f"in a forward pass ({settings['batching']})"
    )


def _memory(memory: dict[str, Any] | None) -> str:
    if memory is None:
        return UNKNOWN
    parts = ("weights", "trained", "gradients", "optimizer", "activations", "logits", "overhead")
    shown = ", ".join(f"{name} {size(memory[name])}" for name in parts if memory[name])
    there = f" of {size(memory['device'])}" if memory["device"] is not None else ""
    return f"about {size(memory['total'])}{there}: {shown}"


def _time(time: dict[str, Any] | None) -> str:
    if time is None:
        return f"{UNKNOWN}: no earlier run of this model and adapter kind on this device"
    runs = "1 earlier run" if time["runs"] == 1 else f"{time['runs']} earlier runs"
    return (
        f"about {duration(time['seconds'])} ({runs}, {count(time['tokens_per_second'])} tokens/s); "
        f"ask a batch system for {duration(time['reserve_seconds'])}"
    )
