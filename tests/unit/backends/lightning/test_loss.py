"""Log-probabilities in chunks equal those of the model's own logits, and never hold all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.unit.backends.lightning.families import (
    FAMILIES,
    VOCABULARY,
    Documents,
    alone,
    assert_close,
    family,
    gradients,
)
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import CohereConfig, CohereForCausalLM, GraniteConfig, GraniteForCausalLM

from organon.backends.lightning import attention, loss
from organon.models.load import quiet

LENGTHS = (9, 1, 40, 13)
DOCUMENTS = Documents(*LENGTHS)
MORE: dict[str, Callable[[], Any]] = {
    "cohere": lambda: CohereForCausalLM(CohereConfig(**SMALL, logit_scale=0.3)),
    "granite": lambda: GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=3.0)),
}
SMALL = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.2, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "attn_implementation": attention.NAME,
}  # fmt: skip


def make(name: str) -> Any:
    attention.register()
    torch.manual_seed(0)
    return MORE[name]() if name in MORE else family(name)


def label_log_probabilities(model: Any, **batch: torch.Tensor) -> torch.Tensor:
    with attention.documents(LENGTHS):
        return loss.label_log_probabilities(model, **batch)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """7 positions at a time."""
    monkeypatch.setattr(loss, "CHUNK", 7 * VOCABULARY)


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen head", "trained head"])
@pytest.mark.parametrize("name", [*FAMILIES, *MORE])
@pytest.mark.usefixtures("small_chunks")
def test_chunks_give_the_loss_and_gradients_of_the_models_own_logits(name: str, frozen: bool) -> None:
    """Soft-capped (Gemma 2) and scaled ones (Cohere, Granite) too. Each label has a weight of its own."""
    model = make(name)
    head = model.get_output_embeddings()
    if frozen:
        head.weight.requires_grad_(False)
    assert loss._head(model)[0] is head
    batch = DOCUMENTS.packed(fill=3)
    with attention.documents(LENGTHS):
        logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits[0]
    starts = torch.tensor(LENGTHS).cumsum(0)[:-1]
    labels = batch["labels"][0].index_fill(0, starts, -100)[1:]
    expected = torch.log_softmax(logits[:-1], -1).gather(1, labels.clamp(0)[:, None])[:, 0][labels != -100]
    weights = torch.randn(len(expected))
    (expected * weights).sum().backward()
    wanted = gradients(model)
    found = label_log_probabilities(model, **batch)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    (found * weights).sum().backward()
    assert_close(gradients(model), wanted, 1e-5)


@pytest.mark.usefixtures("small_chunks")
def test_a_head_that_is_trained_beside_the_adapter() -> None:
    """peft keeps a copy of it; switched off, the base's own is used."""
    with quiet():
        model = get_peft_model(
            family("qwen2"), LoraConfig(target_modules="all-linear", modules_to_save=["lm_head"], task_type="CAUSAL_LM")
        )
    with torch.no_grad():
        model.get_output_embeddings().modules_to_save["default"].weight.mul_(1.5)
    with attention.documents(), torch.no_grad():
        expected = alone(model, DOCUMENTS)
    found = -label_log_probabilities(model, **DOCUMENTS.packed()).sum()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    found.backward()
    assert "base_model.model.lm_head.modules_to_save.default.weight" in gradients(model)
    with model.disable_adapter():
        base = -label_log_probabilities(model, **DOCUMENTS.packed()).sum().item()
    assert base == pytest.approx(alone(family("qwen2", "eager"), DOCUMENTS).item(), rel=1e-5)


def test_a_head_that_is_not_known_computes_its_own_logits() -> None:
    """LoRA on the output layer, and a model class that is not in the table."""

    class Other(FAMILIES["gemma2"]()[0]):  # type: ignore[misc]
        pass

    with quiet():
        adapted = get_peft_model(
            family("llama"), LoraConfig(target_modules=["lm_head"], task_type="CAUSAL_LM", init_lora_weights=False)
        )
    other = Other(family("gemma2").config)
    for model in (adapted, other):
        assert loss._head(model) == (None, None)
        with attention.documents(), torch.no_grad():
            expected = alone(model, DOCUMENTS).item()
        found = -label_log_probabilities(model, **DOCUMENTS.packed()).sum()
        assert found.item() == pytest.approx(expected, rel=1e-5)
        found.backward()
        assert gradients(model)


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_sums_of_documents(name: str) -> None:
    """The same packed and padded, with the gradient of each document's weight (as DPO needs)."""
    model = family(name)
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0])
    results = []
    for batch in (DOCUMENTS.packed(fill=5), DOCUMENTS.padded()):
        with attention.documents(LENGTHS):
            found = loss.document_log_probabilities(model, **batch, lengths=LENGTHS)
        (found * weights).sum().backward()
        results.append((found.detach(), gradients(model)))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-5, atol=1e-5)
    assert_close(results[0][1], results[1][1], 1e-5)
    for index, (ids, labels) in enumerate(zip(DOCUMENTS.ids, DOCUMENTS.labels, strict=True)):
        one = Documents(len(ids))
        one.ids, one.labels = [ids], [labels]
        with torch.no_grad():
            expected = -alone(family(name, "eager"), one).item() if len(ids) > 1 else 0.0
        assert results[0][0][index].item() == pytest.approx(expected, rel=1e-5)


def test_the_first_token_of_a_document_is_no_label() -> None:
    """Nothing stands before it, but the end of another document."""
    batch = DOCUMENTS.packed()
    batch["labels"] = batch["input_ids"].clone()
    found = label_log_probabilities(family("llama"), **batch)
    assert len(found) == sum(LENGTHS) - len(LENGTHS)
    padded = DOCUMENTS.padded()
    padded["labels"] = torch.where(padded["input_ids"] > 0, padded["input_ids"], -100)
    torch.testing.assert_close(label_log_probabilities(family("llama"), **padded), found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("packed", [True, False])
def test_rows_are_not_filled_beyond_a_models_last_position(packed: bool) -> None:
    """37 tokens become 38 for speed; GPT-2 with 37 positions has no embedding for one more."""
    documents, model = Documents(37, 6), family("gpt2", n_positions=37)
    expected = alone(family("gpt2", "eager", n_positions=37), documents).item()
    with attention.documents(documents.lengths):
        found = loss.label_log_probabilities(model, **(documents.packed() if packed else documents.padded()))
    assert -found.sum().item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("spread", [1.0, 30.0, 300.0])
def test_logits_far_apart(spread: float) -> None:
    """Neither overflow nor a loss of digits."""
    torch.manual_seed(0)
    hidden, weight, target = torch.randn(5, 8), torch.randn(50, 8) * spread, torch.randint(50, (5,))
    found = loss._ChunkedLogProbabilities.apply(hidden, weight, None, target, loss.Logits())
    expected = torch.log_softmax(hidden.double() @ weight.double().t(), -1).gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_no_label_at_all() -> None:
    batch = DOCUMENTS.packed()
    batch["labels"] = torch.full_like(batch["labels"], -100)
    model = family("llama")
    found = label_log_probabilities(model, **batch).sum()
    found.backward()
    assert found.item() == 0
    assert all(float(gradient.norm()) == 0 for gradient in gradients(model).values())


class Largest(TorchDispatchMode):
    """Bytes of the largest tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen head", "trained head"])
def test_logits_of_all_labels_never_exist(frozen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """600 labels of 20 000 tokens: no tensor is larger than a chunk, or the weight."""
    monkeypatch.setattr(loss, "CHUNK", 2**19)
    hidden = torch.randn(600, 8, requires_grad=True)
    weight = torch.randn(20_000, 8, requires_grad=not frozen)
    target = torch.randint(20_000, (600,))
    with Largest() as largest:
        found = loss._ChunkedLogProbabilities.apply(hidden, weight, None, target, loss.Logits())
        (-found.sum()).backward()
    assert largest.bytes <= max(2**19 * 4, weight.numel() * 4)
    torch.testing.assert_close(found, -torch.nn.functional.cross_entropy(hidden @ weight.t(), target, reduction="none"))


def test_evaluation_makes_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the layer has its own forward again."""
    model = family("llama")
    asked = []
    real = loss._Head.log_probabilities
    monkeypatch.setattr(
        loss._Head,
        "log_probabilities",
        lambda self, *a, gradient: asked.append(gradient) or real(self, *a, gradient=gradient),
    )
    with torch.no_grad():
        label_log_probabilities(model, **DOCUMENTS.packed())
    assert asked == [False]
    assert "forward" not in model.get_output_embeddings().__dict__


def test_bfloat16() -> None:
    """Within 1e-2 of float32: weights in bfloat16, or autocast."""
    exact = label_log_probabilities(family("gemma2"), **DOCUMENTS.packed()).sum().item()
    short = label_log_probabilities(family("gemma2").bfloat16(), **DOCUMENTS.packed()).sum()
    with torch.autocast("cpu", torch.bfloat16):
        cast = label_log_probabilities(family("gemma2"), **DOCUMENTS.packed()).sum()
    assert short.dtype == cast.dtype == torch.float32
    assert short.item() == pytest.approx(exact, rel=1e-2)
    assert cast.item() == pytest.approx(exact, rel=1e-2)
