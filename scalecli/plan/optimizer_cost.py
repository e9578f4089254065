"""What each optimizer costs beside the gradient: states, FLOPs of a step, and what replicas exchange."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scalecli.accounting.flops import training_flops_per_token
from scalecli.accounting.memory import Layout, Recipe
from scalecli.accounting.memory.optimizers import STATES
from scalecli.accounting.memory.parameters import Parameter
from scalecli.accounting.memory.rank import rank_of
from scalecli.accounting.memory.weights import trained
from scalecli.accounting.shape import ModelShape
from scalecli.data.catalogue import Optimizer, optimizers

GRADIENT_BYTES = 2
"""Of one weight, exchanged in bfloat16."""
# What `step_flops` of the catalogue multiplies, for a matrix of m x n weights with m <= n, and rank r.
MONOMIALS: dict[str, Callable[[int, int, int], int]] = {
    "weight": lambda m, n, _: m * n,
    "short": lambda m, n, _: m * m * n,
    "sides": lambda m, n, _: m * n * (m + n),
    "cube": lambda m, n, _: m**3,
    "squares": lambda m, n, _: m * m + n * n,
    "rank": lambda m, n, r: m * n * min(m, r),
}


@dataclass(frozen=True, slots=True)
class OptimizerCost:
    """Of one step on the whole model: bytes of states in float32, FLOPs, bytes that replicas exchange.

    `share` is the step's FLOPs over those of forward and backward at the batch.
    """

    name: str
    state_bytes: float
    step_flops: float
    share: float
    traffic_bytes: float
    rule: str
    source: str
    note: str


def optimizer_costs(shape: ModelShape, *, batch_tokens: float, sequence_length: int) -> list[OptimizerCost]:
    """Every optimizer of the catalogue, the fewest state bytes first."""
    recipe = Recipe(precision="fp32")
    rank = rank_of(shape, recipe, Layout(), micro_batch_sequences=1, sequence_length=sequence_length, stage=0)
    found = trained(rank, recipe)
    training = batch_tokens * training_flops_per_token(shape, sequence_length)
    # Optimizers of matrices leave vectors, embedding and head to elementwise updates.
    hidden = frozenset(p for p in found if p.columns and p.name not in ("embedding", "head"))
    costs = [_cost(each, found, hidden, recipe.optimizer_rank, training) for each in optimizers().values()]
    return sorted(costs, key=lambda cost: cost.state_bytes)


def _cost(
    optimizer: Optimizer,
    found: tuple[Parameter, ...],
    hidden: frozenset[Parameter],
    rank: int,
    training_flops: float,
) -> OptimizerCost:
    flops = traffic = 0.0
    for parameter in found:
        m, n = sorted((parameter.rows, max(1, parameter.columns)))
        matrices = parameter.count * parameter.stack
        counted = tuple(optimizer.step_flops) if parameter in hidden else ("weight",)
        flops += matrices * sum(optimizer.step_flops[name] * MONOMIALS[name](m, n, rank) for name in counted)
        sides = optimizer.side_traffic * (m + n) if parameter in hidden else 0.0
        traffic += matrices * (GRADIENT_BYTES * m * n + sides)
    states, _ = STATES[optimizer.name](found, Recipe(precision="fp32"))
    return OptimizerCost(
        name=optimizer.name,
        state_bytes=states,
        step_flops=flops,
        share=flops / training_flops,
        traffic_bytes=traffic,
        rule=optimizer.rule,
        source=optimizer.source,
        note=optimizer.note,
    )
