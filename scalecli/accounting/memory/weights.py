"""Bytes of weights, gradients and their copies on one device."""

from __future__ import annotations

from scalecli.accounting.memory.layout import Layout
from scalecli.accounting.memory.rank import Rank
from scalecli.accounting.memory.recipe import Recipe

MASTER_BYTES = 4
AVERAGE_BYTES = 4
LAYERS_GATHERED = 2  # the layer that computes and the one prefetched for after it


def trained_weights(rank: Rank, recipe: Recipe) -> int:
    """Weights that have gradients: all, or the adapters alone."""
    return rank.layers * rank.adapter_weights(recipe.lora_rank) if recipe.lora_rank else rank.weights


def stored_weights(rank: Rank, recipe: Recipe) -> int:
    """Weights and adapters before sharding."""
    return rank.weights + (trained_weights(rank, recipe) if recipe.lora_rank else 0)


def weight_bytes(rank: Rank, recipe: Recipe, layout: Layout) -> int:
    """Weights in the stored type; one shard of them under zero3."""
    return _sharded(stored_weights(rank, recipe) * recipe.weight_bytes, layout, at="zero3")


def gathered_bytes(rank: Rank, recipe: Recipe, layout: Layout) -> int:
    """Under zero3: whole weights of the layers at work, and of embedding and head, in the computed type."""
    if layout.sharding != "zero3" or layout.shards == 1:
        return 0
    layers = LAYERS_GATHERED if layout.reshard_after_forward else rank.layers
    values = min(layers, rank.layers) * rank.layer_weights + rank.embedding_weights + rank.head_weights
    return values * recipe.compute_bytes


def master_bytes(rank: Rank, recipe: Recipe, layout: Layout) -> int:
    """Float32 weights beside bfloat16 ones; sharded with the optimizer states."""
    if not recipe.master_weights:
        return 0
    return _sharded(trained_weights(rank, recipe) * MASTER_BYTES, layout, at="zero1")


def average_bytes(rank: Rank, recipe: Recipe, layout: Layout) -> int:
    """Running averages of the weights in float32."""
    return _sharded(recipe.ema_copies * rank.weights * AVERAGE_BYTES, layout, at="zero1")


def gradient_bytes(values: int, recipe: Recipe, layout: Layout) -> int:
    """Gradients of that many weights, in the stored type of the weights; one shard of them from zero2 on."""
    return _sharded(values * recipe.weight_bytes, layout, at="zero2")


def cast_bytes(matrix_weights: int, recipe: Recipe) -> int:
    """Autocast's bfloat16 copies of weights that enter matrix products."""
    return 2 * matrix_weights if recipe.precision == "bf16-autocast" else 0


def _sharded(size: int, layout: Layout, *, at: str) -> int:
    """One shard (rounded up) if the layout shards at that stage or before it."""
    order = ("none", "ddp", "zero1", "zero2", "zero3")
    return -(-size // layout.shards) if order.index(layout.sharding) >= order.index(at) else size
