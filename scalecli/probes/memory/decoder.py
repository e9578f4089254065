"""One device's part of the decoder that the closed forms describe: real modules, real autograd, fused kernels.

`accounting/memory/decoder.py` is the same as arithmetic. Collectives with other ranks only make tensors of the right
size, so that every rank can be traced alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from scalecli.accounting.memory.layout import Layout
from scalecli.accounting.memory.offload import offloaded_layers
from scalecli.accounting.memory.parameters import adapted
from scalecli.accounting.memory.rank import Rank
from scalecli.accounting.memory.recipe import Recipe
from scalecli.accounting.memory.weights import QUANTISED_BLOCK
from scalecli.probes.memory import kernels, stand_ins
from scalecli.probes.memory.collectives import exchange, gather, gathered_product, scatter
from scalecli.probes.memory.packing import Packing, copied

# What selective recomputation keeps: everything that is expensive to compute again.
_KEPT = (
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.scalecli.attention.default,
    torch.ops.scalecli.eight_bit_result.default,
    torch.ops.scalecli.ring_result.default,
)


def weight_type(recipe: Recipe) -> torch.dtype:
    return torch.bfloat16 if recipe.weight_bytes == 2 else torch.float32


def compute_type(recipe: Recipe) -> torch.dtype:
    return torch.bfloat16 if recipe.compute_bytes == 2 else torch.float32


class Projection(nn.Module):
    """A matrix product in the computed type, whose operands are cast as autocast does."""

    def __init__(self, inputs: int, outputs: int, recipe: Recipe, parts: int = 1) -> None:
        """`parts` parts of the sequence are gathered for it, of which this device has one."""
        super().__init__()
        self.compute, self.parts = compute_type(recipe), parts
        self.weight = nn.Parameter(torch.empty(outputs, inputs), requires_grad=recipe.trained.weights)

    def forward(self, x: Tensor) -> Tensor:
        return gathered_product(x.to(self.compute), copied(self.weight, self.compute), None, self.parts)


class Product(nn.Module):
    """The matrix of a projection inside a layer, or a stack of them: quantised, in eight bits or with sampled rows, as
    the recipe says."""

    def __init__(self, shape: tuple[int, ...], recipe: Recipe, parts: int = 1) -> None:
        super().__init__()
        self.recipe, self.shape, self.parts, self.compute = recipe, shape, parts, compute_type(recipe)
        values = math.prod(shape)
        if recipe.base_bits is None:
            self.weight = nn.Parameter(torch.empty(shape), requires_grad=recipe.trained.weights)
        else:
            packed = torch.empty(values * recipe.base_bits // 8, dtype=torch.uint8)
            self.weight = nn.Parameter(packed, requires_grad=False)
            scales = torch.empty(
                values // QUANTISED_BLOCK, dtype=torch.int32
            )  # as wide as float32, never cast
            self.scales = nn.Parameter(scales, requires_grad=False)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        recipe, bias = self.recipe, None if bias is None else copied(bias, self.compute)
        if recipe.base_bits is not None:
            return stand_ins.quantised_product(x, self.weight, bias, self.shape)
        if recipe.formats.operand == 1:
            return stand_ins.eight_bit_product(x, self.weight, bias, self.parts)
        weight = copied(self.weight, self.compute)
        if recipe.sampled_rows < 1 and weight.requires_grad:
            return stand_ins.sampled_product(x, weight, bias, recipe.sampled_rows)
        if weight.ndim == 3:
            return stand_ins.product(x, weight)
        return gathered_product(x, weight, bias, self.parts)


class Tuned(nn.Module):
    """A projection inside a layer with what tuning adds to it: an adapter, a bias."""

    def __init__(self, name: str, inputs: int, outputs: int, recipe: Recipe, parts: int = 1) -> None:
        super().__init__()
        self.compute, self.parts = compute_type(recipe), parts
        self.product = Product((outputs, inputs), recipe, parts)
        self.adapter_down = self.adapter_up = self.bias = None
        if adapted(name, recipe):
            self.adapter_down = nn.Parameter(torch.empty(recipe.lora_rank, inputs))
            self.adapter_up = nn.Parameter(torch.empty(outputs, recipe.lora_rank))
        if recipe.trained.biases:
            self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.compute)
        y = self.product(x, self.bias)
        if self.adapter_down is not None:
            y = y + self._adapted(x)
        whole: Tensor = y
        return whole

    def _adapted(self, x: Tensor) -> Tensor:
        assert self.adapter_down is not None
        assert self.adapter_up is not None
        return F.linear(
            gathered_product(x, copied(self.adapter_down, self.compute), None, self.parts),
            copied(self.adapter_up, self.compute),
        )


class Norm(nn.Module):
    """RMS norm or layer norm, as one operation or as PyTorch decomposes it."""

    def __init__(self, width: int, recipe: Recipe, *, centred: bool = False) -> None:
        super().__init__()
        trained = recipe.trained.norms
        self.weight = nn.Parameter(torch.empty(width), requires_grad=trained)
        self.bias = nn.Parameter(torch.empty(width), requires_grad=trained) if centred else None
        self.fused = recipe.norm == "fused"

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is not None:
            return F.layer_norm(x, self.weight.shape, self.weight, self.bias)
        if self.fused:
            normal: Tensor = kernels.rms_norm(x, self.weight)[0]
            return normal
        return F.rms_norm(x, self.weight.shape, self.weight, kernels.NORM_EPSILON)


class Attention(nn.Module):
    """Packed queries, keys and values; their norms; attention; output projection."""

    def __init__(self, rank: Rank, recipe: Recipe, layout: Layout) -> None:
        super().__init__()
        self.rank, self.recipe, self.ring = rank, recipe, layout.cp > 1
        if recipe.trained.inner_scales:
            self.key_value_scale = nn.Parameter(torch.empty(rank.packed - rank.mixed))
        self.packed = Tuned("packed", rank.width, rank.packed, recipe, rank.sequence_parts)
        self.out = Tuned("out", rank.mixed, rank.width, recipe)
        if rank.qk_norm:
            self.query_norm, self.key_norm = (Norm(rank.head_dim, recipe) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        packed = self._scaled(self._normed(self.packed(x)))
        out = self._attended(packed)
        mixed: Tensor = self.out(out)
        return mixed

    def _normed(self, packed: Tensor) -> Tensor:
        if not self.rank.qk_norm:
            return packed
        sizes = (self.rank.heads, self.rank.kv_heads, self.rank.kv_heads)
        queries, keys, values = packed.unflatten(-1, (-1, self.rank.head_dim)).split(sizes, dim=-2)
        return torch.cat((self.query_norm(queries), self.key_norm(keys), values), dim=-2).flatten(-2)

    def _scaled(self, packed: Tensor) -> Tensor:
        if not self.recipe.trained.inner_scales:
            return packed
        queries, rest = packed.split((self.rank.mixed, self.rank.packed - self.rank.mixed), dim=-1)
        return torch.cat((queries, rest * copied(self.key_value_scale, packed.dtype)), dim=-1)

    def _attended(self, packed: Tensor) -> Tensor:
        heads, kv_heads = self.rank.heads, self.rank.kv_heads
        if self.recipe.attention == "stored":
            dropped = self.recipe.dropout > 0
            return stand_ins.stored_attention(packed, heads, kv_heads, self.rank.attended, dropped=dropped)
        if self.ring:
            return stand_ins.ring_attention(packed, heads, kv_heads)
        out: Tensor = kernels.attention(packed, heads, kv_heads)[0]
        return out


class FeedForward(nn.Module):
    """Two matrices, or three if gated."""

    def __init__(self, rank: Rank, recipe: Recipe) -> None:
        super().__init__()
        inputs = (rank.width, rank.ffn, recipe, rank.sequence_parts)
        self.hidden_scale = nn.Parameter(torch.empty(rank.ffn)) if recipe.trained.inner_scales else None
        self.up = Tuned("up", *inputs)
        self.gate = Tuned("gate", *inputs) if rank.gated else None
        self.down = Tuned("down", rank.ffn, rank.width, recipe)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.down(self._scaled(self._hidden(x)))
        return result

    def _hidden(self, x: Tensor) -> Tensor:
        if self.gate is None:
            return F.gelu(self.up(x))
        gated: Tensor = F.silu(self.gate(x)) * self.up(x)
        return gated

    def _scaled(self, hidden: Tensor) -> Tensor:
        return hidden if self.hidden_scale is None else hidden * copied(self.hidden_scale, hidden.dtype)


class Experts(nn.Module):
    """A router and feed-forward blocks of fixed capacity, each token's results weighted by its router.

    Where experts are spread over ranks, visits are exchanged on their way to the blocks and back. The router reads the
    whole sequence, of which the stream may be a part.
    """

    def __init__(self, rank: Rank, recipe: Recipe, layout: Layout) -> None:
        super().__init__()
        self.rank, self.spread, self.compute = rank, layout.ep > 1, compute_type(recipe)
        self.up = Product((rank.experts, rank.width, rank.ffn), recipe)
        self.gate = Product((rank.experts, rank.width, rank.ffn), recipe) if rank.gated else None
        self.down = Product((rank.experts, rank.ffn, rank.width), recipe)
        self.router = Projection(rank.width, rank.routed, recipe)

    def forward(self, x: Tensor) -> Tensor:
        x = gather(x, self.rank.sequence_parts)
        flat = x.flatten(0, 1)
        chances = self.router(flat).float().softmax(-1)
        weights, choices = chances.topk(self.rank.experts_per_token, dim=-1)
        taken = self._order(choices)
        tokens = taken // self.rank.experts_per_token
        results = self._visited(flat.to(self.compute).index_select(0, tokens))
        results = results * weights.flatten().index_select(0, taken).to(self.compute)[:, None]
        return torch.zeros_like(flat, dtype=self.compute).index_add(0, tokens, results).view_as(x)

    def _order(self, choices: Tensor) -> Tensor:
        """Visits by expert, as many for each as it has slots."""
        slots = replace(self.rank, tokens=choices.shape[0]).slots
        taken = choices.flatten().argsort()[:slots]
        missing = slots - taken.numel()
        return F.pad(taken, (0, missing)) if missing else taken

    def _visited(self, visits: Tensor) -> Tensor:
        """What the experts make of the visits, on whichever ranks they are."""
        if not self.spread:
            return self._blocks(visits)
        visits = exchange(visits)
        return exchange(self._blocks(visits))

    def _blocks(self, visits: Tensor) -> Tensor:
        visits = visits.unflatten(0, (self.rank.experts, -1))
        results: Tensor = self.down(self._hidden(visits)).flatten(0, 1)
        return results

    def _hidden(self, visits: Tensor) -> Tensor:
        if self.gate is None:
            return F.gelu(self.up(visits))
        gated: Tensor = F.silu(self.gate(visits)) * self.up(visits)
        return gated


class Layer(nn.Module):
    """Attention and feed-forward block, each a branch beside the stream."""

    def __init__(self, rank: Rank, recipe: Recipe, layout: Layout) -> None:
        super().__init__()
        self.dropout, self.parts, self.compute = recipe.dropout, rank.sequence_parts, compute_type(recipe)
        self.attention_scale = self.ffn_scale = None
        if recipe.trained.branch_scales:
            self.attention_scale, self.ffn_scale = (nn.Parameter(torch.empty(rank.width)) for _ in range(2))
        self.attention_norm = Norm(rank.width, recipe, centred=rank.layer_norm)
        self.attention = Attention(rank, recipe, layout)
        self.ffn_norm = Norm(rank.width, recipe, centred=rank.layer_norm)
        self.ffn = FeedForward(rank, recipe) if rank.routed == 1 else Experts(rank, recipe, layout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._added(self.attention(self.attention_norm(x)), self.attention_scale)
        return x + self._added(self.ffn(self.ffn_norm(x)), self.ffn_scale)

    def keys_and_values(self, x: Tensor) -> Tensor:
        """Room for those of the whole sequence."""
        rank = self.attention.rank
        columns = rank.sequence_parts * (rank.packed - rank.mixed)
        return x.new_empty(*x.shape[:-1], columns, dtype=self.compute)

    def _added(self, y: Tensor, factors: Tensor | None) -> Tensor:
        """What a branch adds to the stream: this rank's part of the sequence, of a sum over ranks."""
        y = scatter(y, self.parts)
        y = y if factors is None else y * copied(factors, y.dtype)
        return torch.native_dropout(y, self.dropout, True)[0] if self.dropout else y


class TracedDecoder(nn.Module):
    """What one device has of the decoder: with both ends of the model, tokens and targets in, mean loss out.

    A pipeline stage without embedding reads the stream instead of tokens; one without head returns the stream.
    `on_hidden` is called with the tensor that the head reads.
    """

    def __init__(self, rank: Rank, recipe: Recipe, layout: Layout) -> None:
        super().__init__()
        self.rank, self.recipe, self.layout = rank, recipe, layout
        trained = recipe.trained.weights
        if rank.first:
            self.embedding = nn.Parameter(torch.empty(rank.vocab, rank.width), requires_grad=trained)
        self.layers = nn.ModuleList(Layer(rank, recipe, layout) for _ in range(rank.layers))
        if rank.last:
            self.norm = Norm(rank.width, recipe, centred=rank.layer_norm)
            if rank.has_head:
                self.head = Projection(rank.width, rank.vocab, recipe, rank.sequence_parts)
        if rank.shares_head:
            self.head.weight = self.embedding

    def forward(self, x: Tensor, targets: Tensor, on_hidden: Callable[[Tensor], None]) -> Tensor:
        if self.rank.first:
            x = self._embedded(x)
        for i in range(self.rank.layers):
            x = self._through(i, x)
        if not self.rank.last:
            return x
        hidden = self.norm(x)
        del x
        on_hidden(hidden)
        return self._loss(hidden, targets)

    def _embedded(self, tokens: Tensor) -> Tensor:
        return scatter(F.embedding(tokens, self.embedding), self.rank.sequence_parts)

    def _through(self, i: int, x: Tensor) -> Tensor:
        """Layer i, recomputed, offloaded or compressed as wished."""
        layer, recipe = self.layers[i], self.recipe
        recomputed = recipe.recompute_layers is None or i < recipe.recompute_layers
        run = partial(_recomputed, layer, recipe=recipe) if recomputed else layer
        share = 0.0 if i < offloaded_layers(self.rank, self.layout) else 1 / recipe.saved_compression
        if share == 1:
            plain: Tensor = run(x)
            return plain
        with Packing(share).saving(layer.parameters()):
            packed: Tensor = run(x)
            return packed

    def _loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        if self.recipe.contrastive_pairs is not None:
            return stand_ins.contrast(hidden, self.recipe.contrastive_pairs, self.recipe.contrastive_tile)
        if self.recipe.logits == "full":
            return self._cross_entropy(hidden, targets) / targets.numel()
        total = hidden.new_zeros((), dtype=torch.float32)
        size = math.ceil(self.rank.stream_tokens / self.recipe.logit_chunks)
        pieces = hidden.flatten(0, 1)[None].split(size, dim=1)
        wanted = targets.flatten().split(size * self.rank.sequence_parts)
        for piece, targets in zip(pieces, wanted, strict=True):
            total = total + checkpoint(self._cross_entropy, piece, targets, use_reentrant=False)
        return total / self.rank.tokens

    def _cross_entropy(self, hidden: Tensor, targets: Tensor) -> Tensor:
        logits = self.head(hidden).float()
        return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="sum")


class Streamed(torch.autograd.Function):
    """A layer that is recomputed and taken backward in pieces of the sequence (Luo et al., 2506.03077).

    Every piece reads keys and values of the whole sequence and adds to their gradients. Values are never computed.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, layer: Layer, size: int) -> Tensor:
        """`anchor` needs a gradient, whether x does or not."""
        ctx.save_for_backward(x)
        ctx.layer, ctx.size = layer, size
        out, _ = torch.empty_like(x), layer.keys_and_values(x)
        layer(x[:, :size].clone())
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        d_x, _, gradients = torch.empty_like(x), *(ctx.layer.keys_and_values(x) for _ in range(2))
        for piece, d_piece in zip(x.split(ctx.size, 1), grad.split(ctx.size, 1), strict=True):
            with torch.enable_grad():
                part = piece.detach().clone().requires_grad_()
                y = ctx.layer(part)
            edge, shape = get_gradient_edge(y), d_piece.clone()
            del y
            torch.autograd.backward((edge,), (shape,))
            gradients += torch.empty_like(gradients)
            del part, shape, edge
        return d_x, None, None, None


def _recomputed(layer: nn.Module, x: Tensor, recipe: Recipe) -> Tensor:
    if recipe.recompute == "none":
        out: Tensor = layer(x)
        return out
    if recipe.sequence_chunks > 1:
        anchor, size = torch.empty(0, requires_grad=True), math.ceil(x.shape[1] / recipe.sequence_chunks)
        streamed: Tensor = Streamed.apply(x, anchor, layer, size)  # type: ignore[no-untyped-call]
        return streamed
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if recipe.recompute == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    kept: Tensor = checkpoint(layer, x, **options)
    return kept


def _policy(_: object, op: object, *args: object, **kwargs: object) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if op in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE
