"""The decoder that the closed forms describe, built for tracing: real modules, real autograd, fused kernels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from scalecli.accounting.memory.recipe import Recipe
from scalecli.accounting.shape import ModelShape
from scalecli.errors import PlanError
from scalecli.probes.memory import kernels

# What selective recomputation keeps: everything that is expensive to compute again.
_KEPT = (
    torch.ops.aten.mm.default,
    torch.ops.aten.bmm.default,
    torch.ops.scalecli.attention.default,
)


def weight_type(recipe: Recipe) -> torch.dtype:
    return torch.bfloat16 if recipe.precision == "bf16" else torch.float32


def compute_type(recipe: Recipe) -> torch.dtype:
    return torch.float32 if recipe.precision == "fp32" else torch.bfloat16


class Projection(nn.Module):
    """A matrix product without bias; casts both operands as autocast does, and adds a LoRA branch if wanted."""

    def __init__(self, inputs: int, outputs: int, recipe: Recipe, *, adapted: bool = False) -> None:
        super().__init__()
        self.compute = compute_type(recipe)
        self.weight = nn.Parameter(torch.empty(outputs, inputs), requires_grad=recipe.lora_rank == 0)
        self.down = (
            nn.Parameter(torch.empty(recipe.lora_rank, inputs)) if adapted and recipe.lora_rank else None
        )
        self.up = (
            nn.Parameter(torch.empty(outputs, recipe.lora_rank)) if adapted and recipe.lora_rank else None
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.compute)
        y = F.linear(x, self.weight.to(self.compute))
        if self.down is not None and self.up is not None:
            y = y + F.linear(F.linear(x, self.down.to(self.compute)), self.up.to(self.compute))
        return y


class Norm(nn.Module):
    """RMS norm or layer norm, as one operation or as PyTorch decomposes it."""

    def __init__(self, width: int, shape: ModelShape, recipe: Recipe) -> None:
        super().__init__()
        trained = recipe.lora_rank == 0
        self.weight = nn.Parameter(torch.empty(width), requires_grad=trained)
        self.bias = nn.Parameter(torch.empty(width), requires_grad=trained) if shape.norm == "layer" else None
        self.fused = recipe.norm == "fused"

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is not None:
            return F.layer_norm(x, self.weight.shape, self.weight, self.bias)
        if self.fused:
            normal: Tensor = kernels.rms_norm(x, self.weight)[0]
            return normal
        return F.rms_norm(x, self.weight.shape, self.weight, kernels.NORM_EPSILON)


class Attention(nn.Module):
    def __init__(self, shape: ModelShape, recipe: Recipe) -> None:
        super().__init__()
        if recipe.attention == "stored":
            raise PlanError("stored attention scores are not traced, only counted", hint="--attention flash")
        self.shape = shape
        packed = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
        self.packed = Projection(shape.width, packed, recipe, adapted=True)
        self.out = Projection(shape.width, shape.width, recipe, adapted=True)
        rms = replace(shape, norm="rms")  # whatever norms the stream has
        self.query_norm = Norm(shape.head_dim, rms, recipe) if shape.qk_norm else None
        self.key_norm = Norm(shape.head_dim, rms, recipe) if shape.qk_norm else None

    def forward(self, x: Tensor) -> Tensor:
        packed = self.packed(x)
        if self.query_norm is not None and self.key_norm is not None:
            heads, kv_heads, size = self.shape.heads, self.shape.kv_heads, self.shape.head_dim
            queries, keys, values = packed.unflatten(-1, (-1, size)).split(
                (heads, kv_heads, kv_heads), dim=-2
            )
            packed = torch.cat((self.query_norm(queries), self.key_norm(keys), values), dim=-2).flatten(-2)
        out, _ = kernels.attention(packed, self.shape.heads, self.shape.kv_heads)
        mixed: Tensor = self.out(out)
        return mixed


class FeedForward(nn.Module):
    def __init__(self, shape: ModelShape, recipe: Recipe) -> None:
        super().__init__()
        self.up = Projection(shape.width, shape.ffn, recipe)
        self.gate = Projection(shape.width, shape.ffn, recipe) if shape.activation == "swiglu" else None
        self.down = Projection(shape.ffn, shape.width, recipe)

    def forward(self, x: Tensor) -> Tensor:
        if self.gate is None:
            plain: Tensor = self.down(F.gelu(self.up(x)))
            return plain
        gated: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return gated


class Experts(nn.Module):
    """A router and feed-forward blocks of fixed capacity, each token's results weighted by its router."""

    def __init__(self, shape: ModelShape, recipe: Recipe) -> None:
        super().__init__()
        self.shape, self.capacity, self.compute = shape, recipe.expert_capacity, compute_type(recipe)
        trained = recipe.lora_rank == 0
        self.router = Projection(shape.width, shape.num_experts, recipe)

        def stack(outputs: int, inputs: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape.num_experts, inputs, outputs), requires_grad=trained)

        self.up = stack(shape.ffn, shape.width)
        self.gate = stack(shape.ffn, shape.width) if shape.activation == "swiglu" else None
        self.down = stack(shape.width, shape.ffn)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        chances = self.router(flat).float().softmax(-1)
        weights, choices = chances.topk(self.shape.experts_per_token, dim=-1)
        slots = math.ceil(choices.numel() * self.capacity / self.shape.num_experts)
        taken = choices.flatten().argsort()[: slots * self.shape.num_experts]
        if taken.numel() < slots * self.shape.num_experts:
            taken = F.pad(taken, (0, slots * self.shape.num_experts - taken.numel()))
        tokens = taken // self.shape.experts_per_token
        visits = flat.to(self.compute).index_select(0, tokens).unflatten(0, (self.shape.num_experts, slots))
        results = (
            self._blocks(visits).flatten(0, 1)
            * weights.flatten().index_select(0, taken).to(self.compute)[:, None]
        )
        return torch.zeros_like(flat, dtype=self.compute).index_add(0, tokens, results).view_as(x)

    def _blocks(self, visits: Tensor) -> Tensor:
        if self.gate is None:
            hidden = F.gelu(self._product(visits, self.up))
        else:
            hidden = F.silu(self._product(visits, self.gate)) * self._product(visits, self.up)
        return self._product(hidden, self.down)

    def _product(self, rows: Tensor, weight: Tensor) -> Tensor:
        return torch.bmm(rows, weight.to(self.compute))


class Layer(nn.Module):
    def __init__(self, shape: ModelShape, recipe: Recipe) -> None:
        super().__init__()
        self.dropout = recipe.dropout
        self.attention_norm = Norm(shape.width, shape, recipe)
        self.attention = Attention(shape, recipe)
        self.ffn_norm = Norm(shape.width, shape, recipe)
        self.ffn = FeedForward(shape, recipe) if shape.num_experts == 1 else Experts(shape, recipe)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._drop(self.attention(self.attention_norm(x)))
        return x + self._drop(self.ffn(self.ffn_norm(x)))

    def _drop(self, x: Tensor) -> Tensor:
        return torch.native_dropout(x, self.dropout, True)[0] if self.dropout else x


class TracedDecoder(nn.Module):
    """Tokens and targets in, mean loss out; calls `on_hidden` with the tensor that the head reads."""

    def __init__(self, shape: ModelShape, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        trained = recipe.lora_rank == 0
        self.embedding = nn.Parameter(torch.empty(shape.vocab, shape.width), requires_grad=trained)
        self.layers = nn.ModuleList(Layer(shape, recipe) for _ in range(shape.layers))
        self.norm = Norm(shape.width, shape, recipe)
        self.head = Projection(shape.width, shape.vocab, recipe)
        if shape.tied:
            self.head.weight = self.embedding

    def forward(self, tokens: Tensor, targets: Tensor, on_hidden: Callable[[Tensor], None]) -> Tensor:
        x = F.embedding(tokens, self.embedding)
        for layer in self.layers:
            x = _recomputed(layer, x, self.recipe)
        hidden = self.norm(x)
        del x
        on_hidden(hidden)
        return self._loss(hidden, targets)

    def _loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        if self.recipe.logits == "full":
            return self._cross_entropy(hidden, targets) / targets.numel()
        total = hidden.new_zeros((), dtype=torch.float32)
        chunks = self.recipe.logit_chunks
        for piece, wanted in zip(
            hidden.flatten(0, 1).chunk(chunks), targets.flatten().chunk(chunks), strict=True
        ):
            total = total + checkpoint(self._cross_entropy, piece, wanted, use_reentrant=False)
        return total / targets.numel()

    def _cross_entropy(self, hidden: Tensor, targets: Tensor) -> Tensor:
        logits = self.head(hidden).float()
        return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="sum")


def _recomputed(layer: nn.Module, x: Tensor, recipe: Recipe) -> Tensor:
    if recipe.recompute == "none":
        out: Tensor = layer(x)
        return out
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if recipe.recompute == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    kept: Tensor = checkpoint(layer, x, **options)
    return kept


def _policy(_: object, op: object, *args: object, **kwargs: object) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if op in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE
