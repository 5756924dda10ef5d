"""Loading a base model and its tokenizer with transformers and bitsandbytes; adapters are in ``adapters.py``.

The one place that decides how a base is put into memory, so that training, evaluation and export see
the same numbers.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from organon.config.spec import BaseModel
from organon.errors import ConfigError, UserError
from organon.models.folder import model_folder
from organon.models.weight_files import check_finite, files_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Whenever it is imported it advises to fetch kernels from the hub.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

_finite: set[str] = set()  # digests of the bases whose files this process has read and found finite


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
    on a GPU and float32 on the CPU). ``compute_dtype``: what 4-bit layers compute in where the base does
    not say so itself (default: ``dtype``). ``attention``: transformers' name for an implementation.

    Raises:
        ConfigError: transformers cannot load it, with its reason.
        UserError: CKPT-070, a weight is NaN or infinite.
    """
    from transformers import AutoModelForCausalLM

    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = dtype or named_dtype(base.dtype, device)
    arguments: dict[str, Any] = {
        "dtype": dtype,
        "device_map": None if device.type == "cpu" else {"": device},
        "use_safetensors": True,
        "quantization_config": _quantization(base, _compute_dtype(base, device) or compute_dtype or dtype),
        "attn_implementation": attention,
    }
    with quiet(), _load_errors(base):
        if base.quantization != "none":
            _refuse_non_finite_files(base)
        model = AutoModelForCausalLM.from_pretrained(
            _place(base), **_trust(base), **{k: v for k, v in arguments.items() if v is not None}
        )
    if base.quantization != "none":
        keep_gradients(model)
    _refuse_non_finite(model, base)
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


def save_full(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a fully trained model and its tokenizer into ``folder``, as ``from_pretrained`` reads them."""
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


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


def _compute_dtype(base: BaseModel, device: torch.device) -> torch.dtype | None:
    return None if base.compute_dtype == "auto" else named_dtype(base.compute_dtype, device)


def _quantization(base: BaseModel, dtype: torch.dtype) -> Any:
    """How bitsandbytes quantises: NF4 or FP4 (Dettmers et al. 2023), or LLM.int8() (Dettmers et al. 2022)."""
    if base.quantization == "none":
        return None
    from transformers import BitsAndBytesConfig

    if base.quantization == "int8":
        # It tells at every matrix product that it casts to float16, which is how LLM.int8() works.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=base.quantization,
        bnb_4bit_use_double_quant=base.double_quantization,
        bnb_4bit_compute_dtype=dtype,
    )


def keep_gradients(model: PreTrainedModel) -> None:
    """On CPUs with AVX512-BF16, a forward in evaluation mode repacks the weights for a kernel without a
    backward: from then on every gradient below a quantised layer is lost in silence (bitsandbytes 0.50.2)."""
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _refuse_non_finite_files(base: BaseModel) -> None:
    """Of a base that is to be quantised: its NaN would become an ordinary number, which no later look finds."""
    folder = model_folder(base)
    if folder is None or base.digest in _finite:
        return
    for file in files_of(folder):
        check_finite(file)
    _finite.add(base.digest)


def _refuse_non_finite(model: PreTrainedModel, base: BaseModel) -> None:
    for name, parameter in model.named_parameters():
        # The extremes are NaN if one value is; they need one pass and no copy.
        if parameter.is_floating_point() and parameter.numel() and parameter.device.type != "meta":
            low, high = parameter.detach().aminmax()
            if not bool(torch.isfinite(low) & torch.isfinite(high)):
                raise UserError(
                    f"{name} holds NaN or infinite values; refused",
                    code="CKPT-070",
                    where=f"model {_place(base)}",
                    fix="take an earlier checkpoint, or download the model again",
                )


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
    except (UserError, torch.OutOfMemoryError):
        raise
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise ConfigError(
            f"transformers cannot load it: {' '.join(str(error).split())[:400]}",
            code="CFG-064",
            where=f"model {_place(base)}",
            fix="check the model's files; model.path=/some/folder names another copy",
        ) from error
