"""NEFTune's noise: its size, its place, its generator."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from organon.backends.lightning.neftune import noisy_embeddings

WIDTH = 16


class Model(torch.nn.Module):
    """Embeddings and nothing else, all zero: what comes out is the noise."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(50, WIDTH)
        torch.nn.init.zeros_(self.embedding.weight)

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.embedding

    def forward(self, ids: torch.Tensor) -> Any:
        return self.embedding(ids)


def noise(ids: torch.Tensor, lengths: list[int], alpha: float = 5.0, seed: int = 0) -> torch.Tensor:
    model = Model()
    torch.manual_seed(seed)
    with noisy_embeddings(model, alpha, lengths):
        found: torch.Tensor = model(ids)
    assert float(model(ids).detach().abs().max()) == 0  # nothing is left behind
    return found.detach()


def test_its_size_is_that_of_the_paper() -> None:
    """Uniform in alpha / sqrt(L d): so for each document, by its own length."""
    lengths = [4, 400]
    found = noise(torch.ones(1, 404, dtype=torch.long), lengths)[0]
    for part, length in zip(found.split(lengths), lengths, strict=True):
        bound = 5.0 / math.sqrt(length * WIDTH)
        assert float(part.abs().max()) <= bound
        assert float(part.std()) == pytest.approx(bound / math.sqrt(3), rel=0.15)
        assert abs(float(part.mean())) < 0.2 * bound


def test_packed_or_padded_a_document_gets_the_same() -> None:
    lengths = [3, 5, 2]
    row = noise(torch.ones(1, 16, dtype=torch.long), lengths)[0]
    packed = row[:10].split(lengths)
    assert float(row[10:].abs().sum()) == 0
    padded = noise(torch.ones(3, 7, dtype=torch.long), lengths)
    for row, document, length in zip(padded, packed, lengths, strict=True):
        assert torch.equal(row[:length], document)
        assert float(row[length:].abs().sum()) == 0


def test_it_comes_from_torchs_own_generator() -> None:
    """Which the module seeds before each micro-batch: a resumed training draws the same."""
    ids = torch.ones(1, 6, dtype=torch.long)
    assert torch.equal(noise(ids, [6], seed=3), noise(ids, [6], seed=3))
    assert not torch.equal(noise(ids, [6], seed=3), noise(ids, [6], seed=4))


def test_switched_off_it_draws_nothing() -> None:
    torch.manual_seed(0)
    model = Model()
    with noisy_embeddings(model, 0.0, [6]):
        assert float(model(torch.ones(1, 6, dtype=torch.long)).detach().abs().max()) == 0
    after = torch.rand(1)
    torch.manual_seed(0)
    Model()
    assert torch.equal(after, torch.rand(1))


def test_16_bit_embeddings_stay_so() -> None:
    model = Model().bfloat16()
    with noisy_embeddings(model, 5.0, [6]):
        assert model(torch.ones(1, 6, dtype=torch.long)).dtype == torch.bfloat16


def test_lengths_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"documents of \[2, 5\] tokens do not make an input of 1 x 6"):
        noise(torch.ones(1, 6, dtype=torch.long), [2, 5])
