"""The backward pass from the final norm to the embedding."""

from __future__ import annotations

from dataclasses import replace

from scalecli.accounting.memory import saved, weights
from scalecli.accounting.memory.operations import Level, highest, layer_backward, norm_backward
from scalecli.accounting.memory.rank import Rank
from scalecli.accounting.memory.recipe import Recipe
from scalecli.accounting.memory.state import Bytes, State


def backward(state: State) -> Bytes:
    """The highest of final norm, layers and embedding.

    From layer to layer saved bytes fall and gradients grow by the same amounts, so that the first or the last layer is
    the highest; the last but one is where a buffer of sharded gradients appears.
    """
    last = state.rank.layers - 1
    candidates = [_layer_backward(state, below) for below in {0, max(0, last - 1), last}]
    if state.rank.last:
        candidates.append(_final_norm_backward(state))
    if state.rank.first:
        candidates.append(_embedding_backward(state))
    return max(candidates, key=lambda parts: sum(parts.values()))


def _final_norm_backward(state: State) -> Bytes:
    """Of the norm before the head."""
    rank, recipe = state.rank, state.computed
    top = highest(norm_backward(rank, recipe), accumulating=state.keeps_whole_gradients())
    own = saved.residual_saved(rank, recipe) + saved.norm_statistics(rank, recipe)
    gradient = rank.stream_tokens * rank.width * recipe.stream_bytes
    return state.static() | {
        "gradients": state.gradients_above(0),
        "saved activations": state.layers_kept(rank.layers) + own + top.saved,
        "autocast weight copies": state.layers_casts(rank.layers),
        "working tensors": gradient + top.working + state.waiting_head_gradient(),
    }


def _layer_backward(state: State, below: int) -> Bytes:
    """Backward of the layer that has `below` layers before it on this rank."""
    recipe = state.computed
    part = _sequence_chunk(state)
    needs = not (recipe.lora_rank and part.first and below == 0)
    top = highest(
        layer_backward(part, recipe, input_needs_gradient=needs),
        accumulating=state.keeps_whole_gradients(),
    )
    top = max(top, _end_of_recomputation(part, recipe), key=lambda level: level.total)
    casts = state.own_casts() - (state.frozen_casts() if below == 0 else 0)
    gradient = state.rank.stream_tokens * state.rank.width * recipe.stream_bytes
    return state.static() | {
        "gradients": state.gradients_above(state.rank.layers - 1 - below) + top.gradients,
        "communication buffers": state.reduction_buffer() if below < state.rank.layers - 1 else 0,
        "saved activations": state.layers_kept(below) + _computing_layer(state, part, below) + top.saved,
        "autocast weight copies": state.layers_casts(below) + casts + top.casts,
        "working tensors": gradient
        + top.working
        + state.waiting_head_gradient()
        + weights.dequantised_bytes(state.rank, recipe),
    }


def _end_of_recomputation(part: Rank, recipe: Recipe) -> Level:
    """What a recomputed layer holds beyond what it saves: the normed stream that autocast has cast, and the last
    branch before and after dropout."""
    if recipe.recompute == "none":
        return Level()
    values = part.stream_tokens * part.width
    normed = values * recipe.stream_bytes if recipe.stream_bytes != recipe.compute_bytes else 0
    return Level(working=normed + (2 * values * recipe.compute_bytes if recipe.dropout else 0))


def _sequence_chunk(state: State) -> Rank:
    """This rank with the tokens that a layer is recomputed and taken backward for at once."""
    chunks = state.recipe.sequence_chunks
    if chunks == 1:
        return state.rank
    sizes = {
        name: -(-getattr(state.rank, name) // chunks)
        for name in ("tokens", "stream_tokens", "visits", "slots")
    }
    return replace(state.rank, **sizes)


def _computing_layer(state: State, part: Rank, below: int) -> int:
    """Saved by the layer at work; a chunk of the sequence needs its whole input, keys and values besides."""
    recipe = state.computed
    own = saved.layer_saved(part, recipe) + saved.unused_products(part, recipe)
    if below == 0:
        own -= state.frozen_input()
    if recipe.recompute != "none" and recipe.norm == "decomposed" and recipe.stream_bytes < 4:
        own += saved.residual_saved(part, recipe)  # the kept input beside its float32 copy
    if part.tokens < state.rank.tokens:
        own += saved.residual_saved(state.rank, recipe)
        own += state.rank.tokens * (state.rank.packed - state.rank.mixed) * recipe.compute_bytes
    return own


def _embedding_backward(state: State) -> Bytes:
    """The embedding's dense gradient beside the gradient of its output.

    A tied embedding has the head's gradient waiting, and their sum is a third tensor.
    """
    rank, recipe = state.rank, state.computed
    if recipe.lora_rank:
        return state.static() | {"gradients": state.all_gradients}
    stream = rank.stream_tokens * rank.width * recipe.stream_bytes
    dense = rank.vocab * rank.width * recipe.weight_bytes
    working = stream + (dense if state.accumulating else 0)
    if state.shares_head():
        working = state.waiting_head_gradient() + max(stream + dense, 2 * dense)
    if state.layout.shards_at("zero2"):
        return _outermost_reduction(state, stream)
    return state.static() | {"gradients": state.all_gradients, "working tensors": working}


def _outermost_reduction(state: State, stream: int) -> Bytes:
    """Embedding, final norm and head have whole gradients, and then the buffer these are reduced from."""
    whole = (state.top_trained() + state.rank.embedding_weights) * state.recipe.weight_bytes
    layers = state.gradients_before() if state.accumulating else state.layers_gradients(state.rank.layers)
    return state.static(layers_gathered=0) | {
        "gradients": layers + whole,
        "communication buffers": max(whole, state.reduction_buffer()),
        "working tensors": stream,
    }
