"""Training on a CUDA GPU: QLoRA in bf16 through the real worker."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from pathlib import Path

import pytest

from organon.backends.base import JobState
from organon.backends.lightning.backend import LightningBackend
from organon.config.schema import AdapterConfig, DatasetConfig, LoggerConfig, ModelConfig, OptimConfig, TrainerConfig
from organon.config.spec import TrainSpec
from organon.models.folder import EMBEDDED_ID, resolve_base


async def run(spec: TrainSpec, key: str, workdir: Path) -> list[float]:
    backend = LightningBackend()
    job = await backend.submit(spec, key, workdir)
    deadline = time.monotonic() + 300
    while not (status := await backend.poll(job)).state.is_final:
        assert time.monotonic() < deadline, status
        await asyncio.sleep(0.2)
    assert status.state is JobState.SUCCEEDED, status.error
    assert status.extra["device"] == "cuda"
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [row["train/loss"] for row in rows]


@pytest.mark.gpu
async def test_qlora_in_bf16_trains_and_repeats_itself_on_a_gpu(tmp_path: Path) -> None:
    """The loss falls, and a second run (deterministic algorithms) gives the same losses and adapter."""
    words = [f"{a}{b}{c}" for a in "abcdefgh" for b in "aeiou" for c in "klmnopqr"]
    rows = [
        {"messages": [{"role": "user", "content": w}, {"role": "assistant", "content": w.capitalize()}]} for w in words
    ]
    content = "".join(json.dumps(row) + "\n" for row in rows)
    data = tmp_path / "rows.jsonl"
    data.write_text(content)
    model, adapter = ModelConfig(name="tiny", id=EMBEDDED_ID), AdapterConfig(rank=8, alpha=16, dropout=0.05)
    spec = TrainSpec(
        base=resolve_base(model, adapter),
        dataset_hash=hashlib.sha256(content.encode()).hexdigest(),
        dataset_path=str(data),
        validation_hash=None,
        model=model,
        dataset=DatasetConfig(name="words", source="rows.jsonl", max_length=64),
        adapter=adapter,
        optim=OptimConfig(learning_rate=2e-3, warmup_steps=5),
        trainer=TrainerConfig(accelerator="gpu", epochs=3, global_batch_size=32, micro_batch_size=16),
        logger=LoggerConfig(csv=False),
    )
    spec = LightningBackend().complete(spec)
    assert spec.compute == {"device": "cuda", "precision": "bf16"}
    losses = [await run(spec, key * 64, tmp_path / key) for key in "ab"]
    assert losses[0][-1] < 0.5 * losses[0][0]
    assert losses[0] == losses[1]
    adapters = [(tmp_path / key / "epoch_2" / "adapter_model.safetensors").read_bytes() for key in "ab"]
    assert adapters[0] == adapters[1]
