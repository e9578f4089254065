"""The backward pass of one layer as a sequence of operations, each with what it makes and what it lets go.

The order is autograd's: latest forward operation first. The highest point is found by walking the sequence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from scalecli.accounting.memory import saved
from scalecli.accounting.memory.rank import Rank
from scalecli.accounting.memory.recipe import Recipe

DECOMPOSED_NORM_STREAMS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation [bytes]: `gradients` of weights stay; `makes` and `releases` are working tensors; `consumes` are
    saved tensors and `uncasts` weight copies that are free once it is done."""

    gradients: int = 0
    makes: int = 0
    releases: int = 0
    consumes: int = 0
    uncasts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Bytes alive at one point of backward, beyond what was alive when the sequence began; may be negative."""

    gradients: int = 0
    working: int = 0
    saved: int = 0
    casts: int = 0

    @property
    def total(self) -> int:
        return self.gradients + self.working + self.saved + self.casts


def highest(operations: Iterable[Operation], *, accumulating: bool) -> Level:
    """The highest level of a sequence. When gradients of an earlier micro-batch are there already, a weight's new
    gradient lives only until it is added."""
    gradients = working = kept = casts = 0
    top = Level()
    for op in operations:
        working += op.makes
        if gradients + op.gradients + working + kept + casts > top.total:
            top = Level(gradients=gradients + op.gradients, working=working, saved=kept, casts=casts)
        if not accumulating:
            gradients += op.gradients
        working -= op.releases
        kept -= op.consumes
        casts -= op.uncasts
    return top


def layer_backward(rank: Rank, recipe: Recipe, *, input_needs_gradient: bool = True) -> Iterator[Operation]:
    """All of one layer; its output's gradient is alive before and becomes its input's."""
    yield from _branch(
        rank, recipe, _experts(rank, recipe) if rank.routed > 1 else _feed_forward(rank, recipe)
    )
    yield from norm_backward(rank, recipe)
    attention = _attention(rank, recipe, input_needs_gradient=input_needs_gradient)
    yield from _branch(rank, recipe, attention)
    if input_needs_gradient:
        yield from norm_backward(rank, recipe)


def _branch(rank: Rank, recipe: Recipe, operations: Iterator[Operation]) -> Iterator[Operation]:
    """A residual branch: the stream's gradient is cast and masked for it where types differ or dropout is on."""
    values = rank.stream_tokens * rank.width
    cast = values * recipe.compute_bytes if recipe.stream_bytes != recipe.compute_bytes else 0
    if cast:
        yield Operation(makes=cast)
    if recipe.dropout:
        yield Operation(makes=values * recipe.compute_bytes, releases=cast, consumes=values)
    copied = values * recipe.compute_bytes if recipe.dropout else cast
    for op in operations:
        yield op
        if copied:  # the branch's own gradient is read by its first operation only
            yield Operation(releases=copied)
            copied = 0


def norm_backward(rank: Rank, recipe: Recipe) -> Iterator[Operation]:
    """Makes the gradient of its input, which is then added to the stream's; its input and statistics are done.

    Decomposed, an RMS norm holds four float32 streams at its highest, when its output's gradient is gone already.
    """
    values = rank.stream_tokens * rank.width
    gradient = values * recipe.stream_bytes
    decomposed = recipe.norm == "decomposed" and not rank.layer_norm
    if decomposed:
        yield Operation(releases=gradient)
    makes = DECOMPOSED_NORM_STREAMS * 4 * values if decomposed else gradient
    yield Operation(
        gradients=0 if recipe.lora_rank else rank.norm_weights * recipe.weight_bytes,
        makes=makes,
        releases=makes if decomposed else makes + gradient,
        consumes=saved.residual_saved(rank, recipe) + saved.norm_statistics(rank, recipe),
    )


def _projection(
    recipe: Recipe,
    *,
    rows: int,
    inputs: int,
    outputs: int,
    weights: int,
    consumes: int,
    casts_input: bool,
    owns_gradient: bool = True,
    adds_input: bool = False,
) -> Iterator[Operation]:
    """A matrix product: gradients of its input (rows times inputs) and of its weights.

    Under autocast both come in the computed type first, and are cast one after the other. `adds_input`: the input
    has a gradient already, to which this one is added.
    """
    e, w = recipe.compute_bytes, recipe.weight_bytes
    trained = not recipe.lora_rank
    autocast = recipe.precision == "bf16-autocast"
    d_input, d_output = rows * inputs * e, rows * outputs * e if owns_gradient else 0
    d_weight = weights * e if trained else 0
    if not autocast:
        yield Operation(gradients=d_weight, makes=d_input, releases=d_output, consumes=consumes)
    else:
        yield Operation(makes=d_input + d_weight, releases=d_output, consumes=consumes, uncasts=weights * e)
    if adds_input and not (autocast and casts_input):
        yield Operation(releases=d_input)
    if autocast and trained:
        yield Operation(gradients=weights * w, releases=d_weight)
    if autocast and casts_input:
        yield Operation(makes=rows * inputs * w, releases=d_input + (rows * inputs * w if adds_input else 0))


def _feed_forward(rank: Rank, recipe: Recipe) -> Iterator[Operation]:
    yield from _down(rank, recipe, owns_gradient=False)
    yield from _blocks(rank, recipe, shared_input=saved.projection_input(rank, recipe))


def _down(rank: Rank, recipe: Recipe, *, owns_gradient: bool) -> Iterator[Operation]:
    hidden = rank.slots * rank.ffn * recipe.compute_bytes
    yield from _projection(
        recipe, rows=rank.slots, inputs=rank.ffn, outputs=rank.width, weights=rank.expert_matrices[-1],
        consumes=0 if recipe.lora_rank else hidden, casts_input=False, owns_gradient=owns_gradient,
    )  # fmt: skip


def _blocks(rank: Rank, recipe: Recipe, *, shared_input: int) -> Iterator[Operation]:
    """Activation, up and gate projections; the gradient of the hidden values is alive before."""
    hidden = rank.slots * rank.ffn * recipe.compute_bytes
    dense = rank.routed == 1
    autocast = recipe.precision == "bf16-autocast"
    frozen = bool(recipe.lora_rank)
    own_cast = shared_input if autocast and dense and not frozen else 0

    def projection(consumes: int, adds_input: bool) -> Iterator[Operation]:
        return _projection(
            recipe, rows=rank.slots, inputs=rank.width, outputs=rank.ffn, weights=rank.expert_matrices[0],
            consumes=0 if frozen else consumes, casts_input=dense, adds_input=adds_input,
        )  # fmt: skip

    if not rank.gated:
        yield Operation(makes=hidden, releases=hidden, consumes=hidden)
        yield from projection(shared_input, False)
        return
    yield Operation(
        makes=2 * hidden, releases=hidden, consumes=2 * hidden
    )  # product of up and activated gate
    yield from projection(own_cast, False)  # up
    yield Operation(makes=hidden, releases=hidden, consumes=hidden)  # activation of the gate
    yield from projection(shared_input, True)  # gate


def _experts(rank: Rank, recipe: Recipe) -> Iterator[Operation]:
    """Results are gathered back, weighted, computed by the blocks, and the visits scattered to their tokens."""
    e = recipe.compute_bytes
    visiting, tokens = rank.slots * rank.width * e, rank.tokens * rank.width * e
    yield Operation(makes=visiting, consumes=visiting)
    yield Operation(
        makes=2 * visiting, releases=2 * visiting, consumes=visiting + rank.slots * e
    )  # weights of the results, and their sum over the width
    yield from _down(rank, recipe, owns_gradient=True)
    yield from _blocks(rank, recipe, shared_input=visiting)
    yield Operation(makes=tokens, releases=visiting)
    cast = recipe.stream_bytes != e
    if cast:
        yield Operation(makes=rank.tokens * rank.width * recipe.stream_bytes, releases=tokens)
    chances = rank.tokens * rank.routed
    indices = saved.router_saved(rank, recipe) - visiting * 3 - rank.slots * e
    yield Operation(makes=8 * chances, releases=8 * chances, consumes=indices)
    yield from _projection(
        recipe, rows=rank.tokens, inputs=rank.width, outputs=0, weights=rank.router_weights,
        consumes=0 if recipe.lora_rank else saved.projection_input(rank, recipe), casts_input=cast,
    )  # fmt: skip
    yield Operation(releases=rank.tokens * rank.width * recipe.stream_bytes)


def _attention(rank: Rank, recipe: Recipe, *, input_needs_gradient: bool) -> Iterator[Operation]:
    e = recipe.compute_bytes
    out, packed = rank.tokens * rank.mixed * e, rank.tokens * rank.packed * e
    if recipe.lora_rank:
        yield from _adapter(rank, recipe, inputs=rank.mixed, outputs=rank.width, consumes=0)
    yield from _projection(
        recipe, rows=rank.tokens, inputs=rank.mixed, outputs=rank.width, weights=rank.attention_matrices[1],
        consumes=0, casts_input=False, owns_gradient=False,
    )  # fmt: skip
    if recipe.lora_rank:
        yield Operation(releases=out)
    scores = 0 if recipe.attention == "flash" else 2 * rank.tokens * rank.heads * rank.attended * e
    yield Operation(
        makes=packed + scores, releases=out + scores, consumes=saved.attention_saved(rank, recipe)
    )
    if rank.qk_norm:
        normed = packed - rank.tokens * rank.kv_heads * rank.qk_norm * e
        yield Operation(gradients=2 * rank.qk_norm * recipe.weight_bytes, makes=normed)
        yield Operation(
            makes=packed, releases=packed + normed, consumes=saved.query_key_norm_saved(rank, recipe)
        )
    reads = saved.projection_input(rank, recipe)
    if recipe.lora_rank:
        yield from _adapter(rank, recipe, inputs=rank.width, outputs=rank.packed, consumes=reads)
    if recipe.lora_rank and not input_needs_gradient:
        return
    yield from _projection(
        recipe, rows=rank.tokens, inputs=rank.width, outputs=rank.packed, weights=rank.attention_matrices[0],
        consumes=0 if recipe.lora_rank else reads, casts_input=not recipe.lora_rank,
    )  # fmt: skip


def _adapter(rank: Rank, recipe: Recipe, *, inputs: int, outputs: int, consumes: int) -> Iterator[Operation]:
    """The two small products of a LoRA branch; leaves the gradient of the input for the frozen product to add to."""
    e, w = recipe.compute_bytes, recipe.weight_bytes
    middle = rank.tokens * recipe.lora_rank * e
    yield Operation(gradients=outputs * recipe.lora_rank * w, makes=middle, consumes=middle)
    yield Operation(
        gradients=inputs * recipe.lora_rank * w,
        makes=rank.tokens * inputs * e,
        releases=middle,
        consumes=consumes,
    )
