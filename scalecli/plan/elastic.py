"""What is run when devices are lost: batch and weight of every sequence stay, the rest is worked out anew.

Gradients are sums over sequences divided by the global batch, whoever computes them, so that learning rate and
schedule hold (Liu et al., ElasWave, 2510.00606, section 3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from scalecli.accounting.memory import Layout, estimate_memory
from scalecli.accounting.memory.layout import Sharding
from scalecli.plan.layout import Choice, Demand
from scalecli.plan.steptime import step_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Elastic:
    """The plan on fewer devices. Ranks that have one sequence more than others are `fuller_ranks`."""

    devices: int
    idle_devices: int
    data_parallel: int
    sequences_per_rank: int
    fuller_ranks: int
    micro_batch_sequences: int
    accumulation: int
    per_device_bytes: int
    fits: bool
    slowdown: float


def on_fewer_devices(demand: Demand, choice: Choice) -> Iterator[Elastic]:
    """With one node lost, two, four, ... (one device at a time where all stand in one node), down to half of them.

    Replicas that miss a device are lost whole: what is left of them idles.
    """
    layout, full = choice.layout, choice.timed.seconds
    node = min(max(1, demand.accelerator.devices_per_node), demand.count)
    unit = node if demand.count > node else 1
    lost = unit
    while lost <= demand.count // 2:
        ranks = _ranks_left(layout, demand.count - lost)
        if ranks and ranks <= demand.batch_sequences:
            yield _on(demand, choice, demand.count - lost, ranks, full)
        lost *= 2


def _ranks_left(layout: Layout, devices: int) -> int:
    """Data-parallel ranks that are whole; experts need a multiple of their ranks."""
    ranks = devices // (layout.tp * layout.pp * layout.cp)
    return ranks - ranks % layout.ep


def _on(demand: Demand, choice: Choice, devices: int, ranks: int, full: float) -> Elastic:
    each, fuller = divmod(demand.batch_sequences, ranks)
    most = each + (fuller > 0)
    size = max(part for part in range(1, choice.micro_batch_sequences + 1) if most % part == 0)
    recipe = replace(choice.recipe, accumulation=most // size)
    layout = replace(choice.layout, dp=ranks, shard_group=None, sharding=_sharding(choice.layout, ranks))
    estimate = estimate_memory(
        demand.shape, recipe, layout, micro_batch_sequences=size, sequence_length=demand.sequence_length
    )
    step = step_time(
        demand.shape, recipe, layout, demand.accelerator, micro_batch_sequences=size,
        sequence_length=demand.sequence_length, conditions=demand.conditions,
    )  # fmt: skip
    size_bytes = estimate.peak_bytes + demand.overhead.bytes(estimate.peak_bytes)
    return Elastic(
        devices=devices,
        idle_devices=devices - layout.devices,
        data_parallel=ranks,
        sequences_per_rank=each,
        fuller_ranks=fuller,
        micro_batch_sequences=size,
        accumulation=recipe.accumulation,
        per_device_bytes=size_bytes,
        fits=size_bytes <= demand.accelerator.memory_bytes,
        slowdown=step.seconds / full,
    )


def _sharding(layout: Layout, ranks: int) -> Sharding:
    return layout.sharding if ranks * layout.cp > 1 else "none"
