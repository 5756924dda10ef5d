"""Exact forms of a transformer's pieces with fewer passes over memory and less kept for the backward.

Shapes: N tokens (all leading dimensions taken together), I inputs, O outputs, r rank, R ranks of several
layers together, H hidden size, h heads, D head size.

On a CPU an elementwise pass over (N, O) in bfloat16 costs as much as a rank-8 product that reads it or adds
to it. So LoRA is written as products that accumulate in place, as Unsloth's and Axolotl's kernels do, and
what is cheap to compute again (a cast weight, an activation) is not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from torch.autograd.function import once_differentiable
from transformers.pytorch_utils import Conv1D


@dataclass(frozen=True, eq=False)
class Projection:
    """A frozen linear layer (torch's, GPT-2's or one in 4 bit), with LoRA's factors A (r, I) and B (O, r) if any."""

    base: Any
    factors: tuple[torch.Tensor, torch.Tensor] | None = None
    scale: float = 1.0

    def weight(self, dtype: torch.dtype) -> torch.Tensor:
        """(O, I). Of a layer in 4 bit, or in another dtype, a copy that nobody keeps."""
        if type(self.base) is Linear4bit:
            packed = self.base.weight
            # Put together from shards, the parameter is a plain one; its layer knows how it was quantised.
            state = getattr(packed, "quant_state", None) or self.base.quant_state
            weight: torch.Tensor = dequantize_4bit(packed.data, state)
        else:
            weight = self.base.weight.t() if type(self.base) is Conv1D else self.base.weight
        return weight.to(dtype)

    def product(self, rows: torch.Tensor) -> torch.Tensor:
        """rows (N, I) -> (N, O), without the adapter."""
        weight, bias = self.weight(rows.dtype).t(), self.base.bias
        return torch.mm(rows, weight) if bias is None else torch.addmm(bias.to(rows.dtype), rows, weight)


def project(x: torch.Tensor, *layers: Projection) -> tuple[torch.Tensor, ...]:
    """``x`` (..., I) through layers side by side: (..., O) of each.

    Computes in ``x``'s dtype, or inside autocast in its dtype; A and B may be kept in float32.
    """
    found: tuple[torch.Tensor, ...] = differentiable(_Project, x, layers, *_factors(layers))
    return found


def gated_project(gate: torch.Tensor, up: torch.Tensor, activation: Activation, layer: Projection) -> torch.Tensor:
    """``layer(activation(gate) * up)`` (..., O) for (..., I). The product is computed again in the backward."""
    found: torch.Tensor = differentiable(_GatedProject, gate, up, activation, layer, *_factors([layer]))
    return found


def rms_norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float, offset: float) -> torch.Tensor:
    """``x / sqrt(mean(x^2) + epsilon) * (weight + offset)`` over the last dimension, in float32 inside.

    ``offset``: 0 for Llama's RMSNorm, 1 for Gemma's.
    """
    found: torch.Tensor = differentiable(_RmsNorm, x, weight, epsilon, offset)
    return found


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding (Su et al. 2021), in halves as transformers does it.

    ``x`` (B, T, h, D); ``cos`` and ``sin`` (1 or B, T, D).
    """
    found: torch.Tensor = differentiable(_Rotate, x, cos.unsqueeze(2), sin.unsqueeze(2))
    return found


def compute_dtype(x: torch.Tensor) -> torch.dtype:
    """Autocast's dtype inside it, else that of ``x``."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def differentiable(function: type[torch.autograd.Function], *arguments: Any) -> Any:
    """``function.apply``, which torch leaves without types."""
    return function.apply(*arguments)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Activation:
    """A pointwise function, and its gradient: (gradient of the output, input) -> gradient of the input."""

    forward: Callable[[torch.Tensor], torch.Tensor]
    backward: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


SILU = Activation(torch.nn.functional.silu, torch.ops.aten.silu_backward)
GELU = Activation(torch.nn.functional.gelu, torch.ops.aten.gelu_backward)
GELU_TANH = Activation(
    lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    lambda gradient, x: torch.ops.aten.gelu_backward(gradient, x, approximate="tanh"),
)


class _Lora:
    """The adapters of layers side by side: their A as one matrix, their scaled B, both in the compute dtype."""

    def __init__(self, layers: Sequence[Projection], factors: Sequence[torch.Tensor], dtype: torch.dtype) -> None:
        self.layers = [layer for layer in layers if layer.factors is not None]
        self.dtypes = [factor.dtype for factor in factors]
        a, b = factors[::2], factors[1::2]
        self.ranks = [len(one) for one in a]
        self.a = torch.cat([one.to(dtype) for one in a]) if a else None  # R I
        self.b = [(one * layer.scale).to(dtype) for one, layer in zip(b, self.layers, strict=True)]  # O r

    def inner(self, rows: torch.Tensor) -> torch.Tensor | None:
        """rows (N, I) -> (N, R)."""
        return None if self.a is None else torch.mm(rows, self.a.t())

    def add(self, outs: Sequence[torch.Tensor], inner: torch.Tensor | None) -> None:
        """Add what the adapters give to the outputs (N, O) of their layers."""
        if inner is not None:
            for out, part, b in zip(outs, torch.split(inner, self.ranks, 1), self.b, strict=True):
                out.addmm_(part, b.t())

    def d_inner(self, d_outs: Sequence[torch.Tensor]) -> torch.Tensor | None:
        """Gradient of ``inner`` (N, R)."""
        parts = [torch.mm(d_out, b) for d_out, b in zip(d_outs, self.b, strict=True)]
        return None if not parts else parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def gradients(
        self,
        rows: torch.Tensor,
        inner: torch.Tensor | None,
        d_outs: Sequence[torch.Tensor],
        d_inner: torch.Tensor | None,
    ) -> list[torch.Tensor]:
        """Of A and B of each layer, in turn."""
        if inner is None or d_inner is None:
            return []
        d_a = torch.split(torch.mm(d_inner.t(), rows), self.ranks)
        d_b = [
            torch.mm(d_out.t(), part).to(dtype).mul_(layer.scale)
            for layer, d_out, part, dtype in zip(
                self.layers, d_outs, torch.split(inner, self.ranks, 1), self.dtypes[1::2], strict=True
            )
        ]
        pairs = zip(d_a, self.dtypes[::2], d_b, strict=True)
        return [gradient for one_a, dtype, one_b in pairs for gradient in (one_a.to(dtype), one_b)]


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layers: Sequence[Projection], *factors: torch.Tensor) -> Any:
        dtype = compute_dtype(x)  # asked before autocast is switched off
        with torch.autocast(x.device.type, enabled=False):
            rows = x.reshape(-1, x.shape[-1]).to(dtype)
            lora = _Lora(layers, factors, rows.dtype)
            inner = lora.inner(rows)
            outs = [layer.product(rows) for layer in layers]
            lora.add(_adapted(layers, outs), inner)
        ctx.save_for_backward(rows, inner)
        ctx.layers, ctx.lora, ctx.shape, ctx.dtype = layers, lora, x.shape, x.dtype
        return tuple(out.view(*x.shape[:-1], -1) for out in outs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *d_outs: torch.Tensor) -> Any:
        rows, inner = ctx.saved_tensors
        flat = [d_out.reshape(-1, d_out.shape[-1]) for d_out in d_outs]
        adapted = _adapted(ctx.layers, flat)
        d_inner = ctx.lora.d_inner(adapted)
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = _d_rows(ctx.layers, flat, ctx.lora, d_inner).view(ctx.shape).to(ctx.dtype)
        return d_x, None, *ctx.lora.gradients(rows, inner, adapted, d_inner)


class _GatedProject(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        gate: torch.Tensor,
        up: torch.Tensor,
        activation: Activation,
        layer: Projection,
        *factors: torch.Tensor,
    ) -> torch.Tensor:
        dtype = compute_dtype(gate)  # asked before autocast is switched off
        with torch.autocast(gate.device.type, enabled=False):
            rows = activation.forward(gate).mul_(up).view(-1, gate.shape[-1]).to(dtype)
            lora = _Lora([layer], factors, rows.dtype)
            inner = lora.inner(rows)
            out = layer.product(rows)
            lora.add([out] if factors else [], inner)
        ctx.save_for_backward(gate, up, inner)
        ctx.activation, ctx.layer, ctx.lora = activation, layer, lora
        return out.view(*gate.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: torch.Tensor) -> Any:
        gate, up, inner = ctx.saved_tensors
        flat = [d_out.reshape(-1, d_out.shape[-1])]
        adapted = flat if inner is not None else []
        d_inner = ctx.lora.d_inner(adapted)
        d_rows = _d_rows([ctx.layer], flat, ctx.lora, d_inner).view(gate.shape).to(gate.dtype)
        d_up = ctx.activation.forward(gate)
        rows = (d_up * up).view(-1, gate.shape[-1]).to(d_out.dtype) if adapted else None
        gradients = ctx.lora.gradients(rows, inner, adapted, d_inner)
        del rows
        d_up.mul_(d_rows)
        d_gate = ctx.activation.backward(d_rows.mul_(up), gate)
        return d_gate, d_up, None, None, *gradients


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float, offset: float) -> torch.Tensor:
        wide = x.to(torch.float32, copy=True)
        size = x.shape[-1]
        inverse = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(size).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        ctx.offset = offset
        return wide.mul_(inverse).mul_(weight.float() + offset).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: torch.Tensor) -> Any:
        x, weight, inverse = ctx.saved_tensors
        wide = x.float()
        d_weight = None
        if ctx.needs_input_grad[1]:
            d_weight = (d_out * (wide * inverse)).view(-1, x.shape[-1]).sum(0).to(weight.dtype)
        d_wide = d_out.to(torch.float32, copy=True).mul_(weight.float() + ctx.offset)
        along = (d_wide * wide).sum(-1, keepdim=True).mul_(inverse.pow(3)).div_(-x.shape[-1])
        return d_wide.mul_(inverse).addcmul_(wide, along).to(x.dtype), d_weight, None, None


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        half = x.shape[-1] // 2
        signed = torch.cat((-sin[..., :half], sin[..., half:]), -1)
        ctx.save_for_backward(cos, torch.roll(signed, half, -1))
        ctx.half = half
        return (x * cos).addcmul_(torch.roll(x, half, -1), signed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: torch.Tensor) -> Any:
        cos, signed = ctx.saved_tensors
        return (d_out * cos).addcmul_(torch.roll(d_out, ctx.half, -1), signed), None, None


def _factors(layers: Sequence[Projection]) -> list[torch.Tensor]:
    return [factor for layer in layers if layer.factors is not None for factor in layer.factors]


def _adapted(layers: Sequence[Projection], tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Of one tensor per layer, those of layers with an adapter."""
    return [tensor for layer, tensor in zip(layers, tensors, strict=True) if layer.factors is not None]


def _d_rows(
    layers: Sequence[Projection], d_outs: Sequence[torch.Tensor], lora: _Lora, d_inner: torch.Tensor | None
) -> torch.Tensor:
    """Gradient of the input (N, I)."""
    d_rows = torch.mm(d_outs[0], layers[0].weight(d_outs[0].dtype))
    for layer, d_out in zip(layers[1:], d_outs[1:], strict=True):
        d_rows.addmm_(d_out, layer.weight(d_out.dtype))
    return d_rows if d_inner is None or lora.a is None else d_rows.addmm_(d_inner, lora.a)
