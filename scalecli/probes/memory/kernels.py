"""Attention and norms as single operations, with the footprint of the fused GPU kernels.

PyTorch's own functions decompose on the CPU and the meta device and then keep tensors that no GPU kernel keeps: a
7B model would seem to save three times what it does. These operations save what flash attention (Dao, 2307.08691,
section 3.1: output and log-sum-exp) and a fused norm (input and reciprocal deviation) save, and compute real values,
in small pieces, on any device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ROWS = 256
"""Of a norm, worked on at a time."""
PIECE = 1 / 4
"""Bytes of attention scores that are alive at a time, over those of the packed projections."""
ROTARY_BASE = 10_000.0  # Su et al., 2104.09864, section 3.2.2
NORM_EPSILON = 1e-6


def rotation(length: int, head_dim: int, like: Tensor) -> Tensor:
    """Cosines and sines of rotary positions -> (2, length, head_dim / 2)."""
    half = head_dim // 2
    rates = ROTARY_BASE ** (-torch.arange(half, device=like.device, dtype=torch.float32) / half)
    angles = torch.arange(length, device=like.device, dtype=torch.float32)[:, None] * rates
    return torch.stack((angles.cos(), angles.sin())).to(like.dtype)


def rotate(x: Tensor, turn: Tensor, sign: int) -> Tensor:
    """Rotary positions on (..., sequence, head_dim); `sign` -1 undoes them."""
    cosine, sine = turn[0], sign * turn[1]
    left, right = x.chunk(2, dim=-1)
    return torch.cat((left * cosine - right * sine, left * sine + right * cosine), dim=-1)


@dataclass(frozen=True, slots=True)
class _Sequence:
    """What one sequence has of packed projections, or of their gradients: views."""

    queries: Tensor
    """(heads, sequence, head_dim)"""
    keys: Tensor
    """(key-value heads, sequence, head_dim)"""
    values: Tensor


def _by_sequence(packed: Tensor, heads: int, kv_heads: int) -> Iterator[_Sequence]:
    for split in packed.unflatten(-1, (heads + 2 * kv_heads, -1)).transpose(1, 2):
        yield _Sequence(*split.split((heads, kv_heads, kv_heads)))


def _pieces(packed: Tensor, heads: int) -> Iterator[slice]:
    """Rows whose scores take little beside the tensors that a fused kernel has too."""
    length = packed.shape[1]
    of_a_row = heads * length * 4  # float32
    rows = max(1, int(PIECE * packed.numel() * packed.element_size()) // of_a_row)
    return (slice(begin, min(begin + rows, length)) for begin in range(0, length, rows))


def _grouped(x: Tensor, kv_heads: int) -> Tensor:
    """(heads, rows, n) -> (key-value heads, queries of each x rows, n)."""
    groups: Tensor = x.unflatten(0, (kv_heads, -1))
    return groups.flatten(1, 2)


def _scores(queries: Tensor, keys: Tensor, rows: slice) -> Tensor:
    """Of these rows (heads, rows, head_dim) with the keys up to them -> (heads, rows, keys), at least float32."""
    keys, columns = keys[:, : rows.stop], torch.arange(rows.stop, device=keys.device)
    products = (_grouped(queries, len(keys)) @ keys.mT).unflatten(1, (-1, queries.shape[1])).flatten(0, 1)
    wide = products.to(torch.promote_types(products.dtype, torch.float32)) * keys.shape[-1] ** -0.5
    masked: Tensor = wide.masked_fill_(columns > columns[rows, None], -torch.inf)
    return masked


def _mixed(shares: Tensor, values: Tensor) -> Tensor:
    """(heads, rows, keys) of values (key-value heads, keys, head_dim) -> (heads, rows, head_dim)."""
    groups: Tensor = (_grouped(shares, len(values)) @ values).unflatten(1, (-1, shares.shape[1]))
    return groups.flatten(0, 1)


@torch.library.custom_op("scalecli::attention", mutates_args=())
def attention(packed: Tensor, heads: int, kv_heads: int) -> tuple[Tensor, Tensor]:
    """Causal attention with rotary positions over packed queries, keys and values -> output, log-sum-exp [float32]."""
    batch, length, width = packed.shape
    head_dim = width // (heads + 2 * kv_heads)
    out = packed.new_empty(batch, length, heads, head_dim)
    logsumexp = packed.new_empty(batch, heads, length, dtype=torch.float32)
    turn = rotation(length, head_dim, packed)
    for part, out_part, top_part in zip(
        _by_sequence(packed, heads, kv_heads), out.transpose(1, 2), logsumexp, strict=True
    ):
        keys = rotate(part.keys, turn, 1)
        for rows in _pieces(packed, heads):
            scores = _scores(rotate(part.queries[:, rows], turn[:, rows], 1), keys, rows)
            top = scores.logsumexp(-1)
            top_part[:, rows] = top
            shares = scores.sub_(top[..., None]).exp_().to(packed.dtype)
            out_part[:, rows] = _mixed(shares, part.values[:, : rows.stop])
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
    turn = rotation(packed.shape[1], d_out.shape[-1], packed)
    for sequence, (part, d_part) in enumerate(
        zip(_by_sequence(packed, heads, kv_heads), _by_sequence(made, heads, kv_heads), strict=True)
    ):
        keys = rotate(part.keys, turn, 1)
        d_keys = torch.zeros_like(keys)
        d_part.values.zero_()
        for rows in _pieces(packed, heads):
            at, seen = (sequence, slice(None), rows), (slice(None), slice(rows.stop))
            queries = rotate(part.queries[:, rows], turn[:, rows], 1)
            shares = _scores(queries, keys, rows).sub_(logsumexp[at][..., None]).exp_()
            d_shares = _mixed(d_out[at], part.values[seen].mT).to(shares.dtype)
            mean = (d_out[at] * out[at]).sum(-1, keepdim=True, dtype=shares.dtype)
            d_scores = d_shares.sub_(mean).mul_(shares).mul_(keys.shape[-1] ** -0.5).to(packed.dtype)
            d_part.queries[:, rows] = rotate(_mixed(d_scores, keys[seen]), turn[:, rows], -1)
            d_keys[seen] += _grouped(d_scores, kv_heads).mT @ _grouped(queries, kv_heads)
            d_part.values[seen] += _grouped(shares.to(packed.dtype), kv_heads).mT @ _grouped(
                d_out[at], kv_heads
            )
        d_part.keys.copy_(rotate(d_keys, turn, -1))
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
    views: tuple[Tensor, ...] = x.flatten(0, -2).split(ROWS)
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
