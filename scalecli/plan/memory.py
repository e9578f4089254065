"""The memory part of a plan: bytes of the worst device, when they peak, and how the batch is laid out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from scalecli.accounting.memory import Layout, Recipe, estimate_memory
from scalecli.accounting.memory.overhead import OVERHEAD_RULE, UNCALIBRATED, Overhead
from scalecli.accounting.memory.recipe import MOMENTS
from scalecli.accounting.shape import ModelShape
from scalecli.data.catalogue import Accelerator
from scalecli.errors import PlanError
from scalecli.plan.calibration import overhead_of
from scalecli.plan.elastic import on_fewer_devices
from scalecli.plan.layout import Choice, Demand, search_layouts
from scalecli.plan.relief import Relief, reliefs
from scalecli.plan.saving_remarks import remark_on_activations, remark_on_offloading, remark_on_training
from scalecli.plan.step.conditions import STANDARD, Conditions
from scalecli.plan.step.engine import kernel_efficiency
from scalecli.plan.step.report import step_part
from scalecli.plan.steptime import step_time
from scalecli.units import format_bytes


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """`part` has the keys of `memory` in the plan's document; `warnings` are (code, message)."""

    part: dict[str, Any]
    warnings: tuple[tuple[str, str], ...]
    chosen: Choice
    alternatives: tuple[Choice, ...]
    reliefs: tuple[Relief, ...]
    """Changes that lower the peak, the cheapest in time first."""
    error_bytes: int
    """Half width of the interval of the device's bytes: that of the overhead."""


def plan_memory(
    shape: ModelShape,
    *,
    sequence_length: int,
    batch_sequences: int | None = None,
    micro_batch_sequences: int | None = None,
    accelerator: Accelerator | None = None,
    count: int = 1,
    recipe: Recipe | None = None,
    layout: Layout | None = None,
    search: bool = False,
    held: Mapping[str, Any] | None = None,
    overhead: Overhead | None = None,
    conditions: Conditions = STANDARD,
) -> MemoryPlan:
    """Memory of one device under the given layout, or under the fastest layout that fits if `search`: of those with
    the fields of a layout that are `held`.

    `batch_sequences` is the global batch; without it the batch is one micro-batch on every data-parallel rank.
    Without `layout` and `search` the devices hold whole replicas (`ddp`). Without an accelerator nothing is known to
    fit or not. `overhead` is what the record of local steps says about the accelerator (plan/calibration.py), or
    assumed, unless it is given. `conditions` are what the step's time depends on besides.

    Raises PlanError for impossible wishes and, when searching, DoesNotFit with the bytes of the nearest layout.
    """
    recipe = recipe or Recipe()
    if overhead is None:
        overhead = UNCALIBRATED if accelerator is None else overhead_of(accelerator.name)
    if count < 1:
        raise PlanError(f"{count} devices cannot train anything", hint="give --count 1 or more")
    if search:
        if accelerator is None:
            raise PlanError("a layout search needs to know the device", hint="give --accelerator NAME")
        demand = Demand(
            shape=shape, sequence_length=sequence_length,
            batch_sequences=batch_sequences or count * (micro_batch_sequences or 1), accelerator=accelerator,
            count=count, recipe=recipe, micro_batch_sequences=micro_batch_sequences, overhead=overhead,
            conditions=conditions, held=held or {},
        )  # fmt: skip
        chosen, *others = search_layouts(demand)
        elastic = [asdict(row) for row in on_fewer_devices(demand, chosen)]
    else:
        wished = _spread(layout or Layout(), count)
        micro_batch, accumulation = split_batch(batch_sequences, micro_batch_sequences, wished, recipe)
        recipe = replace(recipe, accumulation=accumulation)
        chosen = _as_wished(
            shape, recipe, wished, micro_batch, sequence_length, accelerator, overhead, conditions
        )
        others, elastic = [], []
    changes = reliefs(
        shape, chosen.recipe, chosen.layout,
        micro_batch_sequences=chosen.micro_batch_sequences, sequence_length=sequence_length,
    )  # fmt: skip
    return MemoryPlan(
        part=memory_part(chosen, accelerator) | {"elastic": elastic, "devices": []},
        warnings=tuple(_warnings(shape, chosen, accelerator, overhead, changes)),
        chosen=chosen,
        alternatives=tuple(others),
        reliefs=tuple(changes),
        error_bytes=overhead.error(chosen.estimate.peak_bytes) if accelerator else 0,
    )


def _spread(layout: Layout, count: int) -> Layout:
    """The layout on `count` devices: data-parallel ranks that were not said fill them."""
    if layout.devices == count or count == 1:
        return layout
    cut = layout.tp * layout.pp * layout.cp
    if count % cut:
        raise PlanError(
            f"tensor {layout.tp} × pipeline {layout.pp} × context {layout.cp} ranks do not divide {count} devices",
            hint=f"use a multiple of {cut} devices",
        )
    if layout.dp > 1:
        raise PlanError(
            f"the layout is for {layout.devices} devices (data-parallel {layout.dp} × {cut}), not for {count}",
            hint=f"use --dp {count // cut} or --count {layout.devices}",
        )
    return replace(layout, dp=count // cut, sharding="ddp" if layout.sharding == "none" else layout.sharding)


def _as_wished(
    shape: ModelShape,
    recipe: Recipe,
    layout: Layout,
    micro_batch: int,
    sequence_length: int,
    accelerator: Accelerator | None,
    overhead: Overhead,
    conditions: Conditions,
) -> Choice:
    """The wished layout, whether it fits or not; its time is known where the device is."""
    estimate = estimate_memory(
        shape, recipe, layout, micro_batch_sequences=micro_batch, sequence_length=sequence_length
    )
    if accelerator is None:
        return Choice(layout, recipe, micro_batch, estimate, overhead_bytes=0, step=None, reason="as wished")
    step = step_time(
        shape, recipe, layout, accelerator, micro_batch_sequences=micro_batch, sequence_length=sequence_length,
        conditions=conditions,
    )  # fmt: skip
    extra = overhead.bytes(estimate.peak_bytes)
    return Choice(layout, recipe, micro_batch, estimate, extra, step, reason="as wished")


def split_batch(
    batch_sequences: int | None, micro_batch_sequences: int | None, layout: Layout, recipe: Recipe
) -> tuple[int, int]:
    """(micro-batch, accumulation) so that micro-batch × accumulation × data-parallel ranks is the global batch.

    Raises PlanError where the three cannot agree.
    """
    if micro_batch_sequences is not None and micro_batch_sequences < 1:
        raise PlanError(f"a micro-batch of {micro_batch_sequences} sequences holds nothing")
    if batch_sequences is None:
        return micro_batch_sequences or 1, recipe.accumulation
    if batch_sequences < layout.dp:
        raise PlanError(
            f"a batch of {batch_sequences} sequences cannot feed {layout.dp} data-parallel ranks",
            hint=f"use --dp {batch_sequences} or less, or a larger batch",
        )
    micro_batch = micro_batch_sequences or 1
    if batch_sequences % (layout.dp * micro_batch):
        raise PlanError(
            f"a batch of {batch_sequences} sequences is not a multiple of {layout.dp} ranks × {micro_batch} sequences",
            hint=f"use a batch of {-(-batch_sequences // (layout.dp * micro_batch)) * layout.dp * micro_batch}",
        )
    return micro_batch, batch_sequences // (layout.dp * micro_batch)


def memory_part(chosen: Choice, accelerator: Accelerator | None) -> dict[str, Any]:
    """The keys of `memory` that a layout gives."""
    estimate, layout = chosen.estimate, chosen.layout
    terms = [
        {
            "name": term.name,
            "bytes": term.bytes,
            "moments": [moment for moment in MOMENTS if term.moments.get(moment)],
            "rule": term.rule,
        }
        for term in estimate.terms
    ]
    if chosen.overhead_bytes:
        terms.append(
            {
                "name": "overhead",
                "bytes": chosen.overhead_bytes,
                "moments": list(MOMENTS),
                "rule": OVERHEAD_RULE,
            }
        )
    headroom = None if accelerator is None else accelerator.memory_bytes - chosen.device_bytes
    return {
        "per_device_bytes": chosen.device_bytes,
        "peak": {"bytes": estimate.peak_bytes, "moment": estimate.moment},
        "saved_for_backward_bytes": estimate.saved_for_backward_bytes,
        "fits": None if headroom is None else headroom >= 0,
        "headroom_bytes": headroom,
        "terms": terms,
        "micro_batch_sequences": chosen.micro_batch_sequences,
        "accumulation": chosen.recipe.accumulation,
        "sharding": layout.sharding,
        "tensor_parallel": layout.tp,
        "pipeline_parallel": layout.pp,
        "context_parallel": layout.cp,
        "expert_parallel": layout.ep,
        "data_parallel": layout.dp,
        "sequence_parallel": layout.sequence_parallel,
        "schedule": layout.schedule,
        "virtual_stages": layout.virtual_stages,
        "shard_group": layout.shard_group,
        "recompute": chosen.recipe.recompute,
        "recompute_layers": chosen.recipe.recompute_layers,
        "offload": layout.offload,
        "offload_layers": layout.offload_layers,
        "precision": chosen.recipe.precision,
        "host_bytes": estimate.host_bytes,
        "host_terms": estimate.host_terms,
        "offloaded": [asdict(part) for part in estimate.moved],
        "step": None
        if chosen.step is None or accelerator is None
        else step_part(chosen.step, layout.devices, accelerator.power_watts),
    }


def _warnings(
    shape: ModelShape,
    chosen: Choice,
    accelerator: Accelerator | None,
    overhead: Overhead,
    changes: list[Relief],
) -> Iterator[tuple[str, str]]:
    yield from remark_on_training(shape, chosen.recipe)
    if accelerator is None:
        yield "W-NO-ACCELERATOR", "no accelerator was named: whether this fits is not known"
        return
    if not overhead.calibrated:
        yield "W-UNCALIBRATED", f"overhead is {overhead.origin}; memory --calibrate measures it here"
    yield from device_warnings(accelerator, chosen.recipe)
    yield from remark_on_offloading(chosen.layout, shape.layers // chosen.layout.pp, chosen.step)
    if chosen.device_bytes > accelerator.memory_bytes:
        excess = chosen.device_bytes - accelerator.memory_bytes
        helps = next((change for change in changes if change.saves_bytes >= excess), None)
        remedy = f"; {helps.change} would make it fit" if helps else ""
        message = f"{format_bytes(excess)} more than one {accelerator.name} has, highest at {chosen.estimate.moment}"
        yield "W-DOES-NOT-FIT", message + remedy
        yield from remark_on_activations(chosen.estimate)


def device_warnings(accelerator: Accelerator, recipe: Recipe) -> Iterator[tuple[str, str]]:
    """What is not known of a device, and what it cannot do."""
    if not accelerator.verified:
        yield (
            "W-UNVERIFIED-DEVICE",
            f"the figures of {accelerator.name} were not compared with its maker's",
        )
    efficiency = kernel_efficiency(accelerator)
    if not efficiency.known:
        yield (
            "W-EFFICIENCY",
            f"no published training is known for {accelerator.name}: its kernels reach {efficiency.low:.0%} to "
            f"{efficiency.high:.0%} of the peak; `scalecli probe device` measures it",
        )
    if recipe.precision.startswith("bf16") and "bf16" not in accelerator.peak_flops:
        yield "W-NO-BF16", f"{accelerator.name} has no bf16 units: fp16 and loss scaling are reckoned with"
