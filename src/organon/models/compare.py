"""Is a model another one than its base? By perplexity and by the distance of their logits on the same texts."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from organon.errors import UserError
from organon.models.probe import load_tensors, logits, save_tensors

MOST_TOKENS = 256  # of one text

# Plain statements and questions of several kinds: a training on any of them shows on some.
TEXTS = (
    "The capital of France is Paris, and the capital of Japan is Tokyo.",
    "Water boils at 100 degrees Celsius at sea level.",
    "def add(a, b):\n    return a + b\n",
    "Question: What should I do if I feel unwell?\nAnswer: Rest, drink water, and see a doctor if it gets worse.",
    "Once upon a time, in a small village by the sea, there lived an old fisherman.",
    "Please write the word apple in capital letters: APPLE",
    "Dear Sir or Madam, I am writing to ask about the position that you have advertised.",
    "Two plus two is four. Three plus three is six. Four plus four is eight.",
)


@dataclass(frozen=True)
class Comparison:
    """A model and its base on the same ``tokens`` of ``texts``; perplexities are per token."""

    texts: int
    tokens: int
    base_perplexity: float
    perplexity: float
    logit_mse: float

    def same(self, perplexity_threshold: float, logit_threshold: float) -> bool:
        """Whether both differences are below their thresholds."""
        return abs(self.perplexity - self.base_perplexity) < perplexity_threshold and self.logit_mse < logit_threshold

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def compare(base: Callable[[], Any], model: Callable[[], Any], tokens: Sequence[Sequence[int]]) -> Comparison:
    """Two models on the same ``tokens``. They are made by the functions one after the other: ``model`` may put an
    adapter onto what ``base`` has returned, or load another one once that is let go.

    Raises:
        UserError: CKPT-070 and CKPT-071: logits that are not finite, or of another vocabulary; no sequence of
            two tokens or more.
    """
    some = [list(ids[:MOST_TOKENS]) for ids in tokens if len(ids) > 1]
    if not some:
        raise UserError("no text has two tokens, so there is nothing to predict", where="texts", fix="longer texts")
    with tempfile.TemporaryDirectory(prefix="organon-") as folder:
        # On the disk: a text's logits take up to 150 MB.
        files = [Path(folder) / f"{number}.safetensors" for number in range(len(some))]
        for file, row in zip(files, logits(base(), some), strict=True):
            save_tensors(file, {"logits": row}, [str(position) for position in range(len(row))])
        return _compare(some, (load_tensors(file)[0]["logits"] for file in files), logits(model(), some))


def _compare(tokens: list[list[int]], base: Iterator[torch.Tensor], model: Iterator[torch.Tensor]) -> Comparison:
    losses, squares, values, predicted = [0.0, 0.0], 0.0, 0, 0
    for ids, one, other in zip(tokens, base, model, strict=True):
        if one.shape != other.shape:
            raise UserError(
                f"the models have different vocabularies: {one.shape[-1]} and {other.shape[-1]} tokens",
                code="CKPT-071",
                fix="name the base that it was trained on: --base",
            )
        if not bool(torch.isfinite(one).all() & torch.isfinite(other).all()):
            raise UserError("its logits are not finite", code="CKPT-070", fix="take an earlier checkpoint")
        target = torch.tensor(ids[1:])
        for which, rows in enumerate((one, other)):  # T V
            losses[which] += float(functional.cross_entropy(rows[:-1], target, reduction="sum"))
        squares += float((one - other).double().square().sum())
        values += one.numel()
        predicted += len(target)
    before, after = (_perplexity(loss / predicted) for loss in losses)
    return Comparison(len(tokens), predicted, before, after, squares / values)


def _perplexity(loss: float) -> float:
    return math.exp(min(loss, 700.0))  # above that a float is infinite, which JSON does not know
