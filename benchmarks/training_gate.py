"""The correctness gate of benchmarks/training.py: a fast training that computes something else is not fast.

    python training_gate.py FOLDER DATA MODEL     (FOLDER holds spec.json in float32; gate.json is written there)

1. Tokens and labels of every row equal those of TRL and of ``apply_chat_template``.
2. Loss and gradients of whole optimizer steps equal those of stock transformers + peft in float32: eager attention,
   padded rows, an attention mask, logits everywhere.
3. The tokens that our metrics count over an epoch are the real input tokens of these rows.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import PEERS, thread_environment

HERE = Path(__file__).resolve().parent
STEPS = (1, 2, 40)
LOSS_DIFFERENCE, GRADIENT_DIFFERENCE = 1e-5, 1e-5  # absolute in nats; relative, of the L2 norms


def main() -> None:
    folder, data, model = (Path(argument) for argument in sys.argv[1:4])
    found = gate(folder, data, model)
    (folder / "gate.json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"gate: {json.dumps(found)}", file=sys.stderr)


def gate(folder: Path, data: Path, model: Path) -> dict[str, Any]:
    """All checks; ``green`` if every one of them passed."""
    spec, ours, batches = our_training(folder)
    rows = [
        (batches.train.ids(i).tolist(), batches.train.labels(i).tolist()) for i in range(len(batches.train.lengths))
    ]
    template, trl = template_rows(data, model, spec.dataset.max_length), trl_rows(folder, data, model, spec)
    found: dict[str, Any] = {
        "rows": len(rows),
        "rows_equal_template": sum(a == b for a, b in zip(rows, template, strict=True)),
        "rows_equal_trl": None if trl is None else sum(a == b for a, b in zip(rows, trl, strict=True)),
        **differences(ours, batches, model, spec),
        **counts(batches, [len(ids) for ids, _ in template]),
    }
    equal = [found["rows_equal_template"]] + ([] if trl is None else [found["rows_equal_trl"]])
    found["green"] = (
        all(number == len(rows) for number in equal)
        and found["loss_difference"] <= LOSS_DIFFERENCE
        and found["gradient_difference"] <= GRADIENT_DIFFERENCE
        and found["gradient_norm"] > 0
        and found["tokens"] == found["tokens_expected"]
    )
    return found


def our_training(folder: Path) -> tuple[Any, Any, Any]:
    """Spec, LightningModule and DataModule, as the worker has built them when it would begin with the first step."""
    from organon.backends.lightning import training
    from organon.backends.lightning.stop import StopRequest
    from organon.backends.lightning.workdir import SPEC, Workdir
    from organon.config.spec import TrainSpec, from_dict

    ready: list[Any] = []
    training.fit = lambda spec, steps, trainer, stop: ready.append(steps)
    workdir = Workdir(folder)
    spec = from_dict(TrainSpec, workdir.read(SPEC) or {})
    training.train(spec, "0" * 64, workdir, report=lambda **_: None, stop=StopRequest())
    module = ready[0].module
    module.manual_backward = lambda loss: loss.backward()  # no Trainer is attached
    return spec, module, ready[0].data


def template_rows(data: Path, model: Path, length: int) -> list[tuple[list[int], list[int]]]:
    """Ids and labels by the tokenizer's own template and its marks of the assistant's tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = []
    for line in data.read_text().splitlines():
        messages = json.loads(line)["messages"]
        one = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        ids, marks = one["input_ids"][:length], one["assistant_masks"][:length]
        rows.append((ids, [token if on else -100 for token, on in zip(ids, marks, strict=True)]))
    return rows


def trl_rows(folder: Path, data: Path, model: Path, spec: Any) -> list[tuple[list[int], list[int]]] | None:
    """Ids and labels as TRL prepares them; None where TRL is not installed."""
    if not (PEERS / "trl").is_dir():
        return None
    job = {
        "variant": "tokens", "model": str(model), "data": str(data), "device": "cpu", "threads": 1, "batch": 8,
        "max_length": spec.dataset.max_length, "precision": "32", "rank": 8, "learning_rate": 1e-3, "seed": 0,
        "packed_rows": 1,
    }  # fmt: skip
    (folder / "job-trl.json").write_text(json.dumps(job))
    environment = {**thread_environment(1), "PYTHONPATH": str(PEERS), "HF_DATASETS_CACHE": str(folder / "datasets")}
    command = [sys.executable, str(HERE / "peers" / "trl_sft.py"), str(folder / "job-trl.json")]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    rows = [json.loads(line) for line in (folder / "tokens.jsonl").read_text().splitlines()]
    return [(row["ids"], row["labels"]) for row in rows]


def differences(ours: Any, batches: Any, model: Path, spec: Any) -> dict[str, float]:
    """Largest difference of loss and gradients over ``STEPS``, from adapters that are not zero."""
    import torch

    torch.manual_seed(1)
    for parameter in ours.trainable().values():  # B starts at zero, and with it A's gradient
        torch.nn.init.normal_(parameter, std=0.02)
    stock = stock_model(model, spec, {name: p.detach() for name, p in ours.trainable().items()})
    worst_loss, worst_gradient, smallest = 0.0, 0.0, float("inf")
    for number in STEPS:
        batch = batches.step_batch(number)
        values = ours._gradients(batch)
        mine = {name: p.grad.clone() for name, p in ours.trainable().items()}
        ours.optimizer.zero_grad(set_to_none=True)
        rows = [row for micro in batch.micro for row in micro.rows]
        loss, theirs = stock_gradients(stock, [(batches.train.ids(r), batches.train.labels(r)) for r in rows])
        norm = sum(float((theirs[name] ** 2).sum()) for name in mine) ** 0.5
        apart = sum(float(((mine[name] - theirs[name]) ** 2).sum()) for name in mine) ** 0.5
        worst_loss = max(worst_loss, abs(values["train/loss"] - loss))
        worst_gradient, smallest = max(worst_gradient, apart / norm), min(smallest, norm)
    return {"loss_difference": worst_loss, "gradient_difference": worst_gradient, "gradient_norm": smallest}


def stock_model(model: Path, spec: Any, weights: dict[str, Any]) -> Any:
    """transformers + peft with nothing of ours, and the same adapter weights."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager")
    rank = spec.adapter.rank
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    stock = get_peft_model(base, lora)
    own = {name: p for name, p in stock.named_parameters() if p.requires_grad}
    if own.keys() != weights.keys():
        raise SystemExit(f"other parameters are trained than peft's: {sorted(own.keys() ^ weights.keys())[:4]}")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])
    return stock


def stock_gradients(stock: Any, rows: list[tuple[Any, Any]]) -> tuple[float, dict[str, Any]]:
    """Mean loss over the trained tokens of ``rows`` and its gradients, padded on the right."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    ids = pad_sequence([torch.tensor(i, dtype=torch.long) for i, _ in rows], batch_first=True)
    labels = pad_sequence([torch.tensor(m, dtype=torch.long) for _, m in rows], batch_first=True, padding_value=-100)
    mask = pad_sequence([torch.ones(len(i), dtype=torch.long) for i, _ in rows], batch_first=True)
    loss = stock(input_ids=ids, attention_mask=mask, labels=labels).loss
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in stock.named_parameters() if p.requires_grad}
    stock.zero_grad(set_to_none=True)
    return loss.item(), gradients


def counts(batches: Any, lengths: list[int]) -> dict[str, Any]:
    """The tokens that we report over an epoch, those there are, and the share of padding."""
    reported = positions = 0
    for step in range(1, batches.plan.steps_per_epoch + 1):
        batch = batches.step_batch(step)
        reported += batch.tokens
        positions += sum(micro.input_ids.numel() for micro in batch.micro)
    return {"tokens": reported, "tokens_expected": sum(lengths), "padding": 1 - reported / positions}


if __name__ == "__main__":
    main()
