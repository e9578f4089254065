"""Head and cross-entropy: from the hidden states through the gradient of the hidden states."""

from __future__ import annotations

import math

from scalecli.accounting.memory import cross_entropy
from scalecli.accounting.memory.operations import highest
from scalecli.accounting.memory.state import Bytes, State


def loss(state: State) -> Bytes:
    """Head and cross-entropy, forward and backward; nothing on ranks that have no head."""
    if not state.rank.last:
        return {}
    here = state.static(layers_gathered=1) | {
        "gradients": state.gradients_before(),
        "saved activations": state.layers_kept(state.rank.layers)
        + cross_entropy.head_input_saved(state.rank, state.computed),
        "autocast weight copies": state.layers_casts(state.rank.layers) + state.head_cast(),
    }
    return here | _loss_peak(state)


def _loss_peak(state: State) -> Bytes:
    """The higher of forward and backward, for all tokens or for the last chunk."""
    rank, recipe = state.rank, state.computed
    chunked = recipe.logits == "chunked"
    tokens = math.ceil(rank.tokens / recipe.logit_chunks) if chunked else rank.tokens
    operations = cross_entropy.loss_backward(rank, recipe, tokens, adds_to_gradient=chunked)
    top = highest(operations, accumulating=state.keeps_whole_gradients() and not state.shares_head())
    log_softmax = tokens * rank.vocab * cross_entropy.LOSS_BYTES
    others = 0
    if chunked:  # the head's gradient so far, and the hidden states' of the chunks before
        others = state.head_trained() * recipe.weight_bytes
        others += (rank.tokens - tokens) * rank.width * recipe.stream_bytes
    forward = cross_entropy.logits_forward(rank, recipe, tokens) + _widened_hidden(state, tokens)
    return {"logits and loss": max(forward + (others if chunked else 0), log_softmax + others + top.total)}


def _widened_hidden(state: State, tokens: int) -> int:
    """Hidden states in the stream's type beside the cast ones that the head reads; a chunk casts its own."""
    if state.computed.stream_bytes == state.computed.compute_bytes:
        return 0
    if state.recipe.logits == "chunked":
        return tokens * state.rank.width * state.computed.compute_bytes
    return state.rank.stream_tokens * state.rank.width * state.computed.stream_bytes
