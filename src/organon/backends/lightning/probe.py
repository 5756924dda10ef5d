"""What torch and bitsandbytes really do on this machine, tried out: ``python -m organon.backends.lightning.probe``.

Prints one JSON object. ``organon doctor`` runs it as a process of its own, since what is broken here (a CUDA
library of another version, a kernel for other instructions) may take the process down with it.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from organon.backends.lightning.compute import compute_of
from organon.config.schema import TrainerConfig

# Layers of these sizes use every kernel: rows of several blocks of 64, a number of inputs that is none of 2.
OUTPUTS, INPUTS, ROWS = 192, 256, 8


def main() -> int:
    """Probe torch and each quantisation on each device; 0 unless torch itself cannot be imported."""
    for name in ("bitsandbytes", "bitsandbytes.autograd._functions"):
        logging.getLogger(name).setLevel(logging.ERROR)  # advice, and that int8 casts to float16
    import torch

    found: dict[str, Any] = {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cuda_error": None,
        "gpus": [],
        "quantization": {},
    }
    devices = ["cpu"]
    try:
        if torch.version.cuda is not None:
            torch.cuda.init()  # type: ignore[no-untyped-call]
            found["gpus"] = [_gpu(number) for number in range(torch.cuda.device_count())]
            devices += ["cuda"] * bool(found["gpus"])
    except Exception as error:  # noqa: BLE001 - whatever is wrong is what we want to know
        found["cuda_error"] = _words(error)
    for device in devices:
        for kind in ("nf4", "fp4", "int8"):
            found["quantization"][f"{kind} on {device}"] = try_quantization(kind, device)
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


def try_quantization(kind: str, device: str) -> dict[str, Any]:
    """Relative errors of a small quantised layer: of its weights by quantising, and of its output and input gradient
    against the same layer dequantised. Or ``error``: why there is no answer.

    The layer is used as a training uses it: a forward in evaluation mode first (which is what makes
    bitsandbytes repack 4-bit weights on some CPUs, and lose the gradient), then forward and backward.
    """
    try:
        return {"error": None, **_errors(kind, device)}
    except Exception as error:  # noqa: BLE001 - whatever is wrong is what we want to know
        return {"error": _words(error)}


def _errors(kind: str, device: str) -> dict[str, float]:
    import torch

    from organon.models.load import keep_gradients

    torch.manual_seed(0)
    weight = torch.randn(OUTPUTS, INPUTS) / INPUTS**0.5
    precision = compute_of(TrainerConfig(accelerator="gpu" if device == "cuda" else "cpu"))["precision"]
    layer = _layer(kind, weight, torch.bfloat16 if precision == "bf16" else torch.float32).to(device)
    keep_gradients(layer)
    layer.eval()
    with torch.no_grad():
        layer(torch.randn(1, INPUTS, device=device))
    layer.train()
    x = torch.randn(ROWS, INPUTS, device=device, requires_grad=True)
    upstream = torch.randn(ROWS, OUTPUTS, device=device)
    output = layer(x)
    (gradient,) = torch.autograd.grad(output, x, upstream.to(output.dtype))
    exact = _dequantized(kind, layer)
    return {
        "weight_error": _relative(exact, weight.to(device)),
        "output_error": _relative(output, x.detach() @ exact.T),
        "gradient_error": _relative(gradient, upstream @ exact),
    }


def _layer(kind: str, weight: Any, dtype: Any) -> Any:
    from bitsandbytes.nn import Int8Params, Linear4bit, Linear8bitLt, Params4bit

    if kind == "int8":
        eight = Linear8bitLt(INPUTS, OUTPUTS, bias=False, has_fp16_weights=False)
        eight.weight = Int8Params(weight, requires_grad=False, has_fp16_weights=False)
        return eight
    four = Linear4bit(INPUTS, OUTPUTS, bias=False, compute_dtype=dtype, quant_type=kind)
    four.weight = Params4bit(weight, requires_grad=False, quant_type=kind, compress_statistics=True)
    return four


def _dequantized(kind: str, layer: Any) -> Any:
    if kind == "int8":
        scales = layer.state.SCB if layer.state.SCB is not None else layer.weight.SCB
        codes = layer.state.CB if layer.state.CB is not None else layer.weight.data
        return codes.float() * scales.float().view(-1, 1) / 127
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()


def _relative(found: Any, exact: Any) -> float:
    found, exact = found.detach().float(), exact.detach().float()
    return float((found - exact).norm() / exact.norm())


def _gpu(number: int) -> dict[str, Any]:
    import torch

    properties = torch.cuda.get_device_properties(number)
    a = torch.randn(64, 64, device=f"cuda:{number}")
    return {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "capability": properties.major + properties.minor / 10,
        "bf16": torch.cuda.is_bf16_supported(including_emulation=False),
        "multiplies": bool(torch.isfinite(a @ a).all()),
    }


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


if __name__ == "__main__":
    sys.exit(main())
