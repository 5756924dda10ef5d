"""Logits, next tokens, embeddings, and tensors with ids, on the embedded model (CK-58)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from organon.config.schema import AdapterConfig
from organon.config.spec import BaseModel
from organon.errors import ConfigError, UserError
from organon.models.checkpoint import named_base
from organon.models.compare import compare
from organon.models.load import load_base, load_tokenizer
from organon.models.probe import embeddings, encode, load_tensors, logits, next_tokens, save_tensors

TEXTS = ["The word apple in capital letters:", "hi", "Two plus two is four, and three plus three is six."]


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return named_base("tiny")


@pytest.fixture(scope="module")
def tiny(base: BaseModel) -> tuple[Any, Any]:
    return load_base(base, device="cpu"), load_tokenizer(base)


@torch.no_grad()
def test_logits_are_those_of_each_text_alone(tiny: Any) -> None:
    """Texts of different lengths are padded together; that changes nothing."""
    model, tokenizer = tiny
    tokens = encode(tokenizer, TEXTS)
    for ids, found in zip(tokens, logits(model, tokens), strict=True):
        alone = model(torch.tensor([ids]), use_cache=False).logits[0]
        assert found.shape == (len(ids), model.config.vocab_size)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, alone.float(), atol=1e-4, rtol=1e-4)


def test_next_tokens(tiny: Any) -> None:
    model, tokenizer = tiny
    found = next_tokens(model, tokenizer, TEXTS, count=3)
    assert [len(row) for row in found] == [3, 3, 3]
    for row, last in zip(found, logits(model, encode(tokenizer, TEXTS)), strict=True):
        assert row[0].id == int(last[-1].argmax())
        assert row[0].text == tokenizer.decode([row[0].id])
        assert 1 >= row[0].probability >= row[1].probability >= row[2].probability > 0


def test_a_text_as_a_question(tiny: Any) -> None:
    """By the chat template, up to where the answer begins: what the model was trained to go on from."""
    model, tokenizer = tiny
    (ids,) = encode(tokenizer, ["hi"], chat=True)
    assert tokenizer.decode(ids) != "hi"
    plain, asked = (next_tokens(model, tokenizer, ["hi"], count=1, chat=chat)[0][0] for chat in (False, True))
    assert plain != asked


@torch.no_grad()
def test_embeddings(tiny: Any) -> None:
    model, tokenizer = tiny
    tokens = encode(tokenizer, TEXTS)
    states = [
        model(torch.tensor([ids]), use_cache=False, output_hidden_states=True).hidden_states[-1][0] for ids in tokens
    ]
    for pooling, pooled in {
        "mean": [s.mean(dim=0) for s in states],
        "last": [s[-1] for s in states],
        "cls": [s[0] for s in states],
    }.items():
        found = embeddings(model, tokenizer, TEXTS, pooling=pooling)
        assert found.shape == (3, model.config.hidden_size)
        torch.testing.assert_close(found, torch.stack(pooled).float(), atol=1e-4, rtol=1e-4)
    first = embeddings(model, tokenizer, ["hi"], pooling="cls", layer=0)
    torch.testing.assert_close(first[0], model.get_input_embeddings().weight[tokens[1][0]].float())
    with pytest.raises(ConfigError, match="'max' is no pooling"):
        embeddings(model, tokenizer, TEXTS, pooling="max")
    assert embeddings(model, tokenizer, []).numel() == 0


def test_an_empty_text(tiny: Any) -> None:
    with pytest.raises(UserError, match="text 1 has no tokens"):
        encode(tiny[1], ["a", ""])


def test_tensors_with_ids(tmp_path: Path) -> None:
    tensors = {"mean": torch.randn(3, 4), "layer": torch.randn(3, 2, 4).bfloat16()}
    save_tensors(tmp_path / "new" / "a.safetensors", tensors, ["x", "y", "z"])
    found, ids = load_tensors(tmp_path / "new" / "a.safetensors")
    assert ids == ["x", "y", "z"]
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    shared = torch.randn(2, 2)
    save_tensors(tmp_path / "b", {"a": shared, "b": shared}, ["1", "2"])


def test_tensors_that_do_not_fit_their_ids(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a has shape \(2,\), expected 3 rows"):
        save_tensors(tmp_path / "a", {"a": torch.zeros(2)}, ["x", "y", "z"])
    with pytest.raises(ValueError, match="ids are not unique: 'x'"):
        save_tensors(tmp_path / "a", {"a": torch.zeros(2)}, ["x", "x"])
    assert list(tmp_path.iterdir()) == []
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "a")
    with pytest.raises(UserError, match="holds no ids"):
        load_tensors(tmp_path / "a")


# -- comparing two models ---------------------------------------------------------------------------------


def test_perplexity_is_that_of_transformers_loss(tiny: Any) -> None:
    model, tokenizer = tiny
    tokens = encode(tokenizer, TEXTS[:1])
    found = compare(lambda: model, lambda: model, tokens)
    with torch.no_grad():
        ids = torch.tensor(tokens)
        expected = float(model(ids, labels=ids, use_cache=False).loss.exp())
    assert found.base_perplexity == pytest.approx(expected, rel=1e-4)
    assert found.perplexity == found.base_perplexity
    assert (found.logit_mse, found.texts, found.tokens) == (0.0, 1, len(tokens[0]) - 1)


def test_the_distance_of_logits(tiny: Any) -> None:
    """A shift of all logits by 0.5 is a mean square of 0.25, and changes no probability."""
    model, tokenizer = tiny

    class Shifted:
        device = model.device

        def eval(self) -> None: ...

        def __call__(self, **arguments: Any) -> Any:
            out = model(**arguments)
            out.logits = out.logits + 0.5
            return out

    found = compare(lambda: model, Shifted, encode(tokenizer, TEXTS))
    assert found.logit_mse == pytest.approx(0.25, rel=1e-5)
    assert found.perplexity == pytest.approx(found.base_perplexity, rel=1e-5)
    assert found.same(0.5, 0.3)
    assert not found.same(0.5, 0.2)


def test_models_that_cannot_be_compared(tiny: Any) -> None:
    model, tokenizer = tiny

    class Other:
        def __init__(self, change: Any) -> None:
            self.change, self.device = change, model.device

        def eval(self) -> None: ...

        def __call__(self, **arguments: Any) -> Any:
            out = model(**arguments)
            out.logits = self.change(out.logits)
            return out

    tokens = encode(tokenizer, TEXTS)
    for change, code, words in (
        (lambda x: x[..., :-1], "CKPT-071", "different vocabularies"),
        (lambda x: x / 0, "CKPT-070", "not finite"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            compare(lambda: model, lambda change=change: Other(change), tokens)
        assert caught.value.code == code
    with pytest.raises(UserError, match="no text has two tokens"):
        compare(lambda: model, lambda: model, [[1]])


def test_it_works_on_a_quantised_base(base: BaseModel, tiny: Any) -> None:
    """The quantisation's own error is a difference like any other."""
    import dataclasses

    quantised = dataclasses.replace(base, quantization=AdapterConfig().quantization)
    tokens = encode(tiny[1], TEXTS)
    found = compare(lambda: tiny[0], lambda: load_base(quantised, device="cpu"), tokens)
    assert 0 < found.logit_mse < 5
