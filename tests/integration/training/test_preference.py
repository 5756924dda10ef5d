"""DPO (Rafailov et al. 2023): its loss against plain transformers and peft, its sums, and what a worker trains."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.integration.main_job.process import call
from torch.nn import functional

from organon.backends.lightning.attention import register
from organon.backends.lightning.datamodule import micro_batch
from organon.backends.lightning.preference import PreferenceModule
from organon.config.schema import AdapterConfig, MethodConfig, OptimConfig
from organon.data import check_preference_row
from organon.errors import ConfigError
from organon.models.chat import IGNORED, encode_row

BETA = 0.3


def pairs(count: int, start: int = 0) -> list[dict[str, Any]]:
    """The chosen answer is in capitals, the rejected one is not; prompts and answers differ in length."""
    rows = []
    for i in range(start, start + count):
        word = f"{i * 7919 % 997:03d}"[: 1 + i % 3] + "abcdefgh"[: i % 8 + 1]
        rows.append(
            dict(check_preference_row({"prompt": word, "chosen": word.upper(), "rejected": word + "no"}, "row"))
        )
    return rows


class Pairs:
    """Encoded rows in memory."""

    documents_per_row = 2

    def __init__(self, rows: list[dict[str, Any]], tokenizer: Any) -> None:
        encoded = [document for row in rows for document in encode_row(tokenizer, row)]
        self._ids = [np.array(ids, dtype=np.int32) for ids, _ in encoded]
        self._labels = [np.array(labels, dtype=np.int32) for _, labels in encoded]
        self.lengths = np.array([len(ids) for ids in self._ids])
        self.trained = np.array([(labels[1:] != IGNORED).sum() for labels in self._labels])

    def ids(self, document: int) -> np.ndarray:
        return self._ids[document]

    def labels(self, document: int) -> np.ndarray:
        return self._labels[document].copy()

    def line(self, document: int) -> int:
        return 1 + document // 2


def lora_model(lab: Any, attention: str) -> Any:
    """A LoRA model with dropout, its adapter at its start."""
    from organon.models.adapters import new_adapter
    from organon.models.load import load_base, quiet

    spec = lab.spec(kind="lora", quantization="none")
    adapter = AdapterConfig(rank=4, alpha=8, dropout=0.5, kind="lora", quantization="none")
    with quiet():
        base = load_base(spec.base, device=torch.device("cpu"), dtype=torch.float32, attention=attention)
        return new_adapter(base, adapter, seed=0)


@pytest.fixture(scope="module")
def peft_model(lab: Any) -> Any:
    """As a worker trains it."""
    return lora_model(lab, register())


@pytest.fixture(scope="module")
def plain_model(lab: Any) -> Any:
    """As transformers makes it."""
    return lora_model(lab, "eager")


def moved(model: Any) -> Any:
    """A copy whose adapter is not at its start."""
    model = copy.deepcopy(model)
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def documents(lab: Any) -> Pairs:
    from organon.models.load import load_tokenizer

    return Pairs(pairs(8), load_tokenizer(lab.spec().base))


def module_of(model: Any, **changes: Any) -> PreferenceModule:
    return PreferenceModule(model, OptimConfig(), total_steps=1, seed=0, **{"beta": BETA, **changes})


def by_hand(model: Any, documents: Pairs, row: int) -> torch.Tensor:
    """The margin of one pair, one document at a time, with nothing but the model's own logits."""

    def log_probability(document: int) -> torch.Tensor:
        ids = torch.from_numpy(documents.ids(document).astype(np.int64))
        labels = documents.labels(document)
        every = model(input_ids=ids[None]).logits[0].log_softmax(-1)  # T V
        return sum((every[t - 1, ids[t]] for t in range(1, len(ids)) if labels[t] != IGNORED), torch.zeros(()))

    chosen, rejected = log_probability(2 * row), log_probability(2 * row + 1)
    with torch.no_grad(), model.disable_adapter():
        reference = log_probability(2 * row) - log_probability(2 * row + 1)
    return BETA * (chosen - rejected - reference)


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_and_gradient_are_those_of_the_formula(
    peft_model: Any, plain_model: Any, documents: Pairs, packed: bool, smoothing: float
) -> None:
    """Equation 7, summed over pairs: the loss to 1e-5 of one by hand, and its gradient."""
    module, plain = module_of(moved(peft_model).eval(), label_smoothing=smoothing), moved(plain_model).eval()
    micro = micro_batch(documents, range(16), packed=packed, padding=0)
    loss, metrics = module.micro_loss(micro)
    loss.backward()
    margins = torch.stack([by_hand(plain, documents, row) for row in range(8)])
    wanted = -(1 - smoothing) * functional.logsigmoid(margins) - smoothing * functional.logsigmoid(-margins)
    wanted.sum().backward()
    assert float(loss.detach()) == pytest.approx(float(wanted.sum().detach()), abs=1e-5)
    assert float(metrics["reward_accuracy"]) == int((margins > 0).sum()) not in (0, 8)
    assert float(metrics["reward_margin"]) == pytest.approx(float(margins.sum().detach()), rel=1e-5)
    theirs = dict(plain.named_parameters())
    for name, parameter in module.trainable().items():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, atol=1e-5, rtol=1e-4)


def test_the_reference_knows_neither_adapter_nor_dropout(peft_model: Any, documents: Pairs) -> None:
    """And leaves the model as it was: training, adapter on, and trainable what was."""
    model = moved(peft_model).train()
    for layer in model.modules():
        if hasattr(layer, "attention_dropout"):
            layer.attention_dropout = 0.5  # some bases have dropout of their own
    module = module_of(model)
    next(iter(module.trainable().values())).requires_grad_(False)  # as a recipe may do
    micro = micro_batch(documents, range(4), packed=False, padding=0)
    names = set(module.trainable())
    with torch.no_grad(), module._reference():
        reference = module.log_probabilities(micro)
    assert model.training
    assert all(m.training for m in model.modules())
    assert set(module.trainable()) == names
    with torch.no_grad():
        assert not torch.allclose(module.log_probabilities(micro), reference, atol=0.1)  # the adapter is on again
        base = module_of(peft_model.eval())  # its adapter adds nothing: it is at its start
        torch.testing.assert_close(base.log_probabilities(micro), reference, atol=1e-5, rtol=1e-5)


def test_at_the_start_the_loss_is_log_two(peft_model: Any, documents: Pairs) -> None:
    """Policy and reference are one."""
    module = module_of(copy.deepcopy(peft_model).eval())
    loss, metrics = module.micro_loss(micro_batch(documents, range(16), packed=False, padding=0))
    assert float(loss.detach()) == pytest.approx(8 * math.log(2), abs=1e-6)
    assert float(metrics["reward_margin"]) == pytest.approx(0, abs=1e-6)


def test_a_model_without_an_adapter_is_refused(lab: Any) -> None:
    from transformers import AutoModelForCausalLM

    with pytest.raises(ConfigError, match="with its adapter off, and this model has none") as caught:
        module_of(AutoModelForCausalLM.from_pretrained(lab.model_folder))
    assert caught.value.where == "adapter.kind"


# -- what a worker trains ---------------------------------------------------------------------------------


def dpo(lab: Any, **changes: Any) -> Any:
    """24 pairs in 2 epochs of 3 steps, on an unquantised base."""
    method = MethodConfig(type="dpo", beta=changes.pop("beta", BETA), label_smoothing=changes.pop("smoothing", 0.0))
    settings = {"kind": "lora", "quantization": "none", "rows": pairs(24), "validation": pairs(6, start=100), **changes}
    return lab.spec(method=method, **settings)


@pytest.fixture(scope="module")
def trained(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lab.train(dpo(lab, epochs=5), tmp_path_factory.mktemp("trained"))


def test_it_learns_the_preference(lab: Any, trained: Path) -> None:
    """From log 2, where policy and reference are one, downwards; on rows it has not seen, too."""
    rows = lab.metrics(trained)
    assert rows[0]["train/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert rows[0]["train/reward_margin"] == pytest.approx(0, abs=1e-6)
    assert rows[-1]["train/loss"] < 0.1
    assert rows[-1]["train/reward_accuracy"] == 1
    assert rows[-1]["train/reward_margin"] > 3
    assert rows[-1]["val/loss"] < 0.3
    assert rows[-1]["val/reward_accuracy"] > 0.8
    assert set(lab.status(trained)["metrics"]) >= {"val/loss", "val/reward_accuracy", "val/reward_margin"}


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft 0.21 on transformers 5.23
def test_its_checkpoint_is_an_adapter_like_any_other(lab: Any, trained: Path) -> None:
    """Plain peft loads it, and it makes the chosen answers likelier, compared with the rejected ones."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from organon.models.load import load_tokenizer

    held = Pairs(pairs(6, start=100), load_tokenizer(lab.spec().base))
    base = AutoModelForCausalLM.from_pretrained(lab.model_folder)
    model = PeftModel.from_pretrained(base, trained / "epoch_4")
    margins = torch.stack([by_hand(model, held, row) for row in range(6)])
    logged = lab.metrics(trained)[-1]["val/reward_margin"]
    assert float(margins.mean().detach()) == pytest.approx(logged, rel=1e-4)
    assert sorted(p.name for p in (trained / "epoch_4").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


@pytest.fixture(scope="module")
def whole(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps, the last of fewer pairs than the others, each in one forward pass."""
    return lab.train(split_up(lab, micro_batch_size=4, batching="padded"), tmp_path_factory.mktemp("whole"))


def split_up(lab: Any, **changes: Any) -> Any:
    return dpo(lab, rows=pairs(10), global_batch_size=4, epochs=1, smoothing=0.1, **changes)


WAYS: dict[str, dict[str, Any]] = {
    "accumulated": {"micro_batch_size": 1, "batching": "padded"},
    "packed": {"micro_batch_size": 4, "batching": "packed"},
    "packed and accumulated": {"micro_batch_size": 2, "batching": "packed"},
    "by tokens": {"micro_batch_size": 4, "micro_batch_tokens": 60},
    "recomputed": {"micro_batch_size": 4, "activation_checkpointing": True},
    "two devices": {"micro_batch_size": 2, "devices": 2},
    "shared weights": {"micro_batch_size": 2, "devices": 2, "strategy": "fsdp"},
}


@pytest.mark.parametrize("way", WAYS)
def test_how_the_pairs_of_a_step_are_split_does_not_matter(lab: Any, whole: Path, tmp_path: Path, way: str) -> None:
    """Neither accumulation nor packing, memory savings nor devices: the loss is a mean over all pairs of the step."""
    lab.train(split_up(lab, **WAYS[way]), tmp_path)
    ours, theirs = lab.metrics(tmp_path), lab.metrics(whole)
    assert [row["step"] for row in theirs] == [1, 2, 3]
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - {"time", "tokens_per_second"}:
            assert one[name] == pytest.approx(other[name], rel=1e-4, abs=1e-5), name


def test_a_killed_run_ends_as_an_undisturbed_one(lab: Any, tmp_path: Path) -> None:
    """With dropout and a quantised base, to the last byte."""
    spec = dpo(lab, kind="qlora", quantization="nf4", dropout=0.2, epochs=1, rows=pairs(24))
    lab.train(spec, tmp_path / "before")
    assert lab.run(spec, tmp_path / "after", kill_at="micro:3:1") == -9
    lab.train(spec, tmp_path / "after")
    assert lab.status(tmp_path / "after")["resumed_from_step"] == 2
    assert lab.adapter(tmp_path / "after", 0) == lab.adapter(tmp_path / "before", 0)
    assert lab.final_state(tmp_path / "after") == lab.final_state(tmp_path / "before")
    assert lab.metrics(tmp_path / "after", times=False) == lab.metrics(tmp_path / "before", times=False)


def test_modules_that_are_trained_in_full_are_not_part_of_the_reference(lab: Any, tmp_path: Path) -> None:
    """Trained embeddings: a margin by hand, against the plain base, is the one that was logged."""
    from organon.models.adapters import attach_adapter
    from organon.models.load import load_base, load_tokenizer, quiet

    spec = dpo(lab, train_embeddings=True, epochs=1, validation=pairs(6, start=100))
    lab.train(spec, tmp_path)
    with quiet():
        base = load_base(spec.base, device=torch.device("cpu"), dtype=torch.float32)
        model = attach_adapter(base, tmp_path / "epoch_0")
    held = Pairs(pairs(6, start=100), load_tokenizer(spec.base))
    margins = torch.stack([by_hand(model, held, row) for row in range(6)])
    logged = lab.metrics(tmp_path)[-1]["val/reward_margin"]
    assert float(margins.mean().detach()) == pytest.approx(logged, rel=1e-4)


@pytest.mark.slow
def test_a_run_is_evaluated_as_any_other(tmp_path: Path) -> None:
    """By command line, on the embedded base: trained, evaluated beside its base, reported; wrong rows are refused."""
    words = [f"{letter}og" for letter in "abcdefghijklmnop"]
    lines = [{"prompt": word, "chosen": word.capitalize(), "rejected": word.upper()} for word in words]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = [
        "dataset=preference",
        "dataset.source=pairs.jsonl",
        "dataset.max_length=64",
        "logger=csv",
        "eval.limit=2",
    ]
    done = call(tmp_path, "run", *settings)
    assert done.returncode == 2
    assert "method.type=supervised cannot train on dataset.format=preference\nfix: method=dpo" in done.stderr
    assert not (tmp_path / "outputs").exists()
    done = call(tmp_path, "run", "method=dpo", "name=mine", *settings)
    assert done.returncode == 0, done.stderr
    assert "words_5" in done.stdout
    assert (tmp_path / "outputs" / "runs" / "mine" / "report.html").is_file()
