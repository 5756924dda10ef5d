"""Raw text: every token but a document's first is trained, and nothing else stands around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

TEXTS = [{"text": f"{'word ' * (1 + i % 5)}{i}."} for i in range(24)]


def test_the_loss_is_that_of_transformers_on_the_whole_text(lab: Any, tmp_path: Path) -> None:
    """Before the first update, over one step of all rows: cross-entropy of each text and its end token."""
    from transformers import AutoModelForCausalLM

    from organon.models.load import load_tokenizer

    settings = {"kind": "lora", "quantization": "none", "loss_on": "all", "max_length": 128}
    spec = lab.spec(rows=TEXTS, validation=[], epochs=1, global_batch_size=24, micro_batch_size=4, **settings)
    lab.train(spec, tmp_path)
    tokenizer = load_tokenizer(spec.base)
    model = AutoModelForCausalLM.from_pretrained(lab.model_folder)
    total, tokens = 0.0, 0
    for row in TEXTS:
        ids = torch.tensor([[*tokenizer(row["text"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]])
        loss = model(input_ids=ids, labels=ids).loss  # a mean over all tokens but the first
        total, tokens = total + float(loss.detach()) * (ids.numel() - 1), tokens + ids.numel()
    (first,) = lab.metrics(tmp_path)
    assert first["train/loss"] == pytest.approx(total / (tokens - len(TEXTS)), abs=1e-5)
    assert first["tokens"] == tokens
    assert (tmp_path / "epoch_0" / "adapter_model.safetensors").is_file()
