"""Search for the fastest layout that fits: micro-batch, parallel degrees, sharding, recomputation, offload."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from scalecli.accounting.memory import Layout, MemoryEstimate, Recipe, estimate_memory
from scalecli.accounting.memory.layout import Offload, Schedule, Sharding, check_layout
from scalecli.accounting.memory.overhead import UNCALIBRATED, Overhead
from scalecli.accounting.memory.recipe import Recompute
from scalecli.accounting.shape import ModelShape
from scalecli.data.catalogue import Accelerator
from scalecli.errors import DoesNotFit, PlanError
from scalecli.plan.by_layer import by_layer
from scalecli.plan.relief import reliefs
from scalecli.plan.step.conditions import STANDARD, Conditions
from scalecli.plan.steptime import StepTime, step_time
from scalecli.units import format_bytes

LONG_SEQUENCE = 8192  # below it a sequence is not worth cutting: its attention is a small part of the work
ALTERNATIVES = 5
RESOLUTION = 0.03  # differences in time that the step-time model cannot be trusted with
LARGEST_MICRO_BATCH = 64
MOST_CHUNKS = 8  # model chunks a pipeline rank holds: each is sent over the links once more
MOST_NODES_OF_A_CONTEXT = 16  # a sequence is cut over so many nodes at most (Llama 3: 2407.21783, table 4)
# From the cheapest in time to the dearest; a later one is tried where an earlier one does not fit.
RECOMPUTES: tuple[Recompute, ...] = ("none", "selective", "full")
SHARDINGS: tuple[Sharding, ...] = ("none", "ddp", "zero1", "zero2", "zero3")
SCHEDULES: tuple[Schedule, ...] = ("1f1b", "interleaved", "zero-bubble", "breadth-first")
SEARCHED = (
    "dp", "tp", "pp", "cp", "ep", "sharding", "schedule", "virtual_stages", "shard_group", "reshard_after_forward",
)  # fmt: skip
"""Fields of a layout that the search varies; the others are as they are held, or as they are by default."""
OFFLOADS: tuple[Offload, ...] = ("optimizer", "optimizer+weights", "activations")


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What is to be laid out, and on what."""

    shape: ModelShape
    sequence_length: int
    batch_sequences: int
    accelerator: Accelerator
    count: int
    recipe: Recipe
    micro_batch_sequences: int | None = None
    """None lets the search choose."""
    overhead: Overhead = UNCALIBRATED
    conditions: Conditions = STANDARD
    held: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the layout that are wished to be so."""
    alternatives: int = ALTERNATIVES
    """How many other ways of cutting the model are looked for. Nearly all of the search is for them."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A layout with its time, before anybody has reckoned its bytes."""

    layout: Layout
    recipe: Recipe
    micro_batch_sequences: int
    step: StepTime
    seconds: float


@dataclass(frozen=True, slots=True)
class Choice:
    """One layout with its bytes and time."""

    layout: Layout
    recipe: Recipe
    micro_batch_sequences: int
    estimate: MemoryEstimate
    overhead_bytes: int
    step: StepTime | None
    reason: str

    @property
    def timed(self) -> StepTime:
        """The step's time; every choice of a search has one."""
        assert self.step is not None
        return self.step

    @property
    def seconds(self) -> float:
        return self.timed.seconds

    @property
    def device_bytes(self) -> int:
        return self.estimate.peak_bytes + self.overhead_bytes

    def summary(self) -> dict[str, object]:
        """Plain values, for a list of alternatives."""
        return {
            "micro_batch_sequences": self.micro_batch_sequences,
            "accumulation": self.recipe.accumulation,
            "sharding": self.layout.sharding,
            "data_parallel": self.layout.dp,
            "tensor_parallel": self.layout.tp,
            "pipeline_parallel": self.layout.pp,
            "context_parallel": self.layout.cp,
            "expert_parallel": self.layout.ep,
            "schedule": self.layout.schedule,
            "virtual_stages": self.layout.virtual_stages,
            "shard_group": self.layout.shard_group,
            "recompute": self.recipe.recompute,
            "recompute_layers": self.recipe.recompute_layers,
            "offload": self.layout.offload,
            "offload_layers": self.layout.offload_layers,
            "per_device_bytes": self.device_bytes,
            "step_seconds": self.step.seconds if self.step else None,
            "mfu": self.step.mfu if self.step else None,
            "reason": self.reason,
        }


def search_layouts(demand: Demand) -> list[Choice]:
    """Layouts that fit, the recommended one first, then the fastest: one for each way of cutting the model.

    Every candidate is timed, which is cheap; memory is reckoned in the order of time until enough of them fit.

    Raises PlanError where no layout divides batch and devices, DoesNotFit where none fits: its budget is that of the
    layout that came nearest, its hint what would make that one fit.
    """
    candidates = list(_candidates(demand))
    if not candidates:
        held = "".join(f", with {name} {value}" for name, value in demand.held.items())
        raise PlanError(
            f"no layout gives each of {demand.count} devices a part of a batch of {demand.batch_sequences} sequences"
            + held,
            hint="use a batch that is a multiple of the number of devices, or fewer devices"
            + ("; hold less, or give the whole layout and no --search" if held else ""),
        )
    found = _fitting(demand, candidates) or _fitting(demand, list(_offloaded(demand, candidates)))
    if not found:
        raise _does_not_fit(demand, _nearest(demand, candidates))
    found = sorted([*found, *_by_layer(demand, found)], key=lambda choice: choice.seconds)
    first = _preferred(found)
    others: dict[tuple[int, ...], Choice] = {}
    for choice in found:
        others.setdefault(_cut(choice.layout), choice)
    others.pop(_cut(first.layout), None)
    return [
        replace(first, reason=_reason(first, len(candidates))),
        *(_compared(choice, first) for choice in list(others.values())[: demand.alternatives]),
    ]


def _cut(layout: Layout) -> tuple[int, ...]:
    return layout.tp, layout.pp, layout.cp, layout.ep


def _candidates(demand: Demand) -> Iterator[Candidate]:
    """Every layout, micro-batch and recomputation that divides batch, devices and model."""
    searched = {name: value for name, value in demand.held.items() if name in SEARCHED}
    others = {name: value for name, value in demand.held.items() if name not in SEARCHED}
    for cut in _layouts(demand):
        layout = replace(cut, **others)
        if not _divides(demand, layout):
            continue
        for micro_batch in _micro_batches(demand, layout):
            accumulation = demand.batch_sequences // layout.dp // micro_batch
            for scheduled in _schedules(demand, layout, accumulation):
                if any(getattr(scheduled, name) != value for name, value in searched.items()):
                    continue
                for recompute in _recomputes(demand.recipe, scheduled):
                    recipe = replace(demand.recipe, recompute=recompute, accumulation=accumulation)
                    yield _timed(demand, scheduled, recipe, micro_batch)


def _timed(demand: Demand, layout: Layout, recipe: Recipe, micro_batch: int) -> Candidate:
    step = step_time(
        demand.shape, recipe, layout, demand.accelerator, micro_batch_sequences=micro_batch,
        sequence_length=demand.sequence_length, conditions=demand.conditions,
    )  # fmt: skip
    return Candidate(layout, recipe, micro_batch, step, step.seconds)


def _layouts(demand: Demand) -> Iterator[Layout]:
    """Ways to cut model and batch that use every device, with what is sharded over data-parallel ranks."""
    shape, count = demand.shape, demand.count
    node = max(1, demand.accelerator.devices_per_node)
    contexts = _divisors(count) if demand.sequence_length >= LONG_SEQUENCE else [1]
    for tp in _divisors(count):
        if tp > node or shape.heads % tp:
            continue
        for pp in _divisors(count // tp):
            if pp > shape.layers:
                break
            for cp in contexts:
                if (count // tp // pp) % cp == 0 and tp * cp <= max(tp, MOST_NODES_OF_A_CONTEXT * node):
                    yield from _replicas(demand, tp, pp, cp, count // tp // pp // cp)


def _replicas(demand: Demand, tp: int, pp: int, cp: int, dp: int) -> Iterator[Layout]:
    for ep in _divisors(demand.shape.num_experts):
        if dp % ep:
            continue
        if dp * cp == 1:
            yield Layout(tp=tp, pp=pp)
            continue
        # Whole replicas take more memory than sharded states and are no faster: only on demand.
        least: Sharding = "ddp" if demand.held.get("sharding") == "ddp" else "zero1"
        plain = Layout(sharding=least, dp=dp, tp=tp, pp=pp, cp=cp, ep=ep)
        yield plain
        if pp == 1:
            yield replace(plain, sharding="zero2")
        # In a pipeline only a breadth-first schedule gathers its weights once for all micro-batches.
        whole = replace(plain, sharding="zero3", schedule="1f1b" if pp == 1 else "breadth-first")
        for group in (None, *_shard_groups(demand, tp, dp * cp, ep)):
            for reshard in (True, False):
                yield replace(whole, shard_group=group, reshard_after_forward=reshard)


def _shard_groups(demand: Demand, tp: int, ranks: int, ep: int) -> Iterator[int]:
    """Groups that stay within a tier of links, so that only gradients of a shard cross it (Dash et al., 2501.04266)."""
    for tier in demand.accelerator.tiers:
        group = int(min(tier.devices, ranks * tp)) // tp
        if 1 < group < ranks and ranks % group == 0 and group % ep == 0:
            yield group


def _schedules(demand: Demand, layout: Layout, micro_batches: int) -> Iterator[Layout]:
    """The layout under each schedule that its pipeline can run."""
    if layout.pp == 1 or layout.schedule != "1f1b":
        yield layout
        return
    yield layout
    yield replace(layout, schedule="zero-bubble")
    chunks = [v for v in _divisors(demand.shape.layers // layout.pp) if 1 < v <= MOST_CHUNKS]
    for v in chunks:
        # Interleaving works on as many micro-batches at a time as there are stages (Narayanan et al., 2104.04473, 2.2).
        if micro_batches % layout.pp == 0:
            yield replace(layout, schedule="interleaved", virtual_stages=v)
        yield replace(layout, schedule="breadth-first", virtual_stages=v)


def _divides(demand: Demand, layout: Layout) -> bool:
    if demand.batch_sequences % layout.dp:
        return False
    try:
        check_layout(demand.shape, layout, demand.sequence_length)
    except PlanError:
        return False
    return True


def _recomputes(recipe: Recipe, layout: Layout) -> tuple[Recompute, ...]:
    """What was wished, and what takes less memory; weight gradients that wait for a gap need what they came from."""
    wished = RECOMPUTES[RECOMPUTES.index(recipe.recompute) :]
    if layout.schedule == "zero-bubble":
        return tuple(each for each in wished if each != "full")
    return wished


def _micro_batches(demand: Demand, layout: Layout) -> Iterable[int]:
    per_rank = demand.batch_sequences // layout.dp
    if demand.micro_batch_sequences is not None:
        return [demand.micro_batch_sequences] if per_rank % demand.micro_batch_sequences == 0 else []
    return [size for size in _divisors(per_rank) if size <= LARGEST_MICRO_BATCH and size & (size - 1) == 0]


def _offloaded(demand: Demand, candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """The smallest micro-batches with parts of the state in host memory, unless it is said what is there."""
    if "offload" in demand.held:
        return
    for each in candidates:
        if each.layout.schedule == "1f1b" and each.micro_batch_sequences == _smallest(demand, each.layout):
            for offload in OFFLOADS:
                layout = replace(each.layout, offload=offload)
                yield _timed(demand, layout, each.recipe, each.micro_batch_sequences)


def _smallest(demand: Demand, layout: Layout) -> int:
    return next(iter(_micro_batches(demand, layout)))


def _fitting(demand: Demand, candidates: list[Candidate]) -> list[Choice]:
    """Candidates that fit, fastest first: all that are about as fast as the fastest, and the best of enough cuts."""
    found: list[Choice] = []
    cuts: set[tuple[int, ...]] = set()
    leanest = _leanest(candidates)
    too_large: dict[Layout, list[tuple[int, int]]] = {}
    for candidate in sorted(candidates, key=lambda each: each.seconds):
        if (
            found
            and len(cuts) > demand.alternatives
            and candidate.seconds > (1 + RESOLUTION) * found[0].seconds
        ):
            break
        size, saved = candidate.micro_batch_sequences, RECOMPUTES.index(candidate.recipe.recompute)
        if candidate.layout not in too_large:
            lean = leanest[candidate.layout]
            too_large[candidate.layout] = (
                [] if _fits(demand, _reckoned(demand, lean)) else [(0, len(RECOMPUTES))]
            )
        failed = too_large[candidate.layout]
        if any(size >= other and saved <= kept for other, kept in failed):
            continue  # a smaller micro-batch that recomputes as much did not fit
        choice = _reckoned(demand, candidate)
        if not _fits(demand, choice):
            failed.append((size, saved))
            continue
        found.append(choice)
        cuts.add(_cut(candidate.layout))
    return found


def _fits(demand: Demand, choice: Choice) -> bool:
    return choice.device_bytes <= demand.accelerator.memory_bytes


def _by_layer(demand: Demand, found: list[Choice]) -> Iterator[Choice]:
    """Choices that recompute, refined layer by layer, where that gains more than the model of time can be wrong by."""
    for choice in found:
        if choice.timed.recompute <= RESOLUTION * choice.seconds or not _may_differ(choice, demand):
            continue

        def reckon(layout: Layout, recipe: Recipe, size: int = choice.micro_batch_sequences) -> Choice:
            return _reckoned(demand, _timed(demand, layout, recipe, size))

        layers = math.ceil(demand.shape.layers / choice.layout.pp)
        for refined in by_layer(choice, layers, reckon, partial(_fits, demand)):
            if refined.seconds < (1 - RESOLUTION) * choice.seconds:
                yield refined


def _may_differ(choice: Choice, demand: Demand) -> bool:
    """Layers differ as they are wished to, where anything was said about them."""
    said = demand.recipe.recompute_layers is not None or "offload" in demand.held
    return not said and choice.recipe.sequence_chunks == 1


def _leanest(candidates: Iterable[Candidate]) -> dict[Layout, Candidate]:
    """Of every layout the candidate with the smallest micro-batch that recomputes most: it needs the least memory."""
    leanest: dict[Layout, Candidate] = {}
    for candidate in candidates:
        best = leanest.setdefault(candidate.layout, candidate)
        if _thrift(candidate) < _thrift(best):
            leanest[candidate.layout] = candidate
    return leanest


def _nearest(demand: Demand, candidates: Iterable[Candidate]) -> Choice:
    """The candidate that needs the least memory."""
    reckoned = (_reckoned(demand, candidate) for candidate in _leanest(candidates).values())
    return min(reckoned, key=lambda choice: choice.device_bytes)


def _thrift(candidate: Candidate) -> tuple[int, int]:
    return candidate.micro_batch_sequences, -RECOMPUTES.index(candidate.recipe.recompute)


def _reckoned(demand: Demand, candidate: Candidate) -> Choice:
    """The candidate with its bytes."""
    layout, recipe, micro_batch = candidate.layout, candidate.recipe, candidate.micro_batch_sequences
    estimate = estimate_memory(
        demand.shape,
        recipe,
        layout,
        micro_batch_sequences=micro_batch,
        sequence_length=demand.sequence_length,
    )
    extra = demand.overhead.bytes(estimate.peak_bytes)
    return Choice(layout, recipe, micro_batch, estimate, extra, candidate.step, "")


def _preferred(choices: list[Choice]) -> Choice:
    """The simplest of those that are about as fast as the fastest: smaller micro-batches first (Hagemann et al.,
    2311.05610, section 4), then less recomputation, then fewer cuts, then plainer sharding and schedules."""
    fastest = min(choice.seconds for choice in choices)
    equals = [choice for choice in choices if choice.seconds <= (1 + RESOLUTION) * fastest]
    return min(equals, key=_effort)


def _effort(choice: Choice) -> tuple[int, int, int, int, int, float]:
    layout = choice.layout
    plainness = (
        SHARDINGS.index(layout.sharding)
        + (layout.shard_group is not None)
        + (not layout.reshard_after_forward)
        + (layout.offload != "none")
    )
    schedule = SCHEDULES.index(layout.schedule)
    recompute = RECOMPUTES.index(choice.recipe.recompute)
    return (
        choice.micro_batch_sequences,
        recompute,
        math.prod(_cut(layout)),
        plainness,
        schedule,
        choice.seconds,
    )


def _compared(choice: Choice, first: Choice) -> Choice:
    """The choice with what sets it apart from the first."""
    difference = choice.seconds / first.seconds - 1
    loss = _largest_loss(choice.timed)
    if difference < 0:
        return replace(
            choice, reason=f"{-difference:.1%} faster by the model, with more to set up; its {loss}"
        )
    return replace(choice, reason=f"{difference:.1%} slower; its {loss}")


def _reason(first: Choice, count: int) -> str:
    return (
        f"simplest of those within {RESOLUTION:.0%} of the fastest that fits, of {count} candidates; "
        f"its {_largest_loss(first.timed)}"
    )


def _largest_loss(step: StepTime) -> str:
    """What takes most time besides computation, with its share of the step."""
    losses = step.losses()
    name = max(losses, key=losses.__getitem__)
    return f"largest loss is {name} ({losses[name] / step.seconds:.1%} of a step)"


def _does_not_fit(demand: Demand, nearest: Choice) -> DoesNotFit:
    excess = nearest.device_bytes - demand.accelerator.memory_bytes
    largest = max(nearest.estimate.terms, key=lambda term: term.bytes)
    budget = {term.name: term.bytes for term in nearest.estimate.terms if term.bytes}
    budget["overhead"] = nearest.overhead_bytes
    layout = nearest.layout
    tried = (
        f"tensor {layout.tp}, pipeline {layout.pp}, {layout.sharding}, recompute {nearest.recipe.recompute}"
    )
    return DoesNotFit(
        f"{demand.shape.params:.3g} parameters fit no layout of {demand.count} × {demand.accelerator.name} with "
        f"{format_bytes(demand.accelerator.memory_bytes)} each: the nearest ({tried}) needs "
        f"{format_bytes(nearest.device_bytes)}, {format_bytes(excess)} too much, most of it {largest.name} "
        f"({format_bytes(largest.bytes)})",
        budget=budget,
        hint=_remedy(nearest, demand, excess),
    )


def _remedy(nearest: Choice, demand: Demand, excess: int) -> str:
    """The cheapest change that would be enough, else how many devices would."""
    changes = reliefs(
        demand.shape, nearest.recipe, nearest.layout,
        micro_batch_sequences=nearest.micro_batch_sequences, sequence_length=demand.sequence_length,
    )  # fmt: skip
    for relief in changes:
        if relief.saves_bytes >= excess:
            return f"{relief.change} would make it fit"
    more = math.ceil(demand.count * nearest.device_bytes / demand.accelerator.memory_bytes)
    return f"about {2 ** math.ceil(math.log2(more))} devices, or devices with more memory"


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]
