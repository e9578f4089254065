"""Bytes that the forward pass of one layer keeps for its backward pass.

Every function returns bytes on one device for one micro-batch. Sizes: n tokens, d width, f feed-forward width, h
heads; e bytes of a computed value, r of the residual stream. For a dense bfloat16 layer with flash attention, fused
norms and SwiGLU the sum is n (16 d + 8 f + 4 h + 8).
"""

from __future__ import annotations

from scalecli.accounting.memory.rank import Rank
from scalecli.accounting.memory.recipe import Recipe

STATISTIC_BYTES = 4  # norms and attention keep their statistics in float32
INDEX_BYTES = 8  # PyTorch's indices are int64


def residual_saved(rank: Rank, recipe: Recipe) -> int:
    """The residual stream where one norm reads it: n d r. The layer's input is the first of the two."""
    return rank.stream_tokens * rank.width * recipe.stream_bytes


def norm_statistics(rank: Rank, recipe: Recipe) -> int:
    """One norm: the reciprocal deviation [4 n], and the mean if it is a layer norm [4 n more].

    Decomposed into elementary operations an RMS norm keeps the stream widened to float32 and the normed stream too.
    """
    statistics = rank.stream_tokens * STATISTIC_BYTES * (2 if rank.layer_norm else 1)
    if recipe.norm == "fused" or rank.layer_norm:
        return statistics
    return statistics + decomposed_norm_copies(rank, recipe)


def decomposed_norm_copies(rank: Rank, recipe: Recipe) -> int:
    """The normed stream in float32, and the stream itself in float32 instead of its own type if that is narrower."""
    values = rank.stream_tokens * rank.width
    return values * (4 + 4 - recipe.stream_bytes)


def projection_input(rank: Rank, recipe: Recipe) -> int:
    """A normed stream that a matrix product reads, kept for the gradient of its weights: n d e."""
    return rank.stream_tokens * rank.width * recipe.compute_bytes


def attention_saved(rank: Rank, recipe: Recipe) -> int:
    """Packed queries, keys and values; output; log-sum-exp in float32, or the stored scores."""
    values = rank.tokens * (rank.packed + rank.mixed) * recipe.compute_bytes
    return values + attention_statistics(rank, recipe)


def attention_statistics(rank: Rank, recipe: Recipe) -> int:
    """Flash: 4 n h. Stored: probabilities n h s e, and with dropout their mask and what it left."""
    scores = rank.tokens * rank.heads * rank.attended
    if recipe.attention == "flash":
        return rank.tokens * rank.heads * STATISTIC_BYTES
    dropped = scores * (1 + recipe.compute_bytes) if recipe.dropout else 0
    return scores * recipe.compute_bytes + dropped


def query_key_norm_saved(rank: Rank, recipe: Recipe) -> int:
    """Norms of queries and keys: the packed projection before them, and a deviation for each head."""
    if not rank.qk_norm:
        return 0
    per_token = rank.packed * recipe.compute_bytes + (rank.heads + rank.kv_heads) * STATISTIC_BYTES
    return rank.tokens * per_token


def feed_forward_saved(rank: Rank, recipe: Recipe) -> int:
    """Gate, up, activated gate and product when gated, else pre-activation and activation: 4 or 2 n f e.

    Frozen weights need no gradient, so that the last of them (the input of the down projection) is not kept.
    """
    kept = (4 if rank.gated else 2) - (1 if recipe.lora_rank else 0)
    return kept * rank.slots * rank.ffn * recipe.compute_bytes


def router_saved(rank: Rank, recipe: Recipe) -> int:
    """Probabilities and choices of the router, where each visit goes, visits, their results before and after
    weighting, and the weights."""
    if rank.routed == 1:
        return 0
    probabilities = rank.tokens * rank.routed * STATISTIC_BYTES
    indices = (rank.visits + max(rank.visits, rank.slots) + rank.slots) * INDEX_BYTES
    visiting = rank.slots * rank.width * recipe.compute_bytes
    results = 2 * visiting + rank.slots * recipe.compute_bytes
    return probabilities + indices + visiting + results


def dropout_masks(rank: Rank, recipe: Recipe) -> int:
    """One byte for each value of the two residual branches."""
    return 2 * rank.stream_tokens * rank.width if recipe.dropout else 0


def adapters_saved(rank: Rank, recipe: Recipe) -> int:
    """What LoRA adapters on the two attention projections read in their middle: 2 n r e."""
    return 2 * rank.tokens * recipe.lora_rank * recipe.compute_bytes


def projection_inputs(rank: Rank, recipe: Recipe) -> int:
    """Normed streams kept for weight gradients; autocast casts anew for gate and for up, so that it keeps both.

    With LoRA only the attention projection has trained weights behind the norm.
    """
    one = projection_input(rank, recipe)
    if recipe.lora_rank:
        return one
    separate_casts = recipe.precision == "bf16-autocast" and rank.gated and rank.routed == 1
    return (3 if separate_casts else 2) * one


def layer_saved(rank: Rank, recipe: Recipe) -> int:
    """Everything that one layer keeps when nothing is recomputed, its input included, weight copies left out."""
    return (
        2 * residual_saved(rank, recipe)
        + 2 * norm_statistics(rank, recipe)
        + projection_inputs(rank, recipe)
        + attention_saved(rank, recipe)
        + query_key_norm_saved(rank, recipe)
        + feed_forward_saved(rank, recipe)
        + router_saved(rank, recipe)
        + dropout_masks(rank, recipe)
        + adapters_saved(rank, recipe)
    )


def layer_kept(rank: Rank, recipe: Recipe) -> int:
    """What one layer keeps between forward and backward under the recipe's recomputation."""
    if recipe.recompute == "full":
        return residual_saved(rank, recipe)
    if recipe.recompute == "selective":
        return residual_saved(rank, recipe) + products_kept(rank, recipe)
    return layer_saved(rank, recipe)


def products_kept(rank: Rank, recipe: Recipe) -> int:
    """Outputs of matrix products and attention: what selective recomputation does not compute twice."""
    e = recipe.compute_bytes
    attention = rank.tokens * (rank.packed + rank.mixed + rank.width) * e + attention_statistics(rank, recipe)
    adapters = 0
    if recipe.lora_rank:
        adapters = rank.tokens * (rank.packed + rank.width + 2 * recipe.lora_rank) * e
    router = rank.tokens * rank.routed * e if rank.routed > 1 else 0
    blocks = rank.slots * ((2 if rank.gated else 1) * rank.ffn + rank.width) * e
    return attention + adapters + router + blocks


def unused_products(rank: Rank, recipe: Recipe) -> int:
    """Kept outputs of the down projection stay until the layer is done where recomputation stops before them."""
    reached = rank.routed > 1 or recipe.dropout > 0
    return 0 if reached or recipe.recompute != "selective" else rank.slots * rank.width * recipe.compute_bytes
