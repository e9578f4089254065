"""Operations with the tensors of kernels that this machine may not have, for tracing: shapes and bytes, no values.

A weight is a matrix (outputs, inputs), or a stack of them (stack, inputs, outputs) that is multiplied with a stack of
rows.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from scalecli.accounting.memory.contrastive import contrastive_bytes
from scalecli.probes.memory.collectives import applied, gathered, scattered
from scalecli.probes.memory.kernels import attention_result
from scalecli.probes.memory.packing import copied

Gradient = Tensor | None


def stored_attention(packed: Tensor, heads: int, kv_heads: int, attended: int, *, dropped: bool) -> Tensor:
    """Attention over packed queries, keys and values that keeps its scores' softmax, and what dropout makes of it."""
    return applied(_StoredAttention, packed, heads, kv_heads, attended, dropped)


def ring_attention(packed: Tensor, heads: int, kv_heads: int) -> Tensor:
    """Flash attention while keys and values of other ranks come in, and their gradients go round in backward."""
    return applied(_RingAttention, packed, heads, kv_heads)


def eight_bit_product(x: Tensor, weight: Tensor, bias: Tensor | None, ranks: int) -> Tensor:
    """A product of operands in one byte a value, which are what backward reads."""
    return applied(_EightBitProduct, x, weight, bias, ranks)


def quantised_product(x: Tensor, weight: Tensor, bias: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    """A product with a frozen weight of that shape, which is dequantised for it and again in backward."""
    return applied(_QuantisedProduct, x, weight, bias, shape)


def sampled_product(x: Tensor, weight: Tensor, bias: Tensor | None, share: float) -> Tensor:
    """A product that keeps a sample of the rows of x for the gradient of the weights."""
    return applied(_SampledProduct, x, weight, bias, share)


def contrast(hidden: Tensor, pairs: int, tile: int | None) -> Tensor:
    """A contrastive loss over as many pairs, whole or in tiles."""
    return applied(_Contrast, hidden, contrastive_bytes(pairs, tile=tile))


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """With a matrix, or a stack of them."""
    return torch.bmm(x, weight) if weight.ndim == 3 else F.linear(x, weight, bias)


class _Contrast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, size: int) -> Tensor:
        ctx.size = size
        ctx.save_for_backward(hidden)
        loss = hidden.new_empty((), dtype=torch.float32)
        similarities = hidden.new_empty(size, dtype=torch.uint8)
        del similarities
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (hidden,) = ctx.saved_tensors
        d_hidden = torch.empty_like(hidden)
        similarities = hidden.new_empty(ctx.size, dtype=torch.uint8)
        del similarities
        return d_hidden, None


class _StoredAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, packed: Tensor, heads: int, kv_heads: int, attended: int, dropped: bool) -> Tensor:
        batch, length, width = packed.shape
        scores = packed.new_empty(batch, heads, length, attended)
        kept = [torch.empty_like(scores)]
        if dropped:
            kept += [torch.empty_like(scores, dtype=torch.bool), torch.empty_like(scores)]
        ctx.save_for_backward(packed, *kept)
        return packed.new_empty(batch, length, heads * (width // (heads + 2 * kv_heads)))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        packed, chances, *_ = ctx.saved_tensors
        d_packed = torch.empty_like(packed)
        passing = torch.empty_like(chances), torch.empty_like(chances)
        del passing
        return d_packed, None, None, None, None


class _RingAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, packed: Tensor, heads: int, kv_heads: int) -> Tensor:
        out: Tensor
        out, logsumexp = ring_result(packed, heads, kv_heads)
        ctx.columns = packed.shape[-1] - out.shape[-1]
        passing = torch.empty_like(out), packed.new_empty(*packed.shape[:-1], ctx.columns)
        del passing
        ctx.save_for_backward(packed, out, logsumexp)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        packed, out, _ = ctx.saved_tensors
        d_packed, rows = torch.empty_like(packed), packed.shape[:-1]
        passing = [torch.empty_like(out), *(packed.new_empty(*rows, ctx.columns) for _ in range(3))]
        del passing
        return d_packed, None, None


@torch.library.custom_op("scalecli::ring_result", mutates_args=())
def ring_result(packed: Tensor, heads: int, kv_heads: int) -> tuple[Tensor, Tensor]:
    """What ring attention makes: one operation, which recomputation can keep. Values are never computed."""
    raise AssertionError("only for the meta device")


ring_result.register_fake(attention_result)


class _EightBitProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, ranks: int) -> Tensor:
        narrow, narrow_weight = x.to(torch.float8_e4m3fn), copied(weight, torch.float8_e4m3fn)
        ctx.ranks, ctx.shape = ranks, weight.shape
        ctx.save_for_backward(
            narrow if weight.requires_grad else None, narrow_weight if x.requires_grad else None
        )
        whole = gathered(narrow, ranks) if ranks > 1 else narrow
        result: Tensor = eight_bit_result(whole, x, _sides(weight.shape)[1])
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Gradient, Gradient, Gradient, None]:
        narrow, _ = ctx.saved_tensors
        d_x = d_weight = None
        passing = [grad.to(torch.float8_e5m2)]
        if ctx.needs_input_grad[1]:
            passing += [gathered(narrow, ctx.ranks)] if ctx.ranks > 1 else []
            d_weight = grad.new_empty(ctx.shape)
        if ctx.needs_input_grad[0]:
            d_x = grad.new_empty(*grad.shape[:-1], _sides(ctx.shape)[0])
            passing.append(d_x)
            d_x = scattered(d_x, ctx.ranks) if ctx.ranks > 1 else d_x
        return d_x, d_weight, _d_bias(ctx, grad), None


@torch.library.custom_op("scalecli::eight_bit_result", mutates_args=())
def eight_bit_result(x: Tensor, like: Tensor, outputs: int) -> Tensor:
    """What a product of rows x makes, in the type of `like`: one operation, which recomputation can keep."""
    return like.new_empty(*x.shape[:-1], outputs)


@eight_bit_result.register_fake
def _(x: Tensor, like: Tensor, outputs: int) -> Tensor:
    return like.new_empty(*x.shape[:-1], outputs)


class _QuantisedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, shape: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape = shape
        return product(x, x.new_empty(shape), bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Gradient, None, Gradient, None]:
        (_weight,) = ctx.saved_tensors  # what is recomputed is recomputed now
        d_x = None
        if ctx.needs_input_grad[0]:
            dequantised = grad.new_empty(ctx.shape)
            d_x = grad.new_empty(*grad.shape[:-1], _sides(ctx.shape)[0])
            del dequantised
        return d_x, None, _d_bias(ctx, grad), None


class _SampledProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, share: float) -> Tensor:
        rows = x.numel() // x.shape[-1]
        kept = ceil(rows * share)
        ctx.shape = weight.shape
        ctx.save_for_backward(
            x.new_empty(kept, x.shape[-1]), x.new_empty(kept, dtype=torch.int64), weight if x.requires_grad else None
        )  # fmt: skip
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Gradient, Gradient, Gradient, None]:
        sample, *_ = ctx.saved_tensors
        chosen = grad.new_empty(sample.shape[0], grad.shape[-1])
        d_weight = grad.new_empty(ctx.shape) if ctx.needs_input_grad[1] else None
        d_x = grad.new_empty(*grad.shape[:-1], sample.shape[-1]) if ctx.needs_input_grad[0] else None
        del chosen
        return d_x, d_weight, _d_bias(ctx, grad), None


def _sides(shape: tuple[int, ...]) -> tuple[int, int]:
    """(inputs, outputs) of a weight."""
    return (shape[1], shape[2]) if len(shape) == 3 else (shape[1], shape[0])


def _d_bias(ctx: Any, grad: Tensor) -> Gradient:
    """Gradient of the bias, which is the third input."""
    return grad.flatten(0, -2).sum(0) if ctx.needs_input_grad[2] else None
