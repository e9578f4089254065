"""Attention and norms as single operations, with the footprint of the fused GPU kernels.

PyTorch's own functions decompose on the CPU and the meta device and then keep tensors that no GPU kernel keeps: a
7B model would seem to save three times what it does. These operations save what flash attention (Dao, 2307.08691,
section 3.1: output and log-sum-exp) and a fused norm (input and reciprocal deviation) save, and compute real values,
in small pieces, on any device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

BLOCK = 256
"""Rows that are worked on at a time."""
ROTARY_BASE = 10_000.0  # Su et al., 2104.09864, section 3.2.2
NORM_EPSILON = 1e-6


def rotate(x: Tensor, sign: int) -> Tensor:
    """Rotary positions on (..., sequence, head_dim); `sign` -1 undoes them."""
    half = x.shape[-1] // 2
    rates = ROTARY_BASE ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angles = torch.arange(x.shape[-2], device=x.device, dtype=torch.float32)[:, None] * rates
    cosine, sine = angles.cos().to(x.dtype), sign * angles.sin().to(x.dtype)
    left, right = x[..., :half], x[..., half:]
    return torch.cat((left * cosine - right * sine, left * sine + right * cosine), dim=-1)


@dataclass(frozen=True, slots=True)
class _Heads:
    """The part of packed projections, or of their gradients, that one key-value head of one sequence has."""

    queries: Tensor
    """(queries of each key, sequence, head_dim)"""
    keys: Tensor
    """(sequence, head_dim)"""
    values: Tensor
    chosen: tuple[int, slice]
    """The sequence, and the heads of the result."""


def _by_head(packed: Tensor, heads: int, kv_heads: int) -> Iterator[_Heads]:
    """Views, one key-value head at a time, so that little is alive beside the tensors that a fused kernel has too."""
    split = packed.unflatten(-1, (heads + 2 * kv_heads, -1)).transpose(1, 2)
    each = heads // kv_heads
    for sequence, head in product(range(packed.shape[0]), range(kv_heads)):
        part, chosen = split[sequence], slice(head * each, (head + 1) * each)
        keys, values = part[heads + head], part[heads + kv_heads + head]
        yield _Heads(part[chosen], keys, values, (sequence, chosen))


def _blocks(length: int) -> Iterator[slice]:
    return (slice(begin, min(begin + BLOCK, length)) for begin in range(0, length, BLOCK))


def _scores(queries: Tensor, keys: Tensor, rows: slice) -> Tensor:
    """Of a block of queries with the keys up to it -> (queries of each key, block, keys), at least float32."""
    keys, columns = keys[: rows.stop], torch.arange(rows.stop, device=keys.device)
    products = queries[:, rows] @ keys.mT
    wide = products.to(torch.promote_types(products.dtype, torch.float32)) * keys.shape[-1] ** -0.5
    masked: Tensor = wide.masked_fill_(columns > columns[rows, None], -torch.inf)
    return masked


@torch.library.custom_op("scalecli::attention", mutates_args=())
def attention(packed: Tensor, heads: int, kv_heads: int) -> tuple[Tensor, Tensor]:
    """Causal attention with rotary positions over packed queries, keys and values -> output, log-sum-exp [float32]."""
    batch, length, width = packed.shape
    out = packed.new_empty(batch, length, heads, width // (heads + 2 * kv_heads))
    logsumexp = packed.new_empty(batch, heads, length, dtype=torch.float32)
    for part in _by_head(packed, heads, kv_heads):
        queries, keys = rotate(part.queries, 1), rotate(part.keys, 1)
        sequence, chosen = part.chosen
        for rows in _blocks(length):
            scores = _scores(queries, keys, rows)
            top = scores.logsumexp(-1)
            shares = (scores - top[..., None]).exp().to(packed.dtype)
            out[sequence, rows, chosen] = (shares @ part.values[: rows.stop]).transpose(0, 1)
            logsumexp[sequence, chosen, rows] = top.float()
    return out.flatten(2), logsumexp


@attention.register_fake
def attention_result(packed: Tensor, heads: int, kv_heads: int) -> tuple[Tensor, Tensor]:
    """Room for output and log-sum-exp."""
    batch, length, width = packed.shape
    out = packed.new_empty(batch, length, heads * (width // (heads + 2 * kv_heads)))
    return out, packed.new_empty(batch, heads, length, dtype=torch.float32)


@torch.library.custom_op("scalecli::attention_backward", mutates_args=())
def attention_backward(
    grad: Tensor, packed: Tensor, out: Tensor, logsumexp: Tensor, heads: int, kv_heads: int
) -> Tensor:
    """Gradient of `attention` for the packed input."""
    made = torch.empty_like(packed)
    d_out, out = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (grad, out))
    for part, d_part in zip(_by_head(packed, heads, kv_heads), _by_head(made, heads, kv_heads), strict=True):
        queries, keys = rotate(part.queries, 1), rotate(part.keys, 1)
        d_queries, d_keys, d_values = (torch.zeros_like(x) for x in (queries, keys, part.values))
        for rows in _blocks(packed.shape[1]):
            at, seen = (*part.chosen, rows), slice(rows.stop)
            shares = (_scores(queries, keys, rows) - logsumexp[at][..., None]).exp()
            d_shares = (d_out[at] @ part.values[seen].mT).to(shares.dtype)
            mean = (d_out[at] * out[at]).sum(-1, keepdim=True, dtype=shares.dtype)
            d_scores = (shares * (d_shares - mean) * keys.shape[-1] ** -0.5).to(packed.dtype)
            d_queries[:, rows] = d_scores @ keys[seen]
            d_keys[seen] += (d_scores.mT @ queries[:, rows]).sum(0)
            d_values[seen] += (shares.to(packed.dtype).mT @ d_out[at]).sum(0)
        d_part.queries.copy_(rotate(d_queries, -1))
        d_part.keys.copy_(rotate(d_keys, -1))
        d_part.values.copy_(d_values)
    return made


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
    out, rstd = torch.empty_like(x), x.new_empty(*x.shape[:-1], 1, dtype=torch.float32)
    for part, out_part, rstd_part in zip(*map(_rows, (x, out, rstd)), strict=True):
        wide = part.float()
        rstd_part.copy_(torch.rsqrt(wide.square().mean(-1, keepdim=True) + NORM_EPSILON))
        out_part.copy_(wide * rstd_part * weight)
    return out, rstd


def _rows(x: Tensor) -> tuple[Tensor, ...]:
    """Views of some rows at a time, so that little is alive beside the tensors that a fused kernel has too."""
    views: tuple[Tensor, ...] = x.flatten(0, -2).split(BLOCK)
    return views


@rms_norm.register_fake
def _(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(*x.shape[:-1], 1, dtype=torch.float32)


@torch.library.custom_op("scalecli::rms_norm_backward", mutates_args=())
def rms_norm_backward(
    grad: Tensor, x: Tensor, weight: Tensor, rstd: Tensor, trained: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of `rms_norm` for input and weight; none for the weight if it is not trained."""
    d_x, d_weight = torch.empty_like(x), torch.zeros_like(weight, dtype=torch.float32)
    for incoming, part, rstd_part, d_part in zip(*map(_rows, (grad, x, rstd, d_x)), strict=True):
        normal = part.float() * rstd_part
        scaled = incoming.float() * weight
        d_part.copy_(rstd_part * (scaled - normal * (scaled * normal).mean(-1, keepdim=True)))
        d_weight += (incoming * normal).sum(0)
    return d_x, d_weight.to(weight.dtype) if trained else weight.new_empty(0)


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
