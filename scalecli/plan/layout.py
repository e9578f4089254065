"""Search for the fastest layout that fits: micro-batch, parallel degrees, sharding, recomputation, offload."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from scalecli.accounting.memory import Layout, MemoryEstimate, Recipe, estimate_memory
from scalecli.accounting.memory.layout import Offload, Sharding, check_layout
from scalecli.accounting.memory.overhead import UNCALIBRATED, Overhead
from scalecli.accounting.memory.recipe import Recompute
from scalecli.accounting.shape import ModelShape
from scalecli.data.catalogue import Accelerator
from scalecli.errors import DoesNotFit, PlanError
from scalecli.plan.relief import reliefs
from scalecli.plan.steptime import Efficiency, StepTime, step_time
from scalecli.units import format_bytes

LONG_SEQUENCE = 8192  # below it a sequence is not worth cutting: its attention is a small part of the work
ALTERNATIVES = 5
RESOLUTION = 0.03  # differences in time that the step-time model cannot be trusted with
LARGEST_MICRO_BATCH = 64
# From the cheapest in time to the dearest; a later one is tried where an earlier one does not fit.
RECOMPUTES: tuple[Recompute, ...] = ("none", "selective", "full")
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
    efficiency: Efficiency | None = None
    """Measured; None takes what is published for the vendor."""


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
            "recompute": self.recipe.recompute,
            "offload": self.layout.offload,
            "per_device_bytes": self.device_bytes,
            "step_seconds": self.step.seconds if self.step else None,
            "mfu": self.step.mfu if self.step else None,
            "reason": self.reason,
        }


def search_layouts(demand: Demand) -> list[Choice]:
    """Layouts that fit, the recommended one first, then the fastest: one for each way of cutting the model.

    Raises PlanError where no layout divides batch and devices, DoesNotFit where none fits: its budget is that of the
    layout that came nearest, its hint what would make that one fit.
    """
    cuts = [layout for layout in _cuts(demand) if _divides(demand, layout)]
    if not cuts:
        raise PlanError(
            f"no layout gives each of {demand.count} devices a part of a batch of {demand.batch_sequences} sequences",
            hint="use a batch that is a multiple of the number of devices, or fewer devices",
        )
    nearest: list[Choice] = []
    found = [choice for layout in cuts if (choice := _cheapest(demand, layout, nearest)) is not None]
    if not found:
        found = [choice for layout in cuts if (choice := _offloaded(demand, layout)) is not None]
    if not found:
        raise _does_not_fit(demand, min(nearest, key=lambda choice: choice.device_bytes))
    first = _preferred(found)
    others = sorted((choice for choice in found if choice is not first), key=lambda choice: choice.seconds)
    return [
        replace(first, reason=_reason(first, len(found))),
        *(_compared(choice, first) for choice in others[:ALTERNATIVES]),
    ]


def _cuts(demand: Demand) -> Iterator[Layout]:
    """Ways to cut model and batch that use every device."""
    shape, count = demand.shape, demand.count
    node = max(1, demand.accelerator.devices_per_node)
    contexts = _divisors(count) if demand.sequence_length >= LONG_SEQUENCE else [1]
    for tp in _divisors(count):
        if tp > node or shape.heads % tp:
            continue
        for pp in _divisors(count // tp):
            if shape.layers % pp:
                continue
            for cp in contexts:
                if (count // tp // pp) % cp == 0 and cp <= node:
                    yield from _replicas(demand, tp, pp, cp, count // tp // pp // cp)


def _replicas(demand: Demand, tp: int, pp: int, cp: int, dp: int) -> Iterator[Layout]:
    experts = demand.shape.num_experts
    shardings: tuple[Sharding, ...] = ("zero1", "zero2", "zero3") if dp * cp > 1 else ("none",)
    for ep in _divisors(experts):
        if dp % ep:
            continue
        for sharding in shardings:
            if sharding in ("zero2", "zero3") and pp > 1:
                continue  # every micro-batch would gather or reduce its stage again
            yield Layout(sharding=sharding, dp=dp, tp=tp, pp=pp, cp=cp, ep=ep)


def _divides(demand: Demand, layout: Layout) -> bool:
    if demand.batch_sequences % layout.dp:
        return False
    try:
        check_layout(demand.shape, layout, demand.sequence_length)
    except PlanError:
        return False
    return True


def _cheapest(demand: Demand, layout: Layout, nearest: list[Choice]) -> Choice | None:
    """The best of this cut's micro-batches, each with the least recomputation that fits; where none fits, the least
    memory is noted."""
    fitting = []
    for micro_batch in _micro_batches(demand, layout):
        for recompute in _recomputes(demand.recipe):
            choice = _choice(demand, layout, micro_batch, recompute)
            if choice.device_bytes <= demand.accelerator.memory_bytes:
                fitting.append(choice)
                break
        else:
            nearest.append(choice)
            break
    return _preferred(fitting) if fitting else None


def _offloaded(demand: Demand, layout: Layout) -> Choice | None:
    """The same cut with the smallest micro-batch and parts of the state in host memory."""
    for offload in OFFLOADS:
        for recompute in _recomputes(demand.recipe):
            micro_batch = next(iter(_micro_batches(demand, layout)))
            choice = _choice(demand, replace(layout, offload=offload), micro_batch, recompute)
            if choice.device_bytes <= demand.accelerator.memory_bytes:
                return choice
    return None


def _recomputes(recipe: Recipe) -> tuple[Recompute, ...]:
    """What was wished, and what takes less memory."""
    return RECOMPUTES[RECOMPUTES.index(recipe.recompute) :]


def _micro_batches(demand: Demand, layout: Layout) -> Iterable[int]:
    per_rank = demand.batch_sequences // layout.dp
    if demand.micro_batch_sequences is not None:
        return [demand.micro_batch_sequences] if per_rank % demand.micro_batch_sequences == 0 else []
    return [size for size in _divisors(per_rank) if size <= LARGEST_MICRO_BATCH and size & (size - 1) == 0]


def _choice(demand: Demand, layout: Layout, micro_batch: int, recompute: Recompute) -> Choice:
    accumulation = demand.batch_sequences // layout.dp // micro_batch
    recipe = replace(demand.recipe, recompute=recompute, accumulation=accumulation)
    estimate = estimate_memory(
        demand.shape,
        recipe,
        layout,
        micro_batch_sequences=micro_batch,
        sequence_length=demand.sequence_length,
    )
    step = step_time(
        demand.shape, recipe, layout, demand.accelerator,
        micro_batch_sequences=micro_batch, sequence_length=demand.sequence_length, efficiency=demand.efficiency,
    )  # fmt: skip
    return Choice(layout, recipe, micro_batch, estimate, demand.overhead.bytes(estimate.peak_bytes), step, "")


def _preferred(choices: list[Choice]) -> Choice:
    """The simplest of those that are about as fast as the fastest: smaller micro-batches first (Hagemann et al.,
    2311.05610, section 4), then less recomputation, then fewer cuts."""
    fastest = min(choice.seconds for choice in choices)
    equals = [choice for choice in choices if choice.seconds <= (1 + RESOLUTION) * fastest]
    return min(equals, key=_effort)


def _effort(choice: Choice) -> tuple[int, int, int, float]:
    layout = choice.layout
    cuts = layout.tp * layout.pp * layout.cp * layout.ep
    return choice.micro_batch_sequences, RECOMPUTES.index(choice.recipe.recompute), cuts, choice.seconds


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
        f"simplest of those within {RESOLUTION:.0%} of the fastest, of {count} layouts that fit; "
        f"its {_largest_loss(first.timed)}"
    )


def _largest_loss(step: StepTime) -> str:
    """What takes most time besides computation, with its share of the step."""
    losses = {
        "recomputation": step.recompute, "the pipeline's bubble": step.bubble,
        "tensor-parallel communication": step.tensor_parallel, "context-parallel communication": step.context_parallel,
        "expert-parallel communication": step.expert_parallel, "data-parallel communication": step.data_parallel,
        "transfers between stages": step.pipeline, "the optimizer": step.optimizer, "offloading": step.offload,
    }  # fmt: skip
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
