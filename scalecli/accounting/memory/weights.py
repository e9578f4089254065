"""Bytes of weights, gradients and their copies on one device."""

from __future__ import annotations

from scalecli.accounting.memory.layout import Layout, Sharding
from scalecli.accounting.memory.rank import Rank
from scalecli.accounting.memory.recipe import Recipe

MASTER_BYTES = 4
AVERAGE_BYTES = 4
LAYERS_GATHERED = 2  # the layer that computes and the one prefetched for after it
QUANTISED_BLOCK = (
    64  # values of a quantised base that share a float32 scale (Dettmers et al., 2305.14314, section 3)
)


def trained_weights(rank: Rank, recipe: Recipe) -> int:
    """Weights that have gradients: all, or the adapters alone."""
    return rank.layers * rank.adapter_weights(recipe.lora_rank) if recipe.lora_rank else rank.weights


def trained_experts(rank: Rank, recipe: Recipe) -> int:
    """Those of them that are experts'."""
    return 0 if recipe.lora_rank else rank.layers * rank.layer_experts


def weight_bytes(rank: Rank, recipe: Recipe, layout: Layout) -> int:
    """Weights and adapters in the stored type; one shard of them under zero3."""
    adapters = trained_weights(rank, recipe) if recipe.lora_rank else 0
    if recipe.base_bits is None:
        w, experts = recipe.weight_bytes, rank.layers * rank.layer_experts
        return sharded((rank.weights + adapters) * w, experts * w, layout, "zero3")
    matrices = rank.layers * rank.layer_matrices
    quantised = matrices * recipe.base_bits // 8 + 4 * matrices // QUANTISED_BLOCK
    return sharded((rank.weights - matrices + adapters) * recipe.weight_bytes + quantised, 0, layout, "zero3")


def dequantised_bytes(rank: Rank, recipe: Recipe) -> int:
    """The largest quantised matrix in the computed type, while it is used."""
    if recipe.base_bits is None:
        return 0
    return max(*rank.attention_matrices, *rank.expert_matrices) * recipe.compute_bytes


def gathered_bytes(rank: Rank, recipe: Recipe, layout: Layout, layers_at_work: int) -> int:
    """Under zero3: whole weights of the layers at work, and of embedding and head, in the computed type."""
    if not layout.shards_at("zero3"):
        return 0
    layers = layers_at_work if layout.reshard_after_forward else rank.layers
    values = min(layers, rank.layers) * rank.layer_weights + rank.embedding_weights + rank.head_weights
    return values * recipe.compute_bytes


def master_bytes(rank: Rank, recipe: Recipe, layout: Layout) -> int:
    """Float32 weights beside bfloat16 ones; sharded with the optimizer states."""
    if not recipe.master_weights:
        return 0
    values, experts = trained_weights(rank, recipe), trained_experts(rank, recipe)
    return sharded(values * MASTER_BYTES, experts * MASTER_BYTES, layout, "zero1")


def average_bytes(rank: Rank, recipe: Recipe, layout: Layout) -> int:
    """Running averages of the weights in float32."""
    each = recipe.ema_copies * AVERAGE_BYTES
    return sharded(rank.weights * each, rank.layers * rank.layer_experts * each, layout, "zero1")


def gradient_bytes(values: int, experts: int, recipe: Recipe, layout: Layout) -> int:
    """Gradients of that many weights, in the stored type of the weights; one shard of them from zero2 on."""
    return sharded(values * recipe.weight_bytes, experts * recipe.weight_bytes, layout, "zero2")


def cast_bytes(matrix_weights: int, recipe: Recipe) -> int:
    """Autocast's bfloat16 copies of weights that enter matrix products."""
    return 2 * matrix_weights if recipe.precision == "bf16-autocast" else 0


def sharded(size: int, experts: int, layout: Layout, stage: Sharding) -> int:
    """One shard (rounded up) of `size` bytes, `experts` of them experts', if the layout shards at that stage."""
    if not layout.shards_at(stage):
        return size
    return -(-(size - experts) // layout.shards) - (-experts // layout.expert_shards)
