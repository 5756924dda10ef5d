"""Tiny random models of real architectures, made from their own config classes. No torch until one is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

COMMON: dict[str, Any] = {
    "vocab_size": 264,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,  # large enough that an adapter can move the logits of tied embeddings
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
WITH_HEAD = {**COMMON, "head_dim": 8}
WINDOW = {**WITH_HEAD, "sliding_window": 32}

# The config class and its arguments. Gemma, GPT-2 and SmolLM3 tie their embeddings; GPT-2's layers are Conv1D.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", COMMON),
    "mistral": ("MistralConfig", {**WITH_HEAD, "sliding_window": 32}),
    "qwen2": ("Qwen2Config", COMMON),
    "qwen3": ("Qwen3Config", WITH_HEAD),
    "gemma": ("GemmaConfig", WITH_HEAD),
    "gemma2": ("Gemma2Config", {**WINDOW, "query_pre_attn_scalar": 8}),
    "gemma3": ("Gemma3TextConfig", {**WINDOW, "query_pre_attn_scalar": 8, "sliding_window_pattern": 2}),
    "gpt2": (
        "GPT2Config",
        {
            "vocab_size": 264, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "initializer_range": 0.2,
            "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0, "resid_pdrop": 0.0, "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
        },
    ),
    "phi": ("PhiConfig", COMMON),
    "phi3": ("Phi3Config", COMMON),
    "olmo2": ("Olmo2Config", COMMON),
    "smollm3": ("SmolLM3Config", COMMON),
    "granite": ("GraniteConfig", COMMON),
    "gpt_neox": ("GPTNeoXConfig", {k: v for k, v in COMMON.items() if k != "num_key_value_heads"}),
}  # fmt: skip


def save_family(name: str, folder: Path, **changes: Any) -> Path:
    """A random model of the family in ``folder``."""
    import torch
    import transformers

    kind, arguments = FAMILIES[name]
    config = getattr(transformers, kind)(**{**arguments, **changes})
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder
