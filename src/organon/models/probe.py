"""What a model makes of texts: logits, likely next tokens, embeddings; and tensors with ids in a file.

Shapes: B texts, T tokens of one text, H hidden size, V vocabulary. Results are float32 on the CPU.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from organon.errors import ConfigError, UserError
from organon.models.chat import generation_prompt
from organon.models.weight_files import read_header
from organon.store.files import write_atomic

POOLINGS = ("mean", "last", "cls")
BATCH = 8  # texts in a forward pass
_IDS = "ids"  # in the metadata of a file of tensors


@dataclass(frozen=True)
class NextToken:
    """A token that may come next."""

    id: int
    text: str
    probability: float


def encode(tokenizer: Any, texts: Sequence[str], *, chat: bool = False) -> list[list[int]]:
    """Token ids of each text; ``chat``: of the prompt that asks it as a user, up to where the answer begins.

    Raises:
        UserError: a text has no tokens.
    """
    if chat:
        found = [generation_prompt(tokenizer, [{"role": "user", "content": text}]) for text in texts]
    else:
        found = [list(tokenizer(text)["input_ids"]) for text in texts]
    for number, ids in enumerate(found):
        if not ids:
            raise UserError(f"text {number} has no tokens", where="texts", fix="leave empty texts out")
    return found


@torch.no_grad()
def logits(model: Any, tokens: Sequence[Sequence[int]]) -> Iterator[torch.Tensor]:
    """Logits (T, V) of each sequence of ``tokens``, in order."""
    for ids, mask in _batches(model, tokens):
        out = model(input_ids=ids, attention_mask=mask, use_cache=False).logits  # B T V
        for row, real in zip(out, mask, strict=True):
            yield row[: int(real.sum())].float().cpu()


def next_tokens(
    model: Any, tokenizer: Any, texts: Sequence[str], *, count: int = 5, chat: bool = False
) -> list[list[NextToken]]:
    """For each text, the ``count`` most likely tokens to come next, the likeliest first."""
    found = []
    for row in logits(model, encode(tokenizer, texts, chat=chat)):
        best = torch.softmax(row[-1], dim=-1).topk(min(count, row.shape[-1]))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        found.append([NextToken(token, tokenizer.decode([token]), p) for token, p in pairs])
    return found


@torch.no_grad()
def embeddings(
    model: Any, tokenizer: Any, texts: Sequence[str], *, pooling: str = "mean", layer: int = -1, chat: bool = False
) -> torch.Tensor:
    """One vector for each text (B, H): the hidden states of ``layer``, pooled over its tokens.

    ``layer``: 0 is the input embeddings, -1 the last layer's output after the final norm. ``pooling``:
    ``mean`` of all tokens, the ``last``, or the first (``cls``).

    Raises:
        ConfigError: CFG-058, no such pooling.
    """
    if pooling not in POOLINGS:
        raise ConfigError(f"'{pooling}' is no pooling. Allowed: {', '.join(POOLINGS)}", code="CFG-058", where="pooling")
    found = []
    for ids, mask in _batches(model, encode(tokenizer, texts, chat=chat)):
        states = model(input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=True).hidden_states
        for row, real in zip(states[layer].float(), mask, strict=True):
            tokens = row[: int(real.sum())]  # T H
            found.append({"mean": tokens.mean(dim=0), "last": tokens[-1], "cls": tokens[0]}[pooling].cpu())
    return torch.stack(found) if found else torch.empty(0, 0)


def save_tensors(file: Path, tensors: Mapping[str, torch.Tensor], ids: Sequence[str]) -> None:
    """Write ``tensors`` and the ids of their rows into one safetensors file, whole or not at all.

    Raises:
        ValueError: a tensor has not as many rows as there are ids, or an id is there twice.
    """
    from safetensors.torch import save

    names = list(ids)
    if len(set(names)) != len(names):
        raise ValueError(f"ids are not unique: {next(name for name in names if names.count(name) > 1)!r}")
    for name, tensor in tensors.items():
        if tensor.ndim == 0 or len(tensor) != len(names):
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {len(names)} rows, one for each id")
    data = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, save(data, metadata={_IDS: json.dumps(names)}))


def load_tensors(file: Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Tensors and ids back from ``save_tensors``.

    Raises:
        UserError: CKPT-067, CKPT-068: it is damaged, or holds no ids.
    """
    from safetensors import safe_open

    read_header(file)
    with safe_open(file, framework="pt") as opened:
        told = (opened.metadata() or {}).get(_IDS)
        if told is None:
            raise UserError("holds no ids", code="CKPT-067", where=str(file), fix="a file that save_tensors wrote")
        return {name: opened.get_tensor(name) for name in opened.keys()}, json.loads(told)  # noqa: SIM118


def _batches(model: Any, tokens: Sequence[Sequence[int]]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Ids and mask (B, T) of a few sequences at a time, padded on the right, where a causal model does not look."""
    model.eval()
    for start in range(0, len(tokens), BATCH):
        some = tokens[start : start + BATCH]
        width = max(len(ids) for ids in some)
        padded = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in some])
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in some])
        yield padded.to(model.device), mask.to(model.device)
