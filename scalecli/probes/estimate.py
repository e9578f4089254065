"""The dry run of a sweep: runs, FLOPs, time and memory by arithmetic, from one measured step time."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

from scalecli.accounting.memory.estimate import estimate_memory
from scalecli.accounting.memory.recipe import Recipe as MemoryRecipe
from scalecli.probes.config import ProbeConfig
from scalecli.probes.engines.engine import Capacity
from scalecli.probes.foreign import ForeignShape
from scalecli.probes.timing import StepTime
from scalecli.probes.units import Unit, lengths, unit_flops

KNOWN_AS: dict[str, Any] = {"sgd": "sgd-momentum"}
"""Optimizers that the closed forms know by another name."""


@dataclass(frozen=True, slots=True)
class SweepEstimate:
    """What a sweep would take: runs still to train, training FLOPs, time [s], memory of all slots [bytes].

    `saved_flops` are those that shared trunks save: one long training branches into all its shorter ones.
    `seconds` is None where no step could be timed.
    """

    runs: int
    skipped: int
    flops: float
    saved_flops: float
    seconds: float | None
    bytes: int


def estimate_sweep(
    configs: Iterable[ProbeConfig],
    step_time: StepTime | None,
    capacity: Capacity,
    *,
    finished: Collection[str] = (),
) -> SweepEstimate:
    """The dry run: arithmetic on `measure_step_time`'s result, for the runs whose ids are not in `finished`."""
    wanted = {config.run_id: config for config in configs}
    todo = [config for run_id, config in wanted.items() if run_id not in finished]
    units = capacity.units(todo)
    flops = sum(unit_flops(unit) for unit in units)
    largest = max((unit_bytes(unit) for unit in units), default=0)
    return SweepEstimate(
        runs=len(todo),
        skipped=len(wanted) - len(todo),
        flops=flops,
        saved_flops=sum(config.flops_exact for config in todo) - flops,
        seconds=step_time.sweep_seconds(todo, capacity) if step_time else None,
        bytes=largest * min(capacity.slots, len(units)),
    )


def unit_bytes(unit: Unit) -> int:
    """Peak of a training step for all copies: closed forms for our decoder, a trace without a device for other models;
    the process itself comes on top."""
    config = unit[0]
    recipe = MemoryRecipe(
        precision="fp32" if config.dtype == "float32" else "bf16-autocast",
        optimizer=KNOWN_AS.get(config.optimizer.name, config.optimizer.name),
        optimizer_impl="fused",
    )
    sequences = config.batch_sequences // config.conduct.parts_of(config.batch_sequences)
    length = config.sequence_length
    if isinstance(config.shape, ForeignShape):
        from scalecli.probes.memory.trace import trace_foreign

        # In bfloat16, which every model can be traced in: all that counts is float, and has twice the bytes.
        traced = trace_foreign(
            config.shape,
            replace(recipe, precision="bf16"),
            micro_batch_sequences=sequences,
            sequence_length=length,
        )
        return 2 * traced.peak_bytes
    peak = estimate_memory(
        config.shape, recipe, micro_batch_sequences=sequences, sequence_length=length
    ).peak_bytes
    return peak * len(lengths(unit)[0])
