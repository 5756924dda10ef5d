"""Tiny random models of the real architectures, and packed rows for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from organon.backends.lightning import attention
from organon.models.chat import IGNORED

VOCABULARY = 61
WINDOW = 5  # tokens, less than most documents of these tests
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GEMMA = {**COMMON, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": WINDOW}
LOCAL_AND_GLOBAL = ["sliding_attention", "full_attention"]

FAMILIES: dict[str, Callable[[], tuple[type, Any]]] = {
    "llama": lambda: (LlamaForCausalLM, LlamaConfig(**COMMON)),
    "mistral": lambda: (MistralForCausalLM, MistralConfig(**COMMON, sliding_window=WINDOW)),
    "qwen2": lambda: (Qwen2ForCausalLM, Qwen2Config(**COMMON)),
    "qwen3": lambda: (Qwen3ForCausalLM, Qwen3Config(**COMMON, head_dim=8)),
    "gemma": lambda: (GemmaForCausalLM, GemmaConfig(**COMMON, head_dim=8)),
    "gemma2": lambda: (
        Gemma2ForCausalLM,
        Gemma2Config(
            **GEMMA, layer_types=LOCAL_AND_GLOBAL, attn_logit_softcapping=2.0, final_logit_softcapping=3.0
        ),
    ),
    "gemma3": lambda: (Gemma3ForCausalLM, Gemma3TextConfig(**GEMMA, layer_types=LOCAL_AND_GLOBAL)),
    "gpt2": lambda: (
        GPT2LMHeadModel,
        GPT2Config(
            vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=512, attn_pdrop=0.0,
            resid_pdrop=0.0, embd_pdrop=0.0, initializer_range=0.2, bos_token_id=1, eos_token_id=2,
        ),
    ),
}  # fmt: skip


def family(name: str, implementation: str | None = None, **changes: Any) -> Any:
    """A model of the family, the same weights each time, in training mode."""
    kind, config = FAMILIES[name]()
    for key, value in changes.items():
        setattr(config, key, value)
    config._attn_implementation = implementation or attention.register()
    torch.manual_seed(7)
    model = kind(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # norms and biases start as ones and zeros, which would hide mistakes
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.train()


class Documents:
    """Random documents; a label at most tokens, their first included."""

    def __init__(self, *lengths: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.lengths = lengths
        self.ids = [torch.randint(3, VOCABULARY, (length,), generator=generator) for length in lengths]
        self.labels = [
            torch.where(torch.rand(len(ids), generator=generator) < 0.8, ids, torch.tensor(IGNORED)) for ids in self.ids
        ]

    def packed(self, fill: int = 0) -> dict[str, torch.Tensor]:
        """One row (1, T), with ``fill`` tokens of padding behind."""
        pad = torch.zeros(fill, dtype=torch.long)
        return {
            "input_ids": torch.cat([*self.ids, pad])[None],
            "labels": torch.cat([*self.labels, torch.full((fill,), IGNORED)])[None],
            "position_ids": torch.cat([*(torch.arange(n) for n in self.lengths), pad])[None],
        }

    def padded(self) -> dict[str, torch.Tensor]:
        """One row per document (B, T)."""
        rows = torch.nn.utils.rnn.pad_sequence(self.ids, batch_first=True)
        labels = torch.nn.utils.rnn.pad_sequence(self.labels, batch_first=True, padding_value=IGNORED)
        return {"input_ids": rows, "labels": labels}


def alone(model: Any, documents: Documents) -> torch.Tensor:
    """Cross-entropy summed over all labels, one document after another, as transformers computes it."""
    losses = []
    for ids, labels in zip(documents.ids, documents.labels, strict=True):
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
        losses.append(torch.nn.functional.cross_entropy(logits.float(), labels[1:], reduction="sum"))
    return torch.stack(losses).sum()


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """Of the trained parameters; they are taken away from the model."""
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float) -> None:
    """The norm of each difference is at most ``tolerance`` of the largest norm of a gradient like it."""
    assert found.keys() == expected.keys()
    assert expected
    scale = max(float(value.norm()) for value in expected.values())
    assert scale > 0
    for name, value in expected.items():
        error = float((found[name] - value).norm())
        assert error <= tolerance * max(float(value.norm()), 1e-3 * scale), (name, error, float(value.norm()))
