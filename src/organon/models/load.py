"""Loading a base model and its adapter with transformers, bitsandbytes and peft, and saving an adapter.

The one place that decides how a base is put into memory, so that training, evaluation and export see
the same numbers.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from organon.config.schema import AdapterConfig
from organon.config.spec import BaseModel
from organon.errors import ConfigError
from organon.models.folder import EMBEDDED_FOLDER, EMBEDDED_ID

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"


def load_base(
    base: BaseModel,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    compute_dtype: torch.dtype | None = None,
    attention: str | None = None,
) -> PreTrainedModel:
    """The base model on ``device`` (default: the GPU, else the CPU), frozen, in evaluation mode.

    ``dtype``: of the weights that are not quantised (default: ``base.dtype``, where ``auto`` is bfloat16
    on a GPU and float32 on the CPU). ``compute_dtype``: what quantised layers compute in (default:
    ``dtype``). ``attention``: transformers' name for an implementation.

    Raises:
        ConfigError: transformers cannot load it, with its reason.
    """
    from transformers import AutoModelForCausalLM

    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = dtype or named_dtype(base.dtype, device)
    arguments: dict[str, Any] = {
        "dtype": dtype,
        "device_map": None if device.type == "cpu" else {"": device},
        "use_safetensors": True,
        "quantization_config": _quantization(base, compute_dtype or dtype),
        "attn_implementation": attention,
    }
    with quiet(), _load_errors(base):
        model = AutoModelForCausalLM.from_pretrained(
            _place(base), **_trust(base), **{k: v for k, v in arguments.items() if v is not None}
        )
    if base.quantization != "none":
        _keep_gradients(model)
    model.requires_grad_(False)
    model.eval()
    return model


def load_tokenizer(base: BaseModel) -> PreTrainedTokenizerBase:
    """The base model's tokenizer, with the chat template that the config names, if it names one."""
    from transformers import AutoTokenizer

    with quiet(), _load_errors(base):
        tokenizer = AutoTokenizer.from_pretrained(_place(base), **_trust(base))
    if base.chat_template is not None:
        tokenizer.chat_template = base.chat_template
    return tokenizer


def attach_adapter(model: PreTrainedModel | PeftModel, folder: str | Path, name: str = "default") -> PeftModel:
    """``model`` with the saved adapter in ``folder`` on it, frozen; a further one if it has some already."""
    from peft import PeftModel

    with quiet():
        if isinstance(model, PeftModel):
            model.load_adapter(str(folder), adapter_name=name, is_trainable=False)
            return model
        return PeftModel.from_pretrained(model, str(folder), adapter_name=name, is_trainable=False)


def new_adapter(model: PreTrainedModel, adapter: AdapterConfig, *, seed: int) -> PeftModel:
    """``model`` with a fresh, trainable LoRA adapter (float32), drawn from ``seed``.

    Raises:
        ConfigError: CFG-059, ``target_modules`` match nothing.
    """
    from peft import LoraConfig, get_peft_model

    targets = adapter.target_modules
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=targets if isinstance(targets, str) else sorted(targets),
        use_rslora=adapter.use_rslora,
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    modules = {n.rsplit(".", 1)[-1] for n, _ in model.named_modules()} | {n for n, _ in model.named_modules()}
    unmatched = [] if isinstance(targets, str) else [t for t in sorted(targets) if not _matches(t, modules)]
    try:
        if unmatched:
            raise ValueError(f"target modules {unmatched}")
        with quiet():
            return get_peft_model(model, config)
    except ValueError as error:
        if "arget modules" not in str(error):
            raise
        names = sorted({n.rsplit(".", 1)[-1] for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)})
        raise ConfigError(
            f"{', '.join(unmatched) or targets}: no module of the model matches. Found: {', '.join(names)}",
            code="CFG-059",
            where="adapter.target_modules",
            fix="adapter.target_modules=all-linear",
        ) from error


def _matches(target: str, modules: set[str]) -> bool:
    """As peft: a module's last name, or the end of its full name."""
    return target in modules or any(name.endswith(f".{target}") for name in modules)


def save_adapter(model: PeftModel, folder: Path, base: BaseModel) -> None:
    """Write ``adapter_model.safetensors`` and ``adapter_config.json`` into the existing ``folder``.

    ``PeftModel.from_pretrained(base_model, folder)`` loads them. The bytes depend on the weights and
    the settings alone: no path of this machine, and no order of a Python set, is in them.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()},
        folder / ADAPTER_WEIGHTS,
        metadata={"format": "pt"},
    )
    config = copy.copy(model.peft_config["default"])
    config.base_model_name_or_path, config.revision, config.inference_mode = public_name(base), base.revision, True
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config.to_dict(), indent=2, sort_keys=True, default=sorted) + "\n")


def save_full(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a fully trained model and its tokenizer into ``folder``, as ``from_pretrained`` reads them."""
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def public_name(base: BaseModel) -> str:
    """The base model's name in files that may be passed on: never a path of this machine."""
    if base.hub_id is not None:
        return base.hub_id
    if base.folder is not None and Path(base.folder) == EMBEDDED_FOLDER:
        return EMBEDDED_ID
    return f"local/sha256-{base.digest[:16]}"


def named_dtype(name: str, device: torch.device) -> torch.dtype:
    """A config's dtype; ``auto`` is bfloat16 on a GPU and float32 on the CPU."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers, peft and bitsandbytes from writing progress bars and hints; errors still raise."""
    from transformers.utils import logging as transformers_logging

    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    noisy = logging.getLogger("bitsandbytes")
    noisy_level = noisy.level
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    noisy.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        noisy.setLevel(noisy_level)
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


def _quantization(base: BaseModel, dtype: torch.dtype) -> Any:
    if base.quantization == "none":
        return None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=base.quantization,
        bnb_4bit_use_double_quant=base.double_quantization,
        bnb_4bit_compute_dtype=dtype,
    )


def _keep_gradients(model: PreTrainedModel) -> None:
    """On CPUs with AVX512-BF16, a forward in evaluation mode repacks the weights for a kernel without a
    backward: from then on every gradient below a quantised layer is lost in silence (bitsandbytes 0.50.2)."""
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _place(base: BaseModel) -> str:
    place = base.folder or base.hub_id
    if place is None:
        raise ConfigError("the base model has neither a folder nor a hub id", code="CFG-064", where="model")
    return place


def _trust(base: BaseModel) -> dict[str, Any]:
    found: dict[str, Any] = {"trust_remote_code": base.trust_remote_code}
    return found if base.folder else {**found, "revision": base.revision}


@contextlib.contextmanager
def _load_errors(base: BaseModel) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise ConfigError(
            f"transformers cannot load it: {' '.join(str(error).split())[:400]}",
            code="CFG-064",
            where=f"model {_place(base)}",
            fix="check the model's files; model.path=/some/folder names another copy",
        ) from error
