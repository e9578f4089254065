"""Collectives between ranks as operations that make tensors of the right size, for tracing one rank without others.

They need no process group and compute no values: what a rank receives is uninitialised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Collective = Callable[[Tensor, int], Tensor]


def gather(x: Tensor, ranks: int) -> Tensor:
    """The parts of a sequence that `ranks` ranks hold, put together."""
    return applied(_Resized, x, ranks, gathered, scattered) if ranks > 1 else x


def scatter(x: Tensor, ranks: int) -> Tensor:
    """This rank's part of the sequence, of the sum of all ranks' tensors."""
    return applied(_Resized, x, ranks, scattered, gathered) if ranks > 1 else x


def exchange(x: Tensor) -> Tensor:
    """Equally many rows from every rank for every rank (all-to-all)."""
    return applied(_Exchange, x)


def gathered_product(x: Tensor, weight: Tensor, bias: Tensor | None, ranks: int) -> Tensor:
    """A product with the sequence that `ranks` ranks hold parts of; this one keeps its own part only."""
    if ranks == 1:
        return torch.nn.functional.linear(x, weight, bias)
    return applied(_GatheredProduct, x, weight, bias, ranks)


def applied(function: type[torch.autograd.Function], *inputs: object) -> Tensor:
    """The result of an operation with a backward of its own."""
    result: Tensor = function.apply(*inputs)
    return result


class _Resized(torch.autograd.Function):
    """What `there` makes of a tensor between `ranks` ranks; backward takes the gradient `back`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: int, there: Collective, back: Collective) -> Tensor:
        ctx.ranks, ctx.back = ranks, back
        return there(x, ranks)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, None]:
        return ctx.back(grad, ctx.ranks), None, None, None


class _Exchange(torch.autograd.Function):
    """Equally many rows from every rank for every rank (all-to-all)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return torch.empty_like(grad)


class _GatheredProduct(torch.autograd.Function):
    """A product with the gathered sequence, which is kept in parts and gathered again in backward (2205.05198)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, ranks: int) -> Tensor:
        ctx.ranks = ranks
        ctx.save_for_backward(x if weight.requires_grad else None, weight if x.requires_grad else None)
        return torch.nn.functional.linear(gathered(x, ranks), weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        d_bias = grad.flatten(0, -2).sum(0) if ctx.needs_input_grad[2] else None
        d_weight = d_x = None
        if ctx.needs_input_grad[1]:
            whole = gathered(x, ctx.ranks)
            d_weight = grad.flatten(0, -2).t() @ whole.flatten(0, -2)
        if ctx.needs_input_grad[0]:
            d_x = scattered(grad @ weight, ctx.ranks)
        return d_x, d_weight, d_bias, None


def gathered(x: Tensor, ranks: int) -> Tensor:
    """(batch, length, ...) -> (batch, length × ranks, ...)"""
    return x.new_empty(x.shape[0], x.shape[1] * ranks, *x.shape[2:])


def scattered(x: Tensor, ranks: int) -> Tensor:
    """(batch, length, ...) -> (batch, length / ranks, ...)"""
    return x.new_empty(x.shape[0], x.shape[1] // ranks, *x.shape[2:])
