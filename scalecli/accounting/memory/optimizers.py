"""Bytes that each optimizer keeps between steps, and needs for a moment within one.

Every function takes the trained parameters of one device and returns (states, temporaries) in bytes. Temporaries follow
PyTorch 2.13's implementations: `loop` works on one tensor at a time, `foreach` on all at once, `fused` in place; so
does every step on moments in a format of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from scalecli.accounting.memory.layout import Layout
from scalecli.accounting.memory.parameters import Parameter
from scalecli.accounting.memory.rank import Rank
from scalecli.accounting.memory.recipe import Recipe
from scalecli.accounting.memory.weights import shards_of, trained, weight_count

Parameters = Sequence[Parameter]
QUANTISED_BLOCK = (
    256  # values that share a float32 scale in 8-bit states (Dettmers et al., 2110.02861, section 2.1)
)
SMALLEST_QUANTISED = 4096  # values below which bitsandbytes keeps a tensor's states in float32
MKOR_BYTES = 2  # inverse factors are kept in half precision (Mozaffari et al., 2306.01685, section 3)
MUON_BYTES = 2  # Newton-Schulz runs in bfloat16 (Jordan et al., Muon)


def adamw(found: Parameters, recipe: Recipe) -> tuple[int, int]:
    """Two moments of every weight; the step holds the root of the second: one, or two of one tensor in PyTorch's loop,
    beside the one before it."""
    states = weight_count(found) * sum(recipe.moment_bytes)
    if recipe.optimizer_impl != "loop" or recipe.master_weights or not recipe.has_plain_states:
        return states, _temporaries(found, recipe)
    sizes = [0, *(p.values for p in _in_order(found))]
    return states, recipe.state_bytes * max((last + 2 * size for last, size in pairwise(sizes)), default=0)


def lamb(found: Parameters, recipe: Recipe) -> tuple[int, int]:
    """AdamW's moments; the step holds the whole update, whose norm scales it, beside the root."""
    return weight_count(found) * sum(recipe.moment_bytes), _temporaries(found, recipe, tensors=2)


def lion(found: Parameters, recipe: Recipe) -> tuple[int, int]:
    """One moment; the step holds the sign of an interpolation."""
    return weight_count(found) * recipe.moment_bytes[0], _temporaries(found, recipe)


def adamw_8bit(found: Parameters, recipe: Recipe) -> tuple[int, int]:
    """Two moments of one byte and a float32 scale a block; small tensors keep float32; one kernel updates in place."""
    small = [p for p in found if p.values < SMALLEST_QUANTISED]
    large = [p for p in found if p.values >= SMALLEST_QUANTISED]
    scales = 4 * sum(p.count * -(-p.values // QUANTISED_BLOCK) for p in large)
    return 2 * (weight_count(large) + scales) + 8 * weight_count(small), 0


def sgd(found: Parameters, recipe: Recipe) -> tuple[int, int]:
    """Nothing, with decoupled or no weight decay."""
    return 0, 0


def sgd_momentum(found: Parameters, recipe: Recipe) -> tuple[int, int]:
    """One momentum, updated in place."""
    return weight_count(found) * recipe.moment_bytes[0], 0


def lars(found: Parameters, recipe: Recipe) -> tuple[int, int]:
    """One momentum; the step holds the decayed gradient, whose norm scales it."""
    return weight_count(found) * recipe.moment_bytes[0], _temporaries(found, recipe)


def mkor(found: Parameters, recipe: Recipe) -> tuple[int, int]:
    """A momentum, and of every matrix the inverse factors of both sides in half precision (Mozaffari et al.,
    2306.01685, algorithm 1). The step holds one preconditioned gradient."""
    factors = sum(p.count * p.stack * (p.rows**2 + p.columns**2) for p in found if p.columns)
    states = weight_count(found) * recipe.moment_bytes[0] + MKOR_BYTES * factors
    return states, _temporaries(found, replace(recipe, optimizer_impl="loop"))


def muon(found: Parameters, recipe: Recipe) -> tuple[int, int]:
    """A momentum of every matrix, the rest by AdamW in a loop. The step holds the update and two iterates of
    Newton-Schulz of one matrix, and two Gram matrices of its shorter side."""
    matrices, rest = [p for p in found if p.is_matrix], [p for p in found if not p.is_matrix]
    states, others = adamw(rest, replace(recipe, optimizer_impl="loop"))
    states += weight_count(matrices) * recipe.moment_bytes[0]

    def held(p: Parameter) -> int:
        iterates = p.values * (recipe.state_bytes + 2 * MUON_BYTES)
        return iterates + 2 * min(p.rows, p.columns) ** 2 * MUON_BYTES

    return states, max([others, *map(held, matrices)])


def adafactor(found: Parameters, recipe: Recipe) -> tuple[int, int]:
    """Row and column means of squares (all squares of vectors); the step holds the estimate they span."""
    factored = sum(p.count * (p.values if not p.columns else p.stack * (p.rows + p.columns)) for p in found)
    return factored * recipe.moment_bytes[0], _temporaries(found, recipe)


def apollo(found: Parameters, recipe: Recipe) -> tuple[int, int]:
    """Two moments of the gradient projected to `optimizer_rank` rows, and its norm (Zhu et al., 2412.05270, table 1).

    The step holds one scaled gradient.
    """

    def states(p: Parameter) -> int:
        low = min(p.rows, p.columns)
        if low <= recipe.optimizer_rank:
            return 2 * p.values
        return p.stack * (2 * max(p.rows, p.columns) * recipe.optimizer_rank + 2)

    values = sum(p.count * states(p) for p in found)
    return values * recipe.moment_bytes[0], _temporaries(found, replace(recipe, optimizer_impl="loop"))


STATES: dict[str, Callable[[Parameters, Recipe], tuple[int, int]]] = {
    "adamw": adamw, "adamw-8bit": adamw_8bit, "lamb": lamb, "lion": lion, "muon": muon, "adafactor": adafactor,
    "apollo": apollo, "lars": lars, "mkor": mkor, "sgd": sgd, "sgd-momentum": sgd_momentum,
}  # fmt: skip
NEVER_FUSED = ("apollo", "mkor")
WHOLE = ("muon",)  # need whole matrices in the step, which are gathered for it


def optimizer_bytes(rank: Rank, recipe: Recipe, layout: Layout) -> tuple[int, int]:
    """(states, temporaries) of the recipe's optimizer on one device [bytes]; of its shards from zero1 on."""
    found, count = trained(rank, recipe), STATES[recipe.optimizer]
    if not layout.shards_at("zero1"):
        states, held = count(found, recipe)
        return states, held + _cast_gradients(found, recipe)
    if layout.sharding == "zero3":
        pieces = tuple(p.cut(shards_of(p, layout)) for p in found)
        states, held = count(pieces, recipe)
        held += _cast_gradients(pieces, recipe)
    else:
        states, held = _flat(found, recipe, layout)
    return states, max(held, count(found, recipe)[1]) if recipe.optimizer in WHOLE else held


def _flat(found: Parameters, recipe: Recipe, layout: Layout) -> tuple[int, int]:
    """Equal parts of one buffer; experts are shared by fewer ranks than the rest."""
    states = temporaries = 0
    for shards in {shards_of(p, layout) for p in found}:
        group = [p for p in found if shards_of(p, layout) == shards]
        kept, held = STATES[recipe.optimizer](group, recipe)
        states += -(-kept // shards)
        temporaries += -(-(held + _cast_gradients(group, recipe)) // shards)
    return states, temporaries


def steps_in_place(recipe: Recipe) -> bool:
    """One kernel reads and writes all formats, and makes no tensors."""
    return not recipe.has_plain_states or (
        recipe.optimizer_impl == "fused" and recipe.optimizer not in NEVER_FUSED
    )


def _cast_gradients(found: Parameters, recipe: Recipe) -> int:
    """The step reads gradients in the type that it computes with: casts of all at once, or of one after another."""
    if steps_in_place(recipe) or recipe.gradient_bytes == recipe.state_bytes:
        return 0
    size = weight_count(found) if recipe.optimizer_impl == "foreach" else _largest(found)
    return recipe.state_bytes * size


def _temporaries(found: Parameters, recipe: Recipe, tensors: int = 1) -> int:
    """So many tensors of the size of all weights at once, or of the largest."""
    if steps_in_place(recipe):
        return 0
    size = weight_count(found) if recipe.optimizer_impl == "foreach" else _largest(found)
    return tensors * size * recipe.state_bytes


def _in_order(found: Parameters) -> Parameters:
    """Every tensor and the one before it, where equal layers follow one another."""
    layer = [p for p in found if p.count > 1]
    if not layer:
        return found
    begin = found.index(layer[0])
    return [*found[:begin], *layer, *layer, *found[begin + len(layer) :]]


def _largest(found: Iterable[Parameter]) -> int:
    return max((p.values for p in found), default=0)
