"""Bytes that the forward pass of one layer keeps for its backward pass, weight copies left out.

For a dense bfloat16 layer with flash attention, fused norms and SwiGLU they are n (16 d + 8 f + 4 h + 8): n tokens, d
width, f feed-forward width, h heads.
"""

from __future__ import annotations

from functools import lru_cache

from scalecli.accounting.memory.decoder import Decoder
from scalecli.accounting.memory.layout import Layout
from scalecli.accounting.memory.rank import Rank
from scalecli.accounting.memory.recipe import Recipe
from scalecli.accounting.memory.tape import SAVED, Tape


def layer_saved(rank: Rank, recipe: Recipe) -> int:
    """Everything that one layer keeps when nothing is recomputed, its input included."""
    return _after_layer(rank, recipe, recomputed=False, offloaded=False).live[SAVED]


def layer_kept(rank: Rank, recipe: Recipe) -> int:
    """What one layer keeps under the recipe's recomputation."""
    recomputed = recipe.recompute != "none"
    return _after_layer(rank, recipe, recomputed=recomputed, offloaded=False).live[SAVED]


def layer_offloaded(rank: Rank, recipe: Recipe) -> int:
    """What of it is taken off the device where activations are offloaded."""
    recomputed = recipe.recompute != "none"
    return _after_layer(rank, recipe, recomputed=recomputed, offloaded=True).away


@lru_cache(maxsize=256)
def _after_layer(rank: Rank, recipe: Recipe, *, recomputed: bool, offloaded: bool) -> Tape:
    tape = Tape({}, accumulating=False, collects=False)
    decoder = Decoder(tape, rank, recipe, Layout())
    x = tape.make(rank.stream_tokens * rank.width, recipe.stream_bytes)
    x.needs = True
    decoder.layer(x, recomputed=recomputed, offloaded=offloaded)
    return tape
