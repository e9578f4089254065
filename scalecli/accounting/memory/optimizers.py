"""Bytes that each optimizer keeps between steps, and needs for a moment within one.

Every function takes the trained tensors of one device and returns (states, temporaries) in bytes. Temporaries follow
PyTorch 2.13's implementations: `loop` works on one tensor at a time, `foreach` on all at once, `fused` in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from scalecli.accounting.memory.layout import Layout
from scalecli.accounting.memory.rank import Rank
from scalecli.accounting.memory.recipe import Recipe

QUANTISED_BLOCK = (
    256  # values that share a float32 scale in 8-bit states (Dettmers et al., 2110.02861, section 2.1)
)
MKOR_BYTES = 2  # inverse factors are kept in half precision (Mozaffari et al., 2306.01685, section 3)
MUON_BYTES = 2  # Newton-Schulz runs in bfloat16 (Jordan et al., Muon)


@dataclass(frozen=True, slots=True)
class Tensor:
    """Equal trained tensors: `count` of them, each `stack` matrices of rows times columns (vectors: one row)."""

    count: int
    rows: int
    columns: int
    stack: int = 1
    expert: bool = False
    before: int = 0
    """Values of the tensor that comes before it in a layer; 0 after a vector."""

    @property
    def values(self) -> int:
        return self.stack * self.rows * self.columns

    @property
    def is_vector(self) -> bool:
        return self.rows == 1 and self.stack == 1


def trained_tensors(rank: Rank, recipe: Recipe) -> tuple[Tensor, ...]:
    """The trained tensors on one device."""
    if recipe.lora_rank:
        r, layers = recipe.lora_rank, rank.layers
        sides = (rank.width, rank.packed, rank.mixed, rank.width)
        return tuple(
            Tensor(layers, r, side, before=r * earlier)
            for earlier, side in zip((0, *sides), sides, strict=False)
        )
    d, layers = rank.width, rank.layers
    tied = rank.tied and rank.first and rank.last
    tensors = [
        Tensor(int(rank.first), rank.vocab, d),
        Tensor((2 * layers + rank.last) * (2 if rank.layer_norm else 1), 1, d),
        Tensor(layers, d, rank.packed),
        Tensor(layers, rank.mixed, d, before=d * rank.packed),
        Tensor(2 * layers if rank.qk_norm else 0, 1, rank.qk_norm),
        Tensor(layers if rank.routed > 1 else 0, d, rank.routed),
        _feed_forward_tensors(rank),
        Tensor(int(rank.last and not tied), rank.vocab, d),
    ]
    return tuple(tensor for tensor in tensors if tensor.count)


def _feed_forward_tensors(rank: Rank) -> Tensor:
    """The matrices of all feed-forward blocks; those of a layer stand one after another."""
    return Tensor(
        rank.layers * (3 if rank.gated else 2),
        rank.width,
        rank.ffn,
        stack=rank.experts,
        expert=rank.routed > 1,
        before=rank.experts * rank.width * rank.ffn,
    )


def adamw(tensors: tuple[Tensor, ...], recipe: Recipe) -> tuple[int, int]:
    """Two moments of every weight; the step holds the root of the second: one, or two of the largest in a loop."""
    return 2 * _total(tensors) * recipe.state_bytes, _temporaries(tensors, recipe, at_once=1, in_loop=2)


def lamb(tensors: tuple[Tensor, ...], recipe: Recipe) -> tuple[int, int]:
    """AdamW's moments; the step holds the whole update, whose norm scales it, beside the root."""
    return 2 * _total(tensors) * recipe.state_bytes, _temporaries(tensors, recipe, at_once=2, in_loop=2)


def lion(tensors: tuple[Tensor, ...], recipe: Recipe) -> tuple[int, int]:
    """One moment; the step holds the sign of an interpolation."""
    return _total(tensors) * recipe.state_bytes, _temporaries(tensors, recipe, at_once=1, in_loop=1)


def adamw_8bit(tensors: tuple[Tensor, ...], recipe: Recipe) -> tuple[int, int]:
    """Two moments of one byte and a float32 scale a block; vectors keep float32; updated in place by one kernel."""
    vectors = [t for t in tensors if t.is_vector]
    matrices = [t for t in tensors if not t.is_vector]
    scales = sum(t.count * -(-t.values // QUANTISED_BLOCK) for t in matrices) * 4
    return 2 * (_total(matrices) + scales) + 8 * _total(vectors), 0


def sgd(tensors: tuple[Tensor, ...], recipe: Recipe) -> tuple[int, int]:
    """Nothing, with decoupled or no weight decay."""
    return 0, 0


def sgd_momentum(tensors: tuple[Tensor, ...], recipe: Recipe) -> tuple[int, int]:
    """One momentum, updated in place."""
    return _total(tensors) * recipe.state_bytes, 0


def lars(tensors: tuple[Tensor, ...], recipe: Recipe) -> tuple[int, int]:
    """One momentum; the step holds the decayed gradient, whose norm scales it."""
    return _total(tensors) * recipe.state_bytes, _temporaries(tensors, recipe, at_once=1, in_loop=1)


def mkor(tensors: tuple[Tensor, ...], recipe: Recipe) -> tuple[int, int]:
    """A momentum, and of every matrix the inverse factors of both sides in half precision (Mozaffari et al.,
    2306.01685, algorithm 1). The step holds one preconditioned gradient."""
    factors = sum(t.count * t.stack * (t.rows**2 + t.columns**2) for t in tensors if not t.is_vector)
    return _total(tensors) * recipe.state_bytes + MKOR_BYTES * factors, _largest(tensors) * recipe.state_bytes


def muon(tensors: tuple[Tensor, ...], recipe: Recipe) -> tuple[int, int]:
    """A momentum of every matrix; vectors by AdamW. The step holds the update and two iterates of Newton-Schulz of
    one matrix, and two Gram matrices of its shorter side."""
    vectors = [t for t in tensors if t.is_vector]
    matrices = [t for t in tensors if not t.is_vector]
    states = (_total(matrices) + 2 * _total(vectors)) * recipe.state_bytes

    def held(t: Tensor) -> int:
        iterates = t.rows * t.columns * (recipe.state_bytes + 2 * MUON_BYTES)
        return iterates + 2 * min(t.rows, t.columns) ** 2 * MUON_BYTES

    return states, max((held(t) for t in matrices), default=0)


def adafactor(tensors: tuple[Tensor, ...], recipe: Recipe) -> tuple[int, int]:
    """Row and column means of squares (all squares of vectors); the step holds the estimate they span."""
    factored = sum(t.count * (t.values if t.is_vector else t.stack * (t.rows + t.columns)) for t in tensors)
    return factored * recipe.state_bytes, _temporaries(tensors, recipe, at_once=1, in_loop=1)


def apollo(tensors: tuple[Tensor, ...], recipe: Recipe) -> tuple[int, int]:
    """Two moments of the gradient projected to `optimizer_rank` rows, and its norm (Zhu et al., 2412.05270, table 1).

    The step holds one scaled gradient; a fused or foreach step changes nothing.
    """

    def states(t: Tensor) -> int:
        low = min(t.rows, t.columns)
        if low <= recipe.optimizer_rank:
            return 2 * t.values
        return t.stack * (2 * max(t.rows, t.columns) * recipe.optimizer_rank + 2)

    values = sum(t.count * states(t) for t in tensors)
    return values * recipe.state_bytes, _largest(tensors) * recipe.state_bytes


STATES: dict[str, Callable[[tuple[Tensor, ...], Recipe], tuple[int, int]]] = {
    "adamw": adamw, "adamw-8bit": adamw_8bit, "lamb": lamb, "lion": lion, "muon": muon, "adafactor": adafactor,
    "apollo": apollo, "lars": lars, "mkor": mkor, "sgd": sgd, "sgd-momentum": sgd_momentum,
}  # fmt: skip


def optimizer_bytes(rank: Rank, recipe: Recipe, layout: Layout) -> tuple[int, int]:
    """(states, temporaries) of the recipe's optimizer on one device [bytes]; shards of them from zero1 on.

    Shards are taken of every tensor; an optimizer that needs whole matrices has to gather them.
    """
    tensors = trained_tensors(rank, recipe)
    states = temporaries = 0
    for group, shards in (
        (tuple(t for t in tensors if not t.expert), layout.shards),
        (tuple(t for t in tensors if t.expert), layout.expert_shards),
    ):
        if not group:
            continue
        kept, held = STATES[recipe.optimizer](group, recipe)
        held += _widened_gradients(group, recipe)
        divisor = shards if layout.shards_at("zero1") else 1
        states += -(-kept // divisor)
        held = -(-held // divisor)
        temporaries = temporaries + held if recipe.optimizer_impl == "foreach" else max(temporaries, held)
    return states, temporaries


def _widened_gradients(tensors: tuple[Tensor, ...], recipe: Recipe) -> int:
    """With master weights the step reads gradients in float32: all at once, or one after another."""
    if not recipe.master_weights or recipe.optimizer_impl == "fused":
        return 0
    return 4 * (_total(tensors) if recipe.optimizer_impl == "foreach" else _largest(tensors))


def _temporaries(tensors: tuple[Tensor, ...], recipe: Recipe, *, at_once: int, in_loop: int) -> int:
    """In a loop: `in_loop` of one tensor, beside what is left of the one before it."""
    if recipe.optimizer_impl == "fused":
        return 0
    if recipe.optimizer_impl == "foreach":
        return at_once * _total(tensors) * recipe.state_bytes
    return max(t.before + in_loop * t.values for t in tensors) * recipe.state_bytes


def _total(tensors: Iterable[Tensor]) -> int:
    return sum(t.count * t.values for t in tensors)


def _largest(tensors: Iterable[Tensor]) -> int:
    return max(t.values for t in tensors)
