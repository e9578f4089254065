"""Fits and a wish in, a plan out: each part is decided in its own module, in the order the parts need each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, cast

from scalecli import __version__
from scalecli.accounting.memory import Recipe
from scalecli.data.catalogue import Accelerator, accelerator
from scalecli.fitters.fit import Fit
from scalecli.fitters.fit import Interval as FitInterval
from scalecli.plan.batch import batch_part, recommend_batch, round_batch
from scalecli.plan.cost import FLOP_COUNT, plan_cost
from scalecli.plan.document import SCHEMA, CostPart, MemoryPart, Plan, TargetPart
from scalecli.plan.fits import fit_set
from scalecli.plan.learning_rate import rate_part, recommend_rate
from scalecli.plan.loss import predict_loss
from scalecli.plan.memory import MemoryPlan, plan_memory
from scalecli.plan.notes import Notes, as_interval
from scalecli.plan.presets import presets_for
from scalecli.plan.recipe import choose_optimizer, choose_schedule
from scalecli.plan.setup import check_setup
from scalecli.plan.target import Target, Wish, resolve


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """How to choose where there is a choice."""

    interval: float = 0.9
    max_extra_tokens: float | None = None
    """Take the largest batch within this fraction of extra tokens, instead of the one of least tokens."""


def make_plan(wish: Wish, fits: Sequence[Fit], options: PlanOptions) -> Plan:
    """The plan for a wish.

    Raises `PlanError` for wishes that contradict themselves, `UnknownAccelerator`, and `DoesNotFit` when no layout of
    the named devices holds the model.
    """
    notes, known = Notes(), fit_set(fits)
    device = None if wish.accelerator is None else accelerator(wish.accelerator, wish.accelerators)
    setup = known.setup()
    optimizer = choose_optimizer(setup, wish.optimizer, notes)
    target = resolve(wish, known.loss, device, training_recipe(optimizer.name), notes)
    check_setup(known.setups(), {"optimizer": wish.optimizer}, target, notes)
    loss = predict_loss(known.loss, target, options.interval, notes)
    presets = presets_for(target, None if loss is None else loss.value)
    batch = recommend_batch(target, known, presets, options.max_extra_tokens, notes)
    sequences = None if batch.value is None else round_batch(batch.value, target, target.count)
    batch_tokens = None if sequences is None else sequences * target.sequence_length
    peak = None
    if batch_tokens is not None:
        peak = recommend_rate(target, batch_tokens, known.landscape, presets, notes)
    schedule = choose_schedule(setup, target, notes)
    layout = _layout(target, sequences, optimizer.name, device, notes)
    cost = _cost(target, device, layout, notes)
    for fit in known.all:
        notes.adopt(fit.document()["warnings"], fit.law.name)
    return Plan(
        schema=SCHEMA,
        target=_target_part(target),
        batch=batch_part(batch, sequences, known, target, None if cost is None else cost.days.value),
        learning_rate=rate_part(peak, schedule, target, known.landscape, setup),
        optimizer=optimizer,
        loss=as_interval(loss),
        memory=MemoryPart.model_validate(layout.part),
        cost=cost,
        alternatives=[choice.summary() for choice in layout.alternatives],
        presets=presets,
        lines=notes.lines,
        warnings=notes.warnings,
        fits=[_fit_part(fit) for fit in known.all],
        provenance={
            "versions": {"scalecli": __version__},
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "options": asdict(options),
        },
    )


def training_recipe(optimizer: str) -> Recipe:
    """How the target is trained as far as bytes and time depend on it; `PlanError` for an unknown optimizer."""
    return Recipe(optimizer=cast(Any, optimizer))


def _target_part(target: Target) -> TargetPart:
    return TargetPart(
        params=target.params,
        params_non_embedding=target.params_non_embedding,
        tokens=target.tokens,
        flops=target.flops,
        accelerator=target.accelerator,
        count=target.count,
        shape=asdict(target.shape),
    )


def _layout(
    target: Target, sequences: int | None, optimizer: str, device: Accelerator | None, notes: Notes
) -> MemoryPlan:
    """The fastest layout that fits on the named devices; without any, one device that holds it all."""
    found = plan_memory(
        target.shape,
        sequence_length=target.sequence_length,
        batch_sequences=sequences,
        accelerator=device,
        count=target.count if device is not None else 1,
        recipe=training_recipe(optimizer),
        search=device is not None,
    )
    for code, message in found.warnings:
        notes.warn(code, message)
    for term in found.part["terms"]:
        notes.line(
            f"memory: {term['name']}",
            float(term["bytes"]),
            unit="bytes",
            rule=term["rule"],
            source="closed form",
        )
    return found


def _cost(target: Target, device: Accelerator | None, layout: MemoryPlan, notes: Notes) -> CostPart | None:
    if device is None:
        notes.warn("W-NO-ACCELERATOR", "no accelerator was named: fit, time and cost are not known")
        return None
    found = plan_cost(
        target.exact_flops,
        accelerator=device,
        count=target.count,
        recipe=layout.chosen.recipe,
        step=layout.chosen.step,
    )
    days = FitInterval(value=found.days.value, low=found.days.low, high=found.days.high)
    notes.line(
        "days", days, unit="days", rule=f"FLOPs / (MFU × peak × devices); {FLOP_COUNT}", source=device.source
    )
    return found


def _fit_part(fit: Fit) -> dict[str, Any]:
    document = fit.document()
    kept = ("law", "status", "parameters", "interval", "rows", "groups", "validation", "provenance")
    return {key: document[key] for key in kept}
