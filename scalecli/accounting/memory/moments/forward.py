"""The forward pass of all layers and the final norm."""

from __future__ import annotations

from scalecli.accounting.memory import saved, weights
from scalecli.accounting.memory.state import Bytes, State


def forward(state: State) -> Bytes:
    """The end of the last layer, or the gathering of fully sharded weights."""
    last = state.static() | {
        "gradients": state.gradients_before(),
        "saved activations": state.layers_kept(state.rank.layers),
        "autocast weight copies": state.layers_casts(state.rank.layers),
        "working tensors": _forward_working(state),
    }
    moments = [last]
    if state.layout.shards_at("zero3"):
        moments += [_gathering_first(state), _gathering_last(state)]
    return max(moments, key=lambda parts: sum(parts.values()))


def _gathering_first(state: State) -> Bytes:
    """The first layer's weights being gathered: the outermost unit's buffer is still there."""
    outermost = (state.rank.embedding_weights + state.rank.head_weights) * state.computed.compute_bytes
    stream = state.rank.stream_tokens * state.rank.width * state.computed.stream_bytes
    return state.static() | {
        "gradients": state.gradients_before(),
        "communication buffers": outermost,
        "working tensors": stream,
    }


def _gathering_last(state: State) -> Bytes:
    """The last layer's weights being gathered: the buffer of the one before is still there."""
    layers = weights.LAYERS_GATHERED + 1 if state.rank.layers > 1 else weights.LAYERS_GATHERED
    stream = state.rank.stream_tokens * state.rank.width * state.computed.stream_bytes
    return state.static(layers_gathered=layers) | {
        "gradients": state.gradients_before(),
        "saved activations": state.layers_kept(state.rank.layers - 1),
        "autocast weight copies": state.layers_casts(state.rank.layers - 1),
        "working tensors": stream,
    }


def _forward_working(state: State) -> int:
    """What the last layer and the final norm hold beyond what is kept."""
    rank, e, r = state.rank, state.computed.compute_bytes, state.computed.stream_bytes
    stream = rank.stream_tokens * rank.width
    ending = stream * r * (2 if rank.last else 1) + (0 if rank.last else stream * e)
    if state.recipe.recompute == "none":
        return ending
    return max(ending, 2 * stream * r + _blocks_working(state))


def _blocks_working(state: State) -> int:
    """The feed-forward block of a recomputed layer at its highest, without what selective recomputation keeps."""
    rank, e = state.rank, state.computed.compute_bytes
    hidden, result = rank.slots * rank.ffn * e, rank.slots * rank.width * e
    selective = state.recipe.recompute == "selective"
    cast = weights.cast_bytes(rank.expert_matrices[0], state.computed)
    casts_input = result if cast and rank.routed == 1 else 0
    routing = saved.router_saved(rank, state.computed) - 2 * result - rank.slots * e if rank.routed > 1 else 0
    activated = (2 if rank.gated else 1) * hidden  # with the activated gate
    computed = 0 if selective else hidden  # up projection
    multiplying = activated + computed - (result if selective else 0)
    projecting = activated - hidden + computed + cast + casts_input - (result if selective else 0)
    descending = hidden + cast + (0 if selective else result)
    return routing + max(multiplying, projecting, descending)
