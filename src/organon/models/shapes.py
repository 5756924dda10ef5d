"""How large a base model is, without loading it: the shapes of its parameters. No torch.

From the headers of its safetensors files, or, where the weights are not on this machine, from the numbers of
its ``config.json``, for the decoder families whose layout is written out here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from organon.config.spec import BaseModel
from organon.models.folder import model_folder, weight_files
from organon.models.weight_files import read_header

Shape = tuple[int, ...]
_HEADS = ("lm_head", "embed_out")
_EMBEDDING = re.compile(r"embed|^wte$|^wpe$")
# Buffers that old checkpoints hold beside the parameters: masks and the angles of rotary embeddings.
_BUFFERS = re.compile(r"(\.attn\.bias|\.masked_bias|\.attention\.bias|rotary_emb\.inv_freq)$")
_TRANSPOSED = ("gpt2",)  # Conv1D: the weight is (inputs, outputs)

_LLAMA = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "smollm3", "granite", "olmo2")


@dataclass(frozen=True)
class Layout:
    """The parameters of a base model by name, each once, and the numbers of its config that memory depends on.

    ``linear``: (outputs, inputs) of each layer that LoRA's ``all-linear`` means; ``embeddings``: (entries,
    width) of the embeddings and the output layer.
    """

    parameters: Mapping[str, Shape]
    linear: Mapping[str, tuple[int, int]]
    embeddings: Mapping[str, tuple[int, int]]
    layers: int
    hidden: int
    vocabulary: int
    heads: int  # of the queries
    tied: bool  # input and output embeddings are one matrix
    family: str = ""  # transformers' model_type

    @property
    def count(self) -> int:
        """Parameters in all."""
        return sum(map(math.prod, self.parameters.values()))


def layout_of(base: BaseModel) -> Layout | None:
    """The layout of ``base``; None where neither its weights nor a config of a known family are on this machine.

    Raises:
        UserError: CKPT-067, CKPT-068, a weight file is damaged.
    """
    folder = model_folder(base)
    if folder is None or not (folder / "config.json").is_file():
        return None
    config = _text_config(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    if "quantization_config" in config:
        return None  # its tensors are packed
    files = weight_files(folder)
    if files and all(file.is_file() for file in files):
        return _layout(_of_files(files), config)
    written_out = None if "vision_config" in config else _of_config(config)
    return None if written_out is None else _layout(written_out, config)


def _text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The part about the language model, of models that also see images."""
    inner = config.get("text_config")
    return {**config, **inner} if isinstance(inner, dict) else config


def _of_files(files: Iterable[Path]) -> dict[str, Shape]:
    return {name: tensor.shape for file in files for name, tensor in read_header(file).items()}


def _layout(found: Mapping[str, Shape], config: dict[str, Any]) -> Layout:
    parameters = {name: shape for name, shape in found.items() if not _BUFFERS.search(name)}
    tied = _is_tied(config, parameters)
    if tied:  # some checkpoints hold the one matrix twice
        parameters = {name: shape for name, shape in parameters.items() if _last(name) not in _HEADS}
    linear, embeddings = {}, {}
    for name, shape in parameters.items():
        if len(shape) != 2 or not name.endswith(".weight"):
            continue
        module = name.removesuffix(".weight")
        if _last(name) in _HEADS or _EMBEDDING.search(_last(name)):
            embeddings[module] = (shape[0], shape[1])
        else:
            turned = config.get("model_type") in _TRANSPOSED
            linear[module] = (shape[1], shape[0]) if turned else (shape[0], shape[1])
    return Layout(
        parameters=parameters,
        linear=linear,
        embeddings=embeddings,
        layers=_number(config, "num_hidden_layers", "n_layer"),
        hidden=_number(config, "hidden_size", "n_embd"),
        vocabulary=_number(config, "vocab_size"),
        heads=_number(config, "num_attention_heads", "n_head"),
        tied=tied,
        family=str(config.get("model_type", "")),
    )


def _is_tied(config: dict[str, Any], parameters: Mapping[str, Shape]) -> bool:
    told = config.get("tie_word_embeddings")
    if isinstance(told, bool):
        return told
    return not any(_last(name) in _HEADS for name in parameters)


def _last(name: str) -> str:
    """The last name of the module that a parameter belongs to."""
    return name.rsplit(".", 2)[-2] if name.count(".") else name


def _number(config: dict[str, Any], *names: str) -> int:
    return next((int(config[name]) for name in names if isinstance(config.get(name), int)), 0)


# -- from the config alone ------------------------------------------------------------------------------


def _of_config(config: dict[str, Any]) -> dict[str, Shape] | None:
    kind = config.get("model_type")
    if kind == "gpt2":
        return _gpt2(config)
    return _llama(config, str(kind)) if kind in _LLAMA else None


def _llama(config: dict[str, Any], kind: str) -> dict[str, Shape]:
    """Llama and what is built like it: gated MLP, grouped queries, RMSNorm."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    key_heads = config.get("num_key_value_heads") or heads
    width = config.get("head_dim") or hidden // heads
    queries, keys = heads * width, key_heads * width
    layer: dict[str, Shape] = {
        "self_attn.q_proj.weight": (queries, hidden),
        "self_attn.k_proj.weight": (keys, hidden),
        "self_attn.v_proj.weight": (keys, hidden),
        "self_attn.o_proj.weight": (hidden, queries),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
    }
    norms = {"input_layernorm": hidden, "post_attention_layernorm": hidden}
    if kind in ("gemma2", "gemma3_text"):
        norms |= {"pre_feedforward_layernorm": hidden, "post_feedforward_layernorm": hidden}
    if kind == "olmo2":
        norms = {"post_attention_layernorm": hidden, "post_feedforward_layernorm": hidden}
    if kind in ("qwen3", "gemma3_text"):
        norms |= {"self_attn.q_norm": width, "self_attn.k_norm": width}
    if kind == "olmo2":
        norms |= {"self_attn.q_norm": queries, "self_attn.k_norm": keys}
    layer |= {f"{name}.weight": (size,) for name, size in norms.items()}
    if kind == "qwen2" or config.get("attention_bias"):
        sizes = {"q_proj": queries, "k_proj": keys, "v_proj": keys}
        if config.get("attention_bias"):
            sizes["o_proj"] = hidden
        layer |= {f"self_attn.{name}.bias": (size,) for name, size in sizes.items()}
    if config.get("mlp_bias"):
        layer |= {"mlp.gate_proj.bias": (inner,), "mlp.up_proj.bias": (inner,), "mlp.down_proj.bias": (hidden,)}
    whole = {f"model.layers.{n}.{name}": s for n in range(config["num_hidden_layers"]) for name, s in layer.items()}
    whole |= {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    # Gemma's embeddings are tied unless its config says otherwise.
    if not config.get("tie_word_embeddings", kind.startswith("gemma")):
        whole["lm_head.weight"] = (config["vocab_size"], hidden)
    return whole


def _gpt2(config: dict[str, Any]) -> dict[str, Shape]:
    hidden = config["n_embd"]
    inner = config.get("n_inner") or 4 * hidden
    matrices = {"attn.c_attn": 3 * hidden, "attn.c_proj": hidden, "mlp.c_fc": inner}
    layer: dict[str, Shape] = {f"{name}.weight": (hidden, size) for name, size in matrices.items()}
    layer |= {f"{name}.bias": (size,) for name, size in matrices.items()}
    layer |= {"mlp.c_proj.weight": (inner, hidden), "mlp.c_proj.bias": (hidden,)}
    layer |= {f"ln_{n}.{part}": (hidden,) for n in (1, 2) for part in ("weight", "bias")}
    whole = {f"h.{n}.{name}": shape for n in range(config["n_layer"]) for name, shape in layer.items()}
    whole |= {"wte.weight": (config["vocab_size"], hidden), "wpe.weight": (config["n_positions"], hidden)}
    whole |= {"ln_f.weight": (hidden,), "ln_f.bias": (hidden,)}
    return whole
