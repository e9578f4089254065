"""What ranks say to each other in a step: bytes, time over their links, and what computation does not hide."""

from __future__ import annotations

from dataclasses import dataclass

from scalecli.accounting.memory import Layout, Recipe
from scalecli.accounting.memory.rank import Rank
from scalecli.plan.step.conditions import Conditions
from scalecli.plan.step.links import Group, Links

# Two gathers and two scatters of the stream in each pass over a layer (Korthikanti et al., 2205.05198, section 4.2.2).
TENSOR_COLLECTIVES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One kind of communication in a step of one device. Times in seconds."""

    name: str
    ranks: int
    tier: str
    bytes: float
    seconds: float
    beside: float
    """Computation that runs at the same time."""
    exposed: float
    """What the step is longer for it."""


def tensor_parallel(
    rank: Rank, recipe: Recipe, layout: Layout, links: Links, conditions: Conditions
) -> Exchange | None:
    """The stream between norms and products, gathered and scattered in every layer of every micro-batch."""
    if layout.tp == 1:
        return None
    group = Group(layout.tp, 1)
    times = TENSOR_COLLECTIVES * (3 if recipe.recompute == "full" else 2) * rank.layers * recipe.accumulation
    stream = rank.tokens * rank.width * recipe.compute_bytes
    seconds = links.gather_seconds(group, times * stream, messages=times)
    return Exchange(
        name="tensor-parallel", ranks=layout.tp, tier=links.tier(group).name,
        bytes=times * _ring_share(layout.tp) * stream, seconds=seconds, beside=0.0,
        exposed=(1 - conditions.overlap.tensor) * seconds,
    )  # fmt: skip


def context_parallel(
    rank: Rank, recipe: Recipe, layout: Layout, links: Links, conditions: Conditions, computing: float
) -> Exchange | None:
    """Keys and values go round once in forward, they and their gradients in backward."""
    if layout.cp == 1:
        return None
    group = Group(layout.cp, layout.tp)
    pairs = rank.tokens * (rank.packed - rank.mixed) * recipe.compute_bytes
    sent = 3 * (layout.cp - 1) * pairs * rank.layers * recipe.accumulation
    seconds = sent / links.hop_bandwidth(group)
    return Exchange(
        name="context-parallel", ranks=layout.cp, tier=links.tier(group).name, bytes=sent, seconds=seconds,
        beside=computing, exposed=max(0.0, seconds - conditions.overlap.context * computing),
    )  # fmt: skip


def expert_parallel(
    rank: Rank, recipe: Recipe, layout: Layout, links: Links, conditions: Conditions
) -> Exchange | None:
    """Visits go out and come back in forward and in backward, and once more if forward is recomputed."""
    if layout.ep == 1:
        return None
    group = Group(layout.ep, layout.tp * layout.cp)
    times = (6 if recipe.recompute == "full" else 4) * rank.layers * recipe.accumulation
    visits = rank.slots * (conditions.dispatch_width or rank.width) * recipe.compute_bytes
    seconds = links.exchange_seconds(group, times * visits, messages=times)
    return Exchange(
        name="expert-parallel", ranks=layout.ep, tier=links.tier(group).name,
        bytes=times * _ring_share(layout.ep) * visits, seconds=seconds, beside=0.0,
        exposed=(1 - conditions.overlap.expert) * seconds,
    )  # fmt: skip


def pipeline_parallel(
    rank: Rank, recipe: Recipe, layout: Layout, links: Links, conditions: Conditions
) -> Exchange | None:
    """The stream to the next stage and its gradient back, for each micro-batch and model chunk."""
    if layout.pp == 1:
        return None
    group = Group(layout.pp, layout.tp * layout.cp * layout.dp)
    stream = rank.stream_tokens * rank.width * recipe.stream_bytes
    sent = 2 * recipe.accumulation * layout.virtual_stages * stream
    seconds = sent / links.hop_bandwidth(group)
    return Exchange(
        name="pipeline", ranks=layout.pp, tier=links.tier(group).name, bytes=sent, seconds=seconds, beside=0.0,
        exposed=(1 - conditions.overlap.pipeline) * seconds,
    )  # fmt: skip


def data_parallel(
    rank: Rank, recipe: Recipe, layout: Layout, links: Links, conditions: Conditions, micro_batch: float
) -> Exchange | None:
    """Gradients (and, under zero3, weights), beside one micro-batch's computation [s].

    Up to zero1 gradients are reduced and weights gathered once a step. zero2 reduces after every micro-batch; zero3
    also gathers weights for forward and, unless they are kept, for backward; a breadth-first schedule does so for all
    micro-batches together (Lamy-Poirier, 2211.05953, section 4.2). Shards over fewer ranks than there are stay with
    their neighbours, and the replicas of a shard agree once a step.
    """
    ranks = layout.dp * layout.cp
    if ranks == 1:
        return None
    everyone = Group(ranks, layout.tp)
    shards = Group(layout.shards, layout.tp)
    weights = rank.weights * recipe.compute_bytes
    gradients = rank.weights * conditions.reduction.bytes_per_weight(recipe.weight_bytes, ranks)
    hidden = conditions.overlap.data * micro_batch
    if layout.sharding not in ("zero2", "zero3"):
        seconds = links.gather_seconds(everyone, gradients + weights, messages=2 * rank.layers)
        sent = _ring_share(ranks) * (gradients + weights)
        exposed = max(0.0, seconds - hidden)
        beside = micro_batch
    else:
        times = 1 if layout.schedule == "breadth-first" else recipe.accumulation
        gathers = 0 if layout.sharding == "zero2" else 2 if layout.reshard_after_forward else 1
        each = links.gather_seconds(
            shards, gathers * weights + gradients, messages=(gathers + 1) * rank.layers
        )
        replicas = Group(ranks // layout.shards, layout.tp * layout.shards)
        once = 2 * links.gather_seconds(replicas, gradients / layout.shards, messages=rank.layers)
        once += (
            links.gather_seconds(shards, weights, messages=rank.layers) if layout.sharding == "zero2" else 0.0
        )
        seconds = times * each + once
        sent = times * _ring_share(layout.shards) * (gathers * weights + gradients)
        sent += 2 * _ring_share(replicas.ranks) * gradients / layout.shards
        exposed = times * max(0.0, each - hidden) + max(0.0, once - max(0.0, hidden - each))
        beside = times * micro_batch
    return Exchange(
        name="data-parallel", ranks=ranks, tier=links.tier(everyone).name, bytes=sent, seconds=seconds, beside=beside,
        exposed=exposed,
    )  # fmt: skip


def _ring_share(ranks: int) -> float:
    return (ranks - 1) / ranks
