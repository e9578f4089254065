"""The tensors of the model on one device, in the order in which PyTorch holds them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from scalecli.accounting.memory.rank import Rank
from scalecli.accounting.memory.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Parameter:
    """One tensor: `stack` matrices of rows × columns, which is cut along the first of these dimensions when sharded.

    A vector has no columns. Experts are always a stack.
    """

    name: str
    rows: int
    columns: int = 0
    stack: int = 1
    count: int = 1
    """Equal tensors, one in every layer."""
    trained: bool = True
    expert: bool = False
    quantised: bool = False

    @property
    def values(self) -> int:
        """Of one of them."""
        return self.stack * self.rows * max(1, self.columns)

    @property
    def is_matrix(self) -> bool:
        """Two dimensions, which is what optimizers for matrices ask for."""
        return self.columns > 0 and not self.expert

    def cut(self, shards: int) -> Parameter:
        """The largest of so many shards: whole matrices of a stack, or whole rows."""
        if self.stack >= shards:
            return replace(self, stack=-(-self.stack // shards))
        return replace(self, rows=-(-self.rows // shards))

    def shard(self, shards: int) -> int:
        """Values of the largest shard."""
        return self.cut(shards).values


@lru_cache(maxsize=256)
def parameters(rank: Rank, recipe: Recipe) -> tuple[Parameter, ...]:
    """All of them, those of the layers once."""
    embedding, top = outer_parameters(rank, recipe)
    layer = (replace(parameter, count=rank.layers) for parameter in layer_parameters(rank, recipe))
    return (*embedding, *layer, *top)


def outer_parameters(rank: Rank, recipe: Recipe) -> tuple[tuple[Parameter, ...], tuple[Parameter, ...]]:
    """The embedding; final norm and head; as far as they are on this device."""
    trained = recipe.trained.weights
    table = Parameter("embedding", rank.vocab, rank.width, trained=trained)
    top: list[Parameter] = []
    if rank.last:
        top += _norm("norm", rank.width, rank, recipe)
        if rank.has_head and not rank.shares_head:
            top.append(Parameter("head", rank.vocab, rank.width, trained=trained))
    return (table,) if rank.first else (), tuple(top)


def layer_parameters(rank: Rank, recipe: Recipe) -> tuple[Parameter, ...]:
    """Those of one layer."""
    return tuple(_attention(rank, recipe)) + tuple(_feed_forward(rank, recipe))


def _attention(rank: Rank, recipe: Recipe) -> Iterator[Parameter]:
    if recipe.trained.branch_scales:
        yield Parameter("attention_scale", rank.width)
        yield Parameter("ffn_scale", rank.width)
    yield from _norm("attention_norm", rank.width, rank, recipe)
    if recipe.trained.inner_scales:
        yield Parameter("key_value_scale", 2 * rank.kv_heads * rank.head_dim)
    yield from _projection("packed", rank.width, rank.packed, recipe)
    yield from _projection("out", rank.mixed, rank.width, recipe)
    if rank.qk_norm:
        yield Parameter("query_norm", rank.head_dim, trained=recipe.trained.norms)
        yield Parameter("key_norm", rank.head_dim, trained=recipe.trained.norms)
    yield from _norm("ffn_norm", rank.width, rank, recipe)


def _feed_forward(rank: Rank, recipe: Recipe) -> Iterator[Parameter]:
    if recipe.trained.inner_scales and rank.routed == 1:
        yield Parameter("hidden_scale", rank.ffn)
    blocks = [("up", rank.width, rank.ffn), ("down", rank.ffn, rank.width)]
    if rank.gated:
        blocks.insert(1, ("gate", rank.width, rank.ffn))
    for name, inputs, outputs in blocks:
        if rank.routed == 1:
            yield from _projection(name, inputs, outputs, recipe)
        else:
            yield Parameter(
                name, inputs, outputs, stack=rank.experts, trained=recipe.trained.weights, expert=True,
                quantised=recipe.base_bits is not None,
            )  # fmt: skip
    if rank.routed > 1:
        yield Parameter("router", rank.routed, rank.width, trained=recipe.trained.weights)


def _norm(name: str, width: int, rank: Rank, recipe: Recipe) -> Iterator[Parameter]:
    yield Parameter(name, width, trained=recipe.trained.norms)
    if rank.layer_norm:
        yield Parameter(f"{name}.bias", width, trained=recipe.trained.norms)


def _projection(name: str, inputs: int, outputs: int, recipe: Recipe) -> Iterator[Parameter]:
    """The matrix, then its adapter's, then its bias."""
    quantised = recipe.base_bits is not None
    yield Parameter(name, outputs, inputs, trained=recipe.trained.weights, quantised=quantised)
    if adapted(name, recipe):
        yield Parameter(f"{name}.adapter_down", recipe.lora_rank, inputs)
        yield Parameter(f"{name}.adapter_up", outputs, recipe.lora_rank)
    if recipe.trained.biases:
        yield Parameter(f"{name}.bias", outputs)


def adapted(name: str, recipe: Recipe) -> bool:
    """Whether a projection has an adapter."""
    targets = (
        ("packed", "out") if recipe.lora_targets == "attention" else ("packed", "out", "up", "gate", "down")
    )
    return recipe.trained.adapters and name in targets
