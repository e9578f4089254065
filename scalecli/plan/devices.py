"""The memory part of a plan on the devices there are: one kind, or several."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from scalecli.accounting.memory import Recipe
from scalecli.accounting.memory.recipe import MOMENTS
from scalecli.accounting.memory.terms import Term
from scalecli.accounting.shape import ModelShape
from scalecli.plan.calibration import overhead_of
from scalecli.plan.fleet import Fleet
from scalecli.plan.layout import Choice, Demand, search_layouts
from scalecli.plan.memory import MemoryPlan, device_warnings, memory_part, plan_memory
from scalecli.plan.mixed import SPREAD, MixedPlan, plan_mixed
from scalecli.plan.replicas import Replicas
from scalecli.plan.step.conditions import STANDARD, Conditions
from scalecli.plan.step.report import step_part


def plan_on(
    fleet: Fleet,
    shape: ModelShape,
    *,
    sequence_length: int,
    batch_sequences: int,
    recipe: Recipe,
    conditions: Conditions = STANDARD,
    replicas: Replicas | None = None,
) -> MemoryPlan:
    """The fastest layout that fits on one kind of devices; on several, the split that none waits for.

    With `replicas` it is the layout of one of them, and the step is longer for their averaging. Raises PlanError for
    impossible wishes and DoesNotFit with the bytes of what came nearest.
    """
    if replicas is not None:
        part = replicas.part(fleet)
        found = plan_on(
            part, shape, sequence_length=sequence_length, batch_sequences=batch_sequences // replicas.count,
            recipe=recipe, conditions=conditions,
        )  # fmt: skip
        return _joined(found, replicas, shape, part, fleet.count)
    if fleet.is_mixed:
        split = plan_mixed(
            shape, fleet.kinds, sequence_length=sequence_length, batch_sequences=batch_sequences, recipe=recipe,
            conditions=conditions,
        )  # fmt: skip
        return _as_memory_plan(split, fleet)
    return plan_memory(
        shape, sequence_length=sequence_length, batch_sequences=batch_sequences, accelerator=fleet.device,
        count=fleet.count, recipe=recipe, search=True, conditions=conditions,
    )  # fmt: skip


def fastest_on(
    fleet: Fleet,
    shape: ModelShape,
    *,
    sequence_length: int,
    batch_sequences: int,
    recipe: Recipe,
    conditions: Conditions = STANDARD,
    replicas: Replicas | None = None,
) -> Choice:
    """What `plan_on` chooses, without alternatives and reports: for plans that ask about many batches or sizes.

    Raises what `plan_on` raises.
    """
    training: dict[str, Any] = {
        "sequence_length": sequence_length, "recipe": recipe, "conditions": conditions,
    }  # fmt: skip
    if replicas is not None:
        part = replicas.part(fleet)
        found = fastest_on(part, shape, batch_sequences=batch_sequences // replicas.count, **training)
        return replace(found, step=replicas.joined(found.timed, shape, part.device, part.count))
    if fleet.is_mixed:
        return plan_on(fleet, shape, batch_sequences=batch_sequences, **training).chosen
    device = fleet.device
    demand = Demand(
        shape=shape, batch_sequences=batch_sequences, accelerator=device, count=fleet.count,
        overhead=overhead_of(device.name), alternatives=0, **training,
    )  # fmt: skip
    return search_layouts(demand)[0]


def _joined(
    found: MemoryPlan, replicas: Replicas, shape: ModelShape, part: Fleet, devices: int
) -> MemoryPlan:
    step = replicas.joined(found.chosen.timed, shape, part.device, part.count)
    described = step_part(step, devices, part.device.power_watts)
    return replace(found, chosen=replace(found.chosen, step=step), part=found.part | {"step": described})


def _as_memory_plan(found: MixedPlan, fleet: Fleet) -> MemoryPlan:
    """The keys of a plan for one kind, for the kind with the least headroom; `devices` has them all."""
    tightest = found.tightest
    held = round(tightest.state_share * found.state_bytes)
    terms = tuple(term for term in found.estimate.terms if term.name not in SPREAD)
    beside = tightest.per_device_bytes - held - sum(term.bytes for term in terms)
    rows = (
        Term(
            "weights, gradients and states",
            held,
            dict.fromkeys(MOMENTS, held),
            "the kind's share of one copy of all",
        ),
        Term(
            "waiting streams",
            beside,
            dict.fromkeys(MOMENTS, beside),
            "between layers, of micro-batches not at work; overhead",
        ),
    )
    estimate = replace(found.estimate, terms=(*rows, *terms), peak_bytes=tightest.per_device_bytes)
    recipe = replace(found.recipe, accumulation=-(-tightest.sequences // tightest.micro_batch_sequences))
    chosen = Choice(
        found.layout,
        recipe,
        tightest.micro_batch_sequences,
        estimate,
        0,
        found.step,
        "parts follow speed, states memory",
    )
    part = memory_part(
        chosen, replace(fleet.device, memory_bytes=tightest.per_device_bytes + tightest.headroom_bytes)
    )
    devices = [asdict(share) for share in found.shares]
    slow = min(found.shares, key=lambda share: share.sequences)
    unlike = (
        f"{fleet.device.name}: parts of the batch and of the states differ by kind (see devices), which the training "
        f"framework has to support; one {slow.accelerator} trains {slow.sequences} sequences of a step"
    )
    known = (warning for kind in fleet.kinds for warning in device_warnings(kind.accelerator, recipe))
    return MemoryPlan(
        part=part | {"elastic": [], "devices": devices}, warnings=(("W-MIXED-DEVICES", unlike), *known), chosen=chosen,
        alternatives=(), reliefs=(), error_bytes=0,
    )  # fmt: skip
