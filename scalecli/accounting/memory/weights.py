"""Bytes of weights, gradients and their copies on one device."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import ceil

from scalecli.accounting.memory.layout import Layout, Sharding
from scalecli.accounting.memory.parameters import Parameter, parameters
from scalecli.accounting.memory.rank import Rank
from scalecli.accounting.memory.recipe import Recipe

MASTER_BYTES = 4
AVERAGE_BYTES = 4
QUANTISED_BLOCK = (
    64  # values of a quantised base that share a float32 scale (Dettmers et al., 2305.14314, section 3)
)


def weight_bytes(rank: Rank, recipe: Recipe, layout: Layout) -> int:
    """Weights and adapters in their stored type; one shard of them under zero3."""
    return sharded(parameters(rank, recipe), lambda p: stored_bytes(p, recipe), layout, "zero3")


def stored_bytes(parameter: Parameter, recipe: Recipe) -> float:
    """Of one of its values: quantised ones share a scale with their block."""
    if parameter.quantised and recipe.base_bits is not None:
        return recipe.base_bits / 8 + 4 / QUANTISED_BLOCK
    return recipe.weight_bytes


def master_bytes(rank: Rank, recipe: Recipe, layout: Layout) -> int:
    """Float32 copies of trained weights; sharded with the optimizer states."""
    if not recipe.master_weights:
        return 0
    return sharded(trained(rank, recipe), lambda _: MASTER_BYTES, layout, "zero1")


def average_bytes(rank: Rank, recipe: Recipe, layout: Layout) -> int:
    """Running averages of the trained weights in float32."""
    each = recipe.ema_copies * AVERAGE_BYTES
    return sharded(trained(rank, recipe), lambda _: each, layout, "zero1")


def gradient_bytes(rank: Rank, recipe: Recipe, layout: Layout) -> int:
    """Gradients of all trained weights; one shard of them from zero2 on."""
    return sharded(trained(rank, recipe), lambda _: recipe.gradient_bytes, layout, "zero2")


def bucket_bytes(rank: Rank, recipe: Recipe, layout: Layout) -> int:
    """PyTorch's distributed data parallel copies every gradient into a bucket that is reduced, unless gradients are
    views of their buckets."""
    if layout.sharding != "ddp" or layout.shards == 1 or layout.bucket_views:
        return 0
    return weight_count(trained(rank, recipe)) * recipe.weight_bytes


def trained(rank: Rank, recipe: Recipe) -> tuple[Parameter, ...]:
    """Parameters that have gradients."""
    return tuple(parameter for parameter in parameters(rank, recipe) if parameter.trained)


def weight_count(found: Iterable[Parameter]) -> int:
    """Their values."""
    return sum(parameter.count * parameter.values for parameter in found)


def all_weights(rank: Rank, recipe: Recipe) -> int:
    """Values of every parameter on this device before sharding."""
    return weight_count(parameters(rank, recipe))


def shard_values(found: Iterable[Parameter], layout: Layout) -> int:
    """Values of one shard of every parameter: of its rows under zero3, else of all values in one buffer."""
    if layout.sharding == "zero3":
        return sum(p.count * p.shard(shards_of(p, layout)) for p in found)
    return ceil(sum(p.count * p.values / shards_of(p, layout) for p in found))


def whole_values(found: Iterable[Parameter], layout: Layout) -> int:
    """Values of parameters that are put together from shards, padding of the last ones included."""
    return sum(p.count * p.shard(shards_of(p, layout)) * shards_of(p, layout) for p in found)


def shards_of(parameter: Parameter, layout: Layout) -> int:
    """Ranks that share one copy of it."""
    return layout.expert_shards if parameter.expert else layout.shards


def sharded(
    found: Iterable[Parameter], each: Callable[[Parameter], float], layout: Layout, stage: Sharding
) -> int:
    """Bytes of parameters at `each` bytes a value, or of one shard of them if the layout shards at that stage.

    Fully sharded data parallel cuts every tensor along its first dimension, the others cut one flat buffer.
    """
    if not layout.shards_at(stage):
        return round(sum(p.count * p.values * each(p) for p in found))
    if layout.sharding == "zero3":
        return round(sum(p.count * p.shard(shards_of(p, layout)) * each(p) for p in found))
    return ceil(sum(p.count * p.values * each(p) / shards_of(p, layout) for p in found))
