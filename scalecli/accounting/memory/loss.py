"""Bytes of head and cross-entropy: from the hidden states through the gradient of the hidden states.

PyTorch's cross-entropy widens logits to float32 and keeps their log-softmax for backward [4 n V bytes]; its backward
makes two more such tensors. A chunked loss does this for a part of the tokens at a time and computes them twice.
"""

from __future__ import annotations

from collections.abc import Iterator

from scalecli.accounting.memory.backward import Operation
from scalecli.accounting.memory.rank import Rank
from scalecli.accounting.memory.recipe import Recipe

LOSS_BYTES = 4  # cross-entropy is computed in float32


def log_softmax_saved(rank: Rank, recipe: Recipe) -> int:
    """Kept by the whole loss between its forward and backward: 4 n V; nothing when chunked."""
    return rank.tokens * rank.vocab * LOSS_BYTES if recipe.logits == "full" else 0


def head_input_saved(rank: Rank, recipe: Recipe) -> int:
    """The last residual stream with its norm's statistics, and what the head reads."""
    values = rank.stream_tokens * rank.width
    statistics = rank.stream_tokens * 4 * (2 if rank.layer_norm else 1)
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
    if recipe.precision != "bf16-autocast":
        made = weights * w
        yield Operation(
            gradients=0 if adds_to_gradient else made,
            makes=d_hidden + (made if adds_to_gradient else 0),
            releases=narrow + (made if adds_to_gradient else 0),
        )
        return
    yield Operation(makes=d_hidden + weights * e, releases=narrow, uncasts=rank.vocab * rank.width * e)
    yield Operation(
        gradients=0 if adds_to_gradient else weights * w,
        makes=weights * w if adds_to_gradient else 0,
        releases=weights * (e + (w if adds_to_gradient else 0)),
    )
    yield Operation(makes=tokens * rank.width * w, releases=d_hidden)
