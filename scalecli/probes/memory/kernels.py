"""Attention and norms as single operations, with the footprint of the fused GPU kernels.

PyTorch's own functions decompose on the CPU and the meta device and then keep tensors that no GPU kernel keeps: a
7B model would seem to save three times what it does. These operations save what flash attention (Dao, 2307.08691,
section 3.1: output and log-sum-exp) and a fused norm (input and reciprocal deviation) save, and compute real values
on the CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ROTARY_BASE = 10_000.0  # Su et al., 2104.09864, section 3.2.2
NORM_EPSILON = 1e-6


def rotate(x: Tensor, sign: int) -> Tensor:
    """Rotary positions on (batch, heads, sequence, head_dim); `sign` -1 undoes them."""
    half = x.shape[-1] // 2
    rates = ROTARY_BASE ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angles = torch.arange(x.shape[-2], device=x.device, dtype=torch.float32)[:, None] * rates
    cosine, sine = angles.cos().to(x.dtype), sign * angles.sin().to(x.dtype)
    left, right = x[..., :half], x[..., half:]
    return torch.cat((left * cosine - right * sine, left * sine + right * cosine), dim=-1)


def _heads_first(packed: Tensor, heads: int, kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(batch, sequence, (heads + 2 kv_heads) head_dim) -> queries, keys, values with equally many heads."""
    batch, length, width = packed.shape
    split = packed.view(batch, length, heads + 2 * kv_heads, width // (heads + 2 * kv_heads)).transpose(1, 2)
    queries, keys, values = split.split((heads, kv_heads, kv_heads), dim=1)
    repeat = heads // kv_heads
    return (
        rotate(queries, 1),
        rotate(keys, 1).repeat_interleave(repeat, dim=1),
        values.repeat_interleave(repeat, dim=1),
    )


@torch.library.custom_op("scalecli::attention", mutates_args=())
def attention(packed: Tensor, heads: int, kv_heads: int) -> tuple[Tensor, Tensor]:
    """Causal attention with rotary positions over packed queries, keys and values -> output, log-sum-exp [float32]."""
    queries, keys, values = _heads_first(packed, heads, kv_heads)
    out, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        queries, keys, values, 0.0, is_causal=True
    )
    return out.transpose(1, 2).flatten(2).contiguous(), logsumexp.clone()


@attention.register_fake
def _(packed: Tensor, heads: int, kv_heads: int) -> tuple[Tensor, Tensor]:
    batch, length, width = packed.shape
    head_dim = width // (heads + 2 * kv_heads)
    out = packed.new_empty(batch, length, heads * head_dim)
    return out, packed.new_empty(batch, heads, length, dtype=torch.float32)


@torch.library.custom_op("scalecli::attention_backward", mutates_args=())
def attention_backward(
    grad: Tensor, packed: Tensor, out: Tensor, logsumexp: Tensor, heads: int, kv_heads: int
) -> Tensor:
    """Gradient of `attention` for the packed input."""
    batch, length, _ = packed.shape
    queries, keys, values = _heads_first(packed, heads, kv_heads)

    def by_head(x: Tensor) -> Tensor:
        split: Tensor = x.view(batch, length, heads, -1).transpose(1, 2)
        return split

    d_queries, d_keys, d_values = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        by_head(grad), queries, keys, values, by_head(out), logsumexp, 0.0, True
    )

    def shared(x: Tensor) -> Tensor:
        summed: Tensor = x.unflatten(1, (kv_heads, heads // kv_heads)).sum(2)
        return summed

    gradients = torch.cat((rotate(d_queries, -1), rotate(shared(d_keys), -1), shared(d_values)), dim=1)
    packed_gradient: Tensor = gradients.transpose(1, 2).flatten(2).contiguous()
    return packed_gradient


@attention_backward.register_fake
def _(grad: Tensor, packed: Tensor, out: Tensor, logsumexp: Tensor, heads: int, kv_heads: int) -> Tensor:
    return torch.empty_like(packed)


def _attention_context(ctx: Any, inputs: tuple[Tensor, int, int], output: tuple[Tensor, Tensor]) -> None:
    packed, ctx.heads, ctx.kv_heads = inputs
    ctx.save_for_backward(packed, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _attention_gradient(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor, None, None]:
    d_packed: Tensor = attention_backward(grad, *ctx.saved_tensors, ctx.heads, ctx.kv_heads)
    return d_packed, None, None


attention.register_autograd(_attention_gradient, setup_context=_attention_context)


@torch.library.custom_op("scalecli::rms_norm", mutates_args=())
def rms_norm(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """x / rms(x) * weight over the last axis -> output in the input's type, reciprocal rms [float32]."""
    wide = x.float()
    rstd = torch.rsqrt(wide.square().mean(-1, keepdim=True) + NORM_EPSILON)
    return (wide * rstd * weight).to(x.dtype), rstd


@rms_norm.register_fake
def _(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(*x.shape[:-1], 1, dtype=torch.float32)


@torch.library.custom_op("scalecli::rms_norm_backward", mutates_args=())
def rms_norm_backward(
    grad: Tensor, x: Tensor, weight: Tensor, rstd: Tensor, trained: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of `rms_norm` for input and weight; none for the weight if it is not trained."""
    normal = x.float() * rstd
    scaled = grad.float() * weight
    d_x = rstd * (scaled - normal * (scaled * normal).mean(-1, keepdim=True))
    d_weight = (grad * normal).flatten(0, -2).sum(0) if trained else weight.new_empty(0)
    return d_x.to(x.dtype), d_weight.to(weight.dtype)


@rms_norm_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, rstd: Tensor, trained: bool) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), weight.new_empty(weight.shape if trained else (0,))


def _norm_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _norm_gradient(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor, Tensor | None]:
    trained = ctx.needs_input_grad[1]
    d_x, d_weight = rms_norm_backward(grad, *ctx.saved_tensors, trained)
    return d_x, d_weight if trained else None


rms_norm.register_autograd(_norm_gradient, setup_context=_norm_context)
