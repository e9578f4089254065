"""PyTorch's attention and norm functions with the footprint they have on a GPU, for tracing anybody's model."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from scalecli.probes.memory import kernels


class FusedKernels(TorchFunctionMode):
    """Calls of `scaled_dot_product_attention` and `rms_norm` on the meta device become single operations.

    Otherwise they decompose there, and a 7B model seems to save three times the bytes of its GPU kernels. Shapes and
    bytes are right inside, values are never computed.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and args[0].device.type == "meta":
            return _attention(*args[:3])
        if func is F.rms_norm and args[0].device.type == "meta":
            weight = args[2] if len(args) > 2 else kwargs.get("weight")
            if weight is not None:
                return kernels.rms_norm(args[0], weight)[0]
        return func(*args, **kwargs)


def _attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    out: Tensor = separate_attention(queries, keys, values)[0]
    return out


@torch.library.custom_op("scalecli::separate_attention", mutates_args=())
def separate_attention(queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Flash attention over (batch, heads, sequence, head_dim), for shapes alone -> output, log-sum-exp [float32]."""
    raise AssertionError("only for the meta device")


@separate_attention.register_fake
def _(queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    batch, heads, length, _ = queries.shape
    # Flash kernels lay the output out as (batch, sequence, heads, head_dim).
    out = queries.new_empty(batch, length, heads, values.shape[-1]).transpose(1, 2)
    return out, queries.new_empty(batch, heads, length, dtype=torch.float32)


@torch.library.custom_op("scalecli::separate_attention_backward", mutates_args=())
def separate_attention_backward(
    grad: Tensor, queries: Tensor, keys: Tensor, values: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `separate_attention`, for shapes alone."""
    raise AssertionError("only for the meta device")


@separate_attention_backward.register_fake
def _(grad: Tensor, queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(queries), torch.empty_like(keys), torch.empty_like(values)


def _context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _gradient(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor, Tensor, Tensor]:
    queries, keys, values = separate_attention_backward(grad, *ctx.saved_tensors[:3])
    return queries, keys, values


separate_attention.register_autograd(_gradient, setup_context=_context)
