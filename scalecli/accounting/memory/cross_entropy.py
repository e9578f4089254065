"""Bytes of head and cross-entropy: from the hidden states through the gradient of the hidden states.

PyTorch's cross-entropy widens logits to float32 and keeps their log-softmax for backward [4 n V bytes]; its backward
makes two more such tensors. A chunked loss does this for a part of the tokens at a time and computes them twice.
"""

from __future__ import annotations

from collections.abc import Iterator

from scalecli.accounting.memory import saved
from scalecli.accounting.memory.operations import Operation
from scalecli.accounting.memory.rank import Rank
from scalecli.accounting.memory.recipe import Recipe

LOSS_BYTES = 4  # cross-entropy is computed in float32


def log_softmax_saved(rank: Rank, recipe: Recipe) -> int:
    """Kept by the whole loss between its forward and backward: 4 n V; nothing when chunked."""
    return rank.tokens * rank.vocab * LOSS_BYTES if recipe.logits == "full" else 0


def head_input_saved(rank: Rank, recipe: Recipe) -> int:
    """The last residual stream with its norm's statistics, and what the head (or a recomputed chunk of it) reads."""
    values = rank.stream_tokens * rank.width
    statistics = saved.norm_statistics(rank, recipe)
    if recipe.logits == "chunked":
        return 2 * values * recipe.stream_bytes + statistics
    reads = 0 if recipe.lora_rank else values * recipe.compute_bytes
    return values * recipe.stream_bytes + statistics + reads


def logits_forward(rank: Rank, recipe: Recipe, tokens: int) -> int:
    """Highest working bytes of the forward pass, the kept log-softmax included.

    Logits in the computed type, then in float32, then their log-softmax beside the float32 ones.
    """
    narrow = recipe.compute_bytes if recipe.compute_bytes < LOSS_BYTES else 0
    return tokens * rank.vocab * (LOSS_BYTES + max(narrow, LOSS_BYTES))


def loss_backward(rank: Rank, recipe: Recipe, tokens: int, *, adds_to_gradient: bool) -> Iterator[Operation]:
    """Backward of the loss on `tokens` tokens; the log-softmax is alive before. `adds_to_gradient`: the head's weight
    has a gradient already."""
    e, w = recipe.compute_bytes, recipe.weight_bytes
    wide = tokens * rank.vocab * LOSS_BYTES
    yield Operation(makes=2 * wide, releases=wide, consumes=wide)
    narrow = tokens * rank.vocab * e if e < LOSS_BYTES else wide
    if e < LOSS_BYTES:
        yield Operation(makes=narrow, releases=wide)
    weights = 0 if recipe.lora_rank else rank.vocab * rank.width
    d_hidden = tokens * rank.width * e
    autocast = recipe.precision == "bf16-autocast"
    if not autocast:
        yield _with_weight_gradient(weights * w, adds_to_gradient, makes=d_hidden, releases=narrow)
    else:
        uncasts = rank.vocab * rank.width * e
        yield Operation(makes=d_hidden + weights * e, releases=narrow, uncasts=uncasts)
        yield _with_weight_gradient(weights * w, adds_to_gradient, makes=0, releases=weights * e)
    if adds_to_gradient:
        # The sum of the chunks' gradients is a new tensor. It is highest one chunk before the last, which frees the
        # hidden states; there is one gradient of a chunk less then.
        piece = tokens * rank.width * recipe.stream_bytes
        yield Operation(releases=piece)
        yield Operation(makes=weights * w, releases=2 * weights * w - piece)
    if autocast:
        yield Operation(makes=tokens * rank.width * w, releases=d_hidden)


def _with_weight_gradient(size: int, adds: bool, *, makes: int, releases: int) -> Operation:
    """The operation that makes the head's gradient: a new one, or one that is to be added to another."""
    if adds:
        return Operation(makes=makes + size, releases=releases)
    return Operation(gradients=size, makes=makes, releases=releases)
