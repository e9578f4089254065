"""Fits and a wish in, a plan out: each part is decided in its own module, in the order the parts need each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, cast

from scalecli import __version__
from scalecli.accounting.memory import Recipe
from scalecli.data.catalogue import Accelerator, accelerator
from scalecli.fitters.fit import Fit
from scalecli.fitters.fit import Interval as FitInterval
from scalecli.plan.batch import BatchWish, batch_part, check_batch, recommend_batch, run_batch
from scalecli.plan.ceiling import RateCeiling, cap_rate
from scalecli.plan.cost import FLOP_COUNT, plan_cost
from scalecli.plan.course import Course, Table, critical_course
from scalecli.plan.diloco import note_diloco
from scalecli.plan.document import SCHEMA, Budget, CostPart, MemoryPart, MovedPart, Plan, Stage, TargetPart
from scalecli.plan.evidence import Evidence, gather
from scalecli.plan.extrapolation import note_extrapolation
from scalecli.plan.fits import fit_set
from scalecli.plan.landscape import note_two_stage
from scalecli.plan.learning_rate import rate_groups, rate_part, recommend_rate
from scalecli.plan.loss import predict_loss
from scalecli.plan.memory import MemoryPlan, plan_memory
from scalecli.plan.moving import report
from scalecli.plan.notes import Notes, as_interval
from scalecli.plan.pace import pace_on
from scalecli.plan.recipe import choose_optimizer, choose_schedule, expected_beta2, optimizer_name
from scalecli.plan.remarks import (
    note_beyond_critical,
    note_early_signs,
    note_forgetting,
    note_synchronisations,
    note_video_size,
)
from scalecli.plan.rules.setting import Setting
from scalecli.plan.schedule import plan_stages, steps_of
from scalecli.plan.setup import check_batch_unit, check_setup
from scalecli.plan.target import Target, Wish, resolve
from scalecli.plan.tradeoff import note_saturation, tradeoff


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """How to choose where there is a choice.

    `setting` is one that was found good, to be moved to the target; `budget` keeps published rules to those for
    fixed data or fixed compute; `course` is how the batch changes over training; `rate_ceilings` are largest stable
    rates that probes measured.
    """

    interval: float = 0.9
    batch: BatchWish = field(default_factory=BatchWish)
    setting: Setting | None = None
    budget: Budget | None = None
    course: Literal["constant", "critical"] | Table = "constant"
    rate_ceilings: tuple[RateCeiling, ...] = ()


def make_plan(wish: Wish, fits: Sequence[Fit], options: PlanOptions) -> Plan:
    """The plan for a wish.

    Raises `PlanError` for wishes that contradict themselves, `UnknownAccelerator`, and `DoesNotFit` when no layout of
    the named devices holds the model.
    """
    notes, fitted = Notes(), fit_set([replace(fit, interval=options.interval) for fit in fits])
    setup = fitted.setup()
    optimizer = optimizer_name(setup, options.setting, wish.optimizer)
    recipe = training_recipe(optimizer)
    device = None if wish.accelerator is None else accelerator(wish.accelerator, wish.accelerators)
    target = resolve(wish, fitted.loss, device, recipe, notes)
    check_setup(fitted.setups(), {"optimizer": wish.optimizer, **wish.recipe}, target, notes)
    check_batch_unit(fitted.all, notes)

    loss = predict_loss(fitted, target, notes)
    known = gather(target, fitted, loss, options.setting, optimizer, options.budget, notes)
    pace = pace_on(device, target, recipe)
    beta2 = expected_beta2(optimizer, setup, options.setting)
    found = recommend_batch(known, options.batch, beta2, pace, notes)
    sequences = run_batch(found, options.batch, target)
    batch_tokens = sequences * target.sequence_length

    layout = _layout(target, sequences, optimizer, device, notes)
    cost = _cost(target, device, layout, notes)
    stages = plan_stages(known, batch_tokens, _unit(layout, target), _course(options, known), notes)
    rows = tradeoff(batch_tokens, known, pace)

    rate = recommend_rate(known, batch_tokens, notes)
    peak = cap_rate(rate, options.rate_ceilings, target, optimizer, batch_tokens, notes)
    moved = [] if known.journey is None else report(known.journey, batch_tokens, peak)
    settings = choose_optimizer(optimizer, setup, moved, notes)
    schedule = choose_schedule(setup, target, notes)

    check_batch(known, batch_tokens, settings.beta2, notes)
    note_saturation(batch_tokens, target, pace, layout, notes)
    _remark(known, stages, layout, notes)
    return Plan(
        schema=SCHEMA,
        target=_target_part(target),
        batch=batch_part(found, sequences, stages, known, rows),
        learning_rate=rate_part(peak, schedule, known, batch_tokens, rate_groups(setup, target, notes)),
        optimizer=settings,
        loss=as_interval(loss),
        memory=MemoryPart.model_validate(layout.part),
        cost=cost,
        alternatives=[choice.summary() for choice in layout.alternatives],
        presets=list(known.presets),
        moved=[MovedPart(**asdict(entry)) for entry in moved],
        lines=notes.lines,
        warnings=notes.warnings,
        fits=[_fit_part(fit) for fit in fitted.all],
        provenance={
            "versions": {"scalecli": __version__},
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "options": asdict(options),
        },
    )


def _remark(known: Evidence, stages: Sequence[Stage], layout: MemoryPlan, notes: Notes) -> None:
    """What else bears on the decision: findings with their sources, distances from the runs, warnings of the fits."""
    fitted, target, last = known.fits, known.target, stages[-1].batch_tokens
    steps = steps_of(list(stages), round(target.tokens))
    note_two_stage(fitted, target, notes)
    note_diloco(target, fitted.landscape is not None, notes)
    note_synchronisations(target, steps, layout, notes)
    note_forgetting(last, notes)
    note_beyond_critical(known, last, notes)
    note_early_signs(target, notes)
    note_video_size(target, notes)
    note_extrapolation(fitted, target, notes)
    for fit in fitted.all:
        notes.adopt(fit.document()["warnings"], fit.law.name)


def _course(options: PlanOptions, known: Evidence) -> Course | None:
    if isinstance(options.course, Table):
        return options.course.course(known.target)
    return critical_course(known.fits, known.target) if options.course == "critical" else None


def _unit(layout: MemoryPlan, target: Target) -> int:
    """Tokens that the layout trains on at once: every batch is a multiple of it."""
    return int(layout.part["micro_batch_sequences"] * layout.part["data_parallel"] * target.sequence_length)


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
    target: Target, sequences: int, optimizer: str, device: Accelerator | None, notes: Notes
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
