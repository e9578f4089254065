"""Devices of several kinds that train one model together: how batch and states are split so that none waits.

Fully sharded over all devices (no tensor or pipeline ranks). A device's part of the batch follows its speed, its part
of weights, gradients and states what its memory has left: the two need not be alike (Guo et al., Cephalo, 2411.01075,
section 3). Every layer is computed for all of a device's micro-batches before the next one, so that its weights are
gathered once a pass, however many micro-batches a device has; the streams between layers wait in memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scalecli.accounting.flops import AttentionCount, training_flops_per_token
from scalecli.accounting.memory import Layout, MemoryEstimate, Recipe, estimate_memory
from scalecli.accounting.shape import ModelShape
from scalecli.errors import DoesNotFit, PlanError
from scalecli.plan.calibration import overhead_of
from scalecli.plan.fleet import Kind, least
from scalecli.plan.layout import LARGEST_MICRO_BATCH, RECOMPUTES
from scalecli.plan.step.conditions import STANDARD, Conditions
from scalecli.plan.steptime import StepTime, step_time
from scalecli.units import format_bytes

# What is spread over all devices: the terms of one copy of the model.
SPREAD = ("weights", "master weights", "averaged weights", "optimizer states", "gradients")
BISECTIONS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What each device of one kind does and holds. `fuller_devices` of them have one sequence more."""

    accelerator: str
    count: int
    sequences: int
    fuller_devices: int
    micro_batch_sequences: int
    state_share: float
    """Of one copy of weights, gradients and states."""
    per_device_bytes: int
    headroom_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedPlan:
    """The split, and its step: the slowest kind's, with the FLOPs and the peak of a mean device."""

    shares: tuple[Share, ...]
    recipe: Recipe
    layout: Layout
    step: StepTime
    estimate: MemoryEstimate
    """Of the kind with the least headroom, states spread evenly."""
    state_bytes: int

    @property
    def tightest(self) -> Share:
        """The share of the kind with the least headroom."""
        return min(self.shares, key=lambda share: share.headroom_bytes)


@dataclass(frozen=True, slots=True)
class _Worker:
    """One kind under one recomputation: its speed, and what it needs beside its share of the states."""

    kind: Kind
    micro_batch: int
    per_sequence: float
    waits_for: float
    """Communication that computation does not hide [s]."""
    working_bytes: int
    stream_bytes: int
    """Of a waiting sequence."""
    step: StepTime
    estimate: MemoryEstimate

    def sequences_within(self, seconds: float) -> int:
        return max(0, math.floor((seconds - self.waits_for) / self.per_sequence + 1e-9))

    def seconds(self, sequences: int) -> float:
        return self.waits_for + sequences * self.per_sequence

    def free_bytes(self, sequences: int) -> float:
        """What is left for states [bytes]; negative where not even the activations fit."""
        waiting = max(0, sequences - self.micro_batch) * self.stream_bytes
        used = self.working_bytes + waiting
        overhead = overhead_of(self.kind.accelerator.name)
        return self.kind.accelerator.memory_bytes - used - overhead.bytes(used)


def plan_mixed(
    shape: ModelShape,
    kinds: Sequence[Kind],
    *,
    sequence_length: int,
    batch_sequences: int,
    recipe: Recipe,
    conditions: Conditions = STANDARD,
) -> MixedPlan:
    """The split with the shortest step, with the least recomputation that fits.

    Raises PlanError for a batch with fewer sequences than devices, DoesNotFit where no split fits.
    """
    count = sum(kind.count for kind in kinds)
    if batch_sequences < count:
        raise PlanError(
            f"a batch of {batch_sequences} sequences has none for each of {count} devices",
            hint="use a larger batch or fewer devices",
        )
    kinds = _with_slowest_links(kinds)
    states = _spread_bytes(shape, recipe, sequence_length)
    best: MixedPlan | None = None
    short = 0.0
    for recompute in RECOMPUTES[RECOMPUTES.index(recipe.recompute) :]:
        for size in (s for s in _powers(LARGEST_MICRO_BATCH) if s <= batch_sequences):
            wished = replace(recipe, recompute=recompute)
            workers = [
                _worker(shape, kind, wished, size, count, sequence_length, conditions) for kind in kinds
            ]
            sequences = _fastest(workers, batch_sequences)
            free = [worker.free_bytes(each) for worker, each in zip(workers, sequences, strict=True)]
            left = sum(max(0.0, each) * worker.kind.count for worker, each in zip(workers, free, strict=True))
            if min(free) < 0 or left < states:
                short = max(short, min(left, states) / states)
                break
            found = _plan(shape, workers, sequences, free, states, sequence_length, batch_sequences, wished)
            if best is None or found.step.seconds < best.step.seconds:
                best = found
        if best is not None:
            return best
    raise _does_not_fit(shape, kinds, states, short)


def _with_slowest_links(kinds: Sequence[Kind]) -> list[Kind]:
    """Collectives over all devices wait for the slowest links."""
    near = least([kind.accelerator.link_bandwidth for kind in kinds])
    network = least([kind.accelerator.network_bandwidth for kind in kinds])
    return [
        replace(
            kind,
            accelerator=replace(
                kind.accelerator, package_bandwidth=None, link_bandwidth=near, network_bandwidth=network
            ),
        )
        for kind in kinds
    ]


def _powers(most: int) -> list[int]:
    return [1 << k for k in range(most.bit_length()) if 1 << k <= most]


def _spread_bytes(shape: ModelShape, recipe: Recipe, sequence_length: int) -> int:
    """One copy of weights, gradients and states."""
    estimate = estimate_memory(
        shape, recipe, Layout(), micro_batch_sequences=1, sequence_length=sequence_length
    )
    return sum(max(term.moments.values()) for term in estimate.terms if term.name in SPREAD)


def _worker(
    shape: ModelShape,
    kind: Kind,
    recipe: Recipe,
    micro_batch: int,
    count: int,
    sequence_length: int,
    conditions: Conditions,
) -> _Worker:
    layout = Layout(sharding="zero3", dp=count)
    step = step_time(
        shape, recipe, layout, kind.accelerator, micro_batch_sequences=micro_batch, sequence_length=sequence_length,
        conditions=conditions,
    )  # fmt: skip
    estimate = estimate_memory(
        shape, recipe, layout, micro_batch_sequences=micro_batch, sequence_length=sequence_length
    )
    at_peak = {term.name: term.bytes for term in estimate.terms}
    working = estimate.peak_bytes - sum(at_peak.get(name, 0) for name in SPREAD)
    return _Worker(
        kind=kind,
        micro_batch=micro_batch,
        per_sequence=step.computing / micro_batch,
        waits_for=step.communication + step.optimizer,
        working_bytes=working,
        stream_bytes=shape.layers * sequence_length * shape.width * recipe.stream_bytes,
        step=step,
        estimate=estimate,
    )


def _fastest(workers: Sequence[_Worker], batch_sequences: int) -> list[int]:
    """Sequences of each device of each kind (the most that any has) in the shortest time that does the batch."""

    def done(seconds: float) -> int:
        return sum(worker.sequences_within(seconds) * worker.kind.count for worker in workers)

    low, high = 0.0, max(worker.seconds(batch_sequences) for worker in workers)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if done(middle) >= batch_sequences else (middle, high)
    return [worker.sequences_within(high) for worker in workers]


def _plan(
    shape: ModelShape,
    workers: Sequence[_Worker],
    sequences: Sequence[int],
    free: Sequence[float],
    states: int,
    sequence_length: int,
    batch_sequences: int,
    recipe: Recipe,
) -> MixedPlan:
    spare = sum(each * worker.kind.count for worker, each in zip(workers, free, strict=True))
    surplus = sum(n * w.kind.count for w, n in zip(workers, sequences, strict=True)) - batch_sequences
    shares = []
    for worker, most, left in zip(workers, sequences, free, strict=True):
        fewer = min(surplus, worker.kind.count if most else 0)
        surplus -= fewer
        held = left / spare * states
        shares.append(
            Share(
                accelerator=worker.kind.accelerator.name,
                count=worker.kind.count,
                sequences=most - (fewer > 0),
                fuller_devices=(worker.kind.count - fewer) if fewer else 0,
                micro_batch_sequences=min(worker.micro_batch, most),
                state_share=left / spare,
                per_device_bytes=round(worker.kind.accelerator.memory_bytes - left + held),
                headroom_bytes=round(left - held),
                seconds=worker.seconds(most),
            )
        )
    count = sum(worker.kind.count for worker in workers)
    tightest = min(range(len(shares)), key=lambda i: shares[i].headroom_bytes)
    slowest = max(range(len(shares)), key=lambda i: shares[i].seconds)
    tokens = batch_sequences * sequence_length
    counts: tuple[AttentionCount, AttentionCount] = ("causal", "full")
    causal, full = (
        tokens * training_flops_per_token(shape, sequence_length, attention=attention) / count
        for attention in counts
    )
    worker, scale = workers[slowest], sequences[slowest] / workers[slowest].micro_batch
    step = replace(
        worker.step,
        compute=scale * worker.step.compute,
        recompute=scale * worker.step.recompute,
        tokens=tokens,
        model_flops_per_device=causal,
        full_attention_flops_per_device=full,
        peak_flops=sum(each.step.peak_flops * each.kind.count for each in workers) / count,
    )
    layout = Layout(sharding="zero3", dp=count)
    return MixedPlan(
        shares=tuple(shares), recipe=recipe, layout=layout, step=step, estimate=workers[tightest].estimate,
        state_bytes=states,
    )  # fmt: skip


def _does_not_fit(shape: ModelShape, kinds: Sequence[Kind], states: int, covered: float) -> DoesNotFit:
    total = sum(kind.count * kind.accelerator.memory_bytes for kind in kinds)
    listed = ", ".join(f"{kind.count} × {kind.accelerator.name}" for kind in kinds)
    return DoesNotFit(
        f"{shape.params:.3g} parameters fit no split over {listed}: weights, gradients and states take "
        f"{format_bytes(states)} of {format_bytes(total)}, and beside activations {covered:.0%} of them find room",
        budget={"weights, gradients and states": states},
        hint="add devices, use --optimizer adamw-8bit, or a shorter --sequence-length",
    )
