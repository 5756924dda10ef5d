"""Per-document attention: packed = padded = one document at a time, for every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.backends.lightning.families import FAMILIES, WINDOW, Documents, alone, assert_close, family, gradients

from organon.backends.lightning import attention, layout
from organon.backends.lightning.loss import label_log_probabilities

LENGTHS = (9, 1, 40, 33, 9, 2)


def loss_of(model: Any, batch: dict[str, torch.Tensor], lengths: tuple[int, ...]) -> torch.Tensor:
    with attention.documents(lengths):
        return -label_log_probabilities(model, **batch).sum()


class Layer(torch.nn.Module):
    """Stands for the module that calls its attention."""

    is_causal = True


def reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    lengths: tuple[int, ...],
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """Attention in float64 under a dense mask; (1, T, h, D) for (1, h, T, D)."""
    q, k, v = (part.double() for part in (q, k, v))
    repeats = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    scores = q @ k.transpose(2, 3) * 0.3
    if softcap:
        scores = torch.tanh(scores / softcap) * softcap
    document = torch.repeat_interleave(
        torch.arange(len(lengths) + 1), torch.tensor([*lengths, q.shape[2] - sum(lengths)])
    )
    place = torch.arange(q.shape[2])
    seen = (document[:, None] == document) & (place[:, None] >= place)
    if window:
        seen &= place[:, None] - place < window
    out = (torch.softmax(scores.masked_fill(~seen, float("-inf")), -1) @ v).transpose(1, 2)
    return out[:, : sum(lengths)]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_packed_row_is_its_documents_one_at_a_time(name: str) -> None:
    """Loss and every gradient (1e-5), whatever stands behind the documents."""
    documents = Documents(*LENGTHS)
    stock = family(name, "eager")
    expected = alone(stock, documents)
    expected.backward()
    wanted = gradients(stock)
    model = family(name)
    for fill in (0, 13):
        found = loss_of(model, documents.packed(fill), LENGTHS)
        found.backward()
        assert found.item() == pytest.approx(expected.item(), rel=1e-6)
        assert_close(gradients(model), wanted, 1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_padded_batch_is_its_documents_one_at_a_time(name: str) -> None:
    """Whether it is told the documents' lengths or takes each row as one document."""
    documents = Documents(*LENGTHS)
    stock = family(name, "eager")
    expected = alone(stock, documents)
    expected.backward()
    wanted = gradients(stock)
    model = family(name)
    for lengths in (LENGTHS, None):
        found = loss_of(model, documents.padded(), lengths)
        found.backward()
        assert found.item() == pytest.approx(expected.item(), rel=1e-6)
        assert_close(gradients(model), wanted, 1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_changed_token_changes_nothing_in_another_document(name: str) -> None:
    """Bit for bit: logits of the others stay; its own change."""
    documents = Documents(*LENGTHS)
    model = family(name).eval()
    batch = documents.packed()
    changed = {**batch, "input_ids": batch["input_ids"].clone()}
    start, end = 10, 50  # the third document
    changed["input_ids"][0, start] = (batch["input_ids"][0, start] + 1) % 60
    with attention.documents(LENGTHS), torch.no_grad():
        before, after = (
            model(input_ids=b["input_ids"], position_ids=b["position_ids"], use_cache=False).logits[0]
            for b in (batch, changed)
        )
    same = (before == after).all(-1)
    assert same[:start].all()
    assert same[end:].all()
    assert not same[start : start + WINDOW].any()


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=8),
    fill=st.integers(0, 9),
    heads=st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 1)]),
    window=st.sampled_from([None, 1, 7, 64]),
    softcap=st.sampled_from([None, None, 1.5]),
    block=st.sampled_from([32, 64, 192]),
)
def test_any_lengths(
    lengths: list[int], fill: int, heads: tuple[int, int], window: int | None, softcap: float | None, block: int
) -> None:
    torch.manual_seed(0)
    total = sum(lengths) + fill
    parts = [torch.randn(1, count, total, 8, requires_grad=True) for count in (heads[0], heads[1], heads[1])]
    d_out = torch.randn(1, sum(lengths), heads[0], 8)
    with pytest.MonkeyPatch.context() as patch, attention.documents(lengths):
        patch.setattr(layout, "BLOCK", block)
        patch.setattr(layout, "WASTED_SCORES", 5000)
        found, _ = attention.attend(Layer(), *parts, None, scaling=0.3, sliding_window=window, softcap=softcap)
    expected = reference(*parts, tuple(lengths), window, softcap)
    torch.testing.assert_close(found[:, : sum(lengths)].double(), expected, rtol=1e-5, atol=1e-5)
    got = torch.autograd.grad(found[:, : sum(lengths)], parts, d_out)
    want = torch.autograd.grad(expected, parts, d_out.double())
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lengths", [(9, 1, 40, 33, 9, 2), (300,)])
@pytest.mark.parametrize("heads", [(4, 2), (3, 3)])
def test_the_fused_kernel_of_accelerators_gives_the_same(
    lengths: tuple[int, ...], heads: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [torch.randn(1, count, sum(lengths) + 3, 8, requires_grad=True) for count in (heads[0], heads[1], heads[1])]
    d_out = torch.randn(1, sum(lengths), heads[0], 8)
    results = []
    for fused in (False, True):
        monkeypatch.setattr(attention, "_fused", lambda *_, fused=fused: fused)
        with attention.documents(lengths):
            out, _ = attention.attend(Layer(), *parts, None, scaling=0.3)
        results.append([out[:, : sum(lengths)], *torch.autograd.grad(out[:, : sum(lengths)], parts, d_out)])
    for blocks, whole in zip(*results, strict=True):
        torch.testing.assert_close(blocks, whole, rtol=1e-5, atol=1e-5)


def test_weights_of_long_documents_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [torch.randn(1, 2, 260, 8, requires_grad=True) for _ in range(3)]

    def run() -> tuple[int, tuple[torch.Tensor, ...]]:
        kept = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with attention.documents([260]), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out, _ = attention.attend(Layer(), *parts, None)
        return kept, torch.autograd.grad(out.square().sum(), parts)

    whole, wanted = run()
    monkeypatch.setattr(attention, "KEPT_TOKENS", 100)
    less, found = run()
    assert less < whole / 2
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_dropout_of_attention_weights(softcap: float | None) -> None:
    """Drawn from torch's seed; the mean stays; nothing is dropped without it."""
    torch.manual_seed(0)
    q, k = torch.randn(1, 4, 400, 8), torch.randn(1, 4, 400, 8)
    v = torch.ones(1, 4, 400, 8)

    def run(dropout: float) -> torch.Tensor:
        torch.manual_seed(1)
        with attention.documents([150, 250]):
            return attention.attend(Layer(), q, k, v, None, dropout=dropout, softcap=softcap)[0]

    torch.testing.assert_close(run(0.0), torch.ones(1, 400, 4, 8))
    assert torch.equal(run(0.3), run(0.3))
    assert float(run(0.3).std()) > 0.01
    assert float(run(0.3).mean()) == pytest.approx(1, abs=0.02)


def test_dropout_is_that_of_the_model() -> None:
    """GPT-2 drops attention weights in training, and none in evaluation."""
    documents, model = Documents(*LENGTHS), family("gpt2", attn_pdrop=0.5)
    torch.manual_seed(0)
    first = loss_of(model, documents.packed(), LENGTHS).item()
    assert first != loss_of(model, documents.packed(), LENGTHS).item()
    expected = alone(family("gpt2", "eager").eval(), documents).item()
    assert loss_of(model.eval(), documents.packed(), LENGTHS).item() == pytest.approx(expected, rel=1e-6)


def test_the_same_twice_bit_for_bit() -> None:
    model, batch = family("llama"), Documents(*LENGTHS).packed()
    runs = []
    for _ in range(2):
        loss_of(model, batch, LENGTHS).backward()
        runs.append(gradients(model))
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_activation_checkpointing_gives_the_same_gradients(name: str) -> None:
    """Bit for bit, with the backward outside `documents()` and other documents in between."""
    documents, model = Documents(*LENGTHS), family(name)
    loss_of(model, documents.packed(), LENGTHS).backward()
    expected = gradients(model)
    model.activation_checkpointing_enable({"use_reentrant": False, "context_fn": attention.checkpoint_contexts})
    first = loss_of(model, documents.packed(), LENGTHS)
    other = Documents(20, 5, seed=1)
    second = loss_of(model, other.packed(), other.lengths)
    for again in (True, False):  # and so does a second backward
        first.backward(retain_graph=again)
        found = gradients(model)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    second.backward()


def test_a_recomputation_that_has_lost_its_documents_is_refused() -> None:
    documents, model = Documents(*LENGTHS), family("llama")
    model.activation_checkpointing_enable({"use_reentrant": False})
    loss = loss_of(model, documents.packed(), LENGTHS)
    with pytest.raises(RuntimeError, match="outside `documents"):
        loss.backward()


def test_what_it_does_not_know_is_refused() -> None:
    q = torch.randn(1, 2, 6, 8)
    with pytest.raises(RuntimeError, match="outside `documents"):
        attention.attend(Layer(), q, q, q, None)
    with attention.documents():
        with pytest.raises(ValueError, match="does not know s_aux of Layer"):
            attention.attend(Layer(), q, q, q, None, s_aux=torch.zeros(2), position_ids=torch.arange(6))
        with pytest.raises(ValueError, match="takes no attention mask"):
            attention.attend(Layer(), q, q, q, torch.zeros(1, 1, 6, 6))
        with pytest.raises(ValueError, match="6 queries against 9 keys"):
            attention.attend(Layer(), q, torch.randn(1, 2, 9, 8), torch.randn(1, 2, 9, 8), None)
        encoder = Layer()
        encoder.is_causal = False
        with pytest.raises(ValueError, match="is causal; Layer is not"):
            attention.attend(encoder, q, q, q, None)
    for lengths in ([4, 3], [0, 6]):
        with attention.documents(lengths), pytest.raises(ValueError, match=r"documents of \(\d, \d\) tokens"):
            attention.attend(Layer(), q, q, q, None)


def test_padding_on_the_left_is_refused() -> None:
    model, ids = family("llama"), torch.ones(2, 5, dtype=torch.long)
    with attention.documents():
        model(input_ids=ids, attention_mask=torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]))
        with pytest.raises(ValueError, match="padding on the right only"):
            model(input_ids=ids, attention_mask=torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]]))


def test_no_mask_is_made_for_long_rows() -> None:
    """A dense mask of this row would have 4 * 10^8 entries."""
    model = family("llama", num_hidden_layers=1).eval()
    ids = torch.ones(1, 20_000, dtype=torch.long)
    with attention.documents([20] * 1000), torch.no_grad():
        position_ids = torch.arange(20).repeat(1000)[None]
        hidden = model.model(input_ids=ids, position_ids=position_ids, use_cache=False).last_hidden_state
    assert torch.equal(hidden[0, :20], hidden[0, -20:])


def test_few_shapes_serve_all_lengths() -> None:
    """Each new shape of a product costs oneDNN a new kernel."""
    drawn = torch.Generator().manual_seed(0)
    shapes = set()
    for _ in range(100):
        lengths = torch.randint(1, 300, (6,), generator=drawn).tolist()
        plan = layout.Documents.of(lengths, 1, sum(lengths)).blocks(4, 2, torch.device("cpu"))
        shapes |= {(block.documents, block.last - block.first, block.last) for block in plan.blocks}
    assert len(shapes) < 60
    cpu, other = torch.device("cpu"), torch.device("meta")
    sizes = {layout.filled(rows, cpu) for rows in range(1024, 2048)}
    assert len(sizes) <= 17
    assert all(rows <= layout.filled(rows, cpu) <= rows * 17 / 16 for rows in range(1, 5000))
    assert layout.filled(1025, other) == 1025
