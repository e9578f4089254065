"""Fits and a wish in, a plan out: each part is decided in its own module, in the order the parts need each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, cast

from scalecli import __version__
from scalecli.accounting.memory import Recipe
from scalecli.fitters.fit import Fit
from scalecli.fitters.fit import Interval as FitInterval
from scalecli.plan.batch import BatchWish, batch_part, check_batch, recommend_batch, run_batch
from scalecli.plan.ceiling import RateCeiling, cap_rate
from scalecli.plan.cost import NOTHING_KNOWN, Economy, plan_cost
from scalecli.plan.course import Course, Table, critical_course
from scalecli.plan.device_remarks import remark_on_devices
from scalecli.plan.diloco import note_diloco
from scalecli.plan.document import (
    SCHEMA,
    AllocationPart,
    Budget,
    CostPart,
    MemoryPart,
    MovedPart,
    Plan,
    Stage,
    TargetPart,
)
from scalecli.plan.evidence import Evidence, gather
from scalecli.plan.expert_remarks import remark_on_experts
from scalecli.plan.extrapolation import note_extrapolation
from scalecli.plan.fits import FitSet, fit_set
from scalecli.plan.fleet import fleet_of
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
from scalecli.plan.replicas import Replicas
from scalecli.plan.rules.setting import Setting
from scalecli.plan.schedule import plan_stages, steps_of
from scalecli.plan.setup import check_batch_unit, check_setup
from scalecli.plan.speed import Speed
from scalecli.plan.step.conditions import STANDARD, Conditions
from scalecli.plan.step.report import FLOP_COUNT
from scalecli.plan.target import Target, Wish, resolve
from scalecli.plan.tradeoff import note_saturation, tradeoff

# Of a plan for days or money: what is trained in them depends on the batch, and the batch on what is trained.
PASSES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """How to choose where there is a choice.

    `setting` is one that was found good, to be moved to the target; `budget` keeps published rules to those for
    fixed data or fixed compute; `course` is how the batch changes over training; `rate_ceilings` are largest stable
    rates that probes measured. `economy` and `conditions` are what time and money depend on, `replica_link` is how fast
    DiLoCo's replicas reach each other [bits/s].
    """

    interval: float = 0.9
    batch: BatchWish = field(default_factory=BatchWish)
    setting: Setting | None = None
    budget: Budget | None = None
    course: Literal["constant", "critical"] | Table = "constant"
    rate_ceilings: tuple[RateCeiling, ...] = ()
    economy: Economy = NOTHING_KNOWN
    conditions: Conditions = STANDARD
    replica_link: float | None = None


def make_plan(wish: Wish, fits: Sequence[Fit], options: PlanOptions) -> Plan:
    """The plan for a wish.

    Raises `PlanError` for wishes that contradict themselves, `UnknownAccelerator`, and `DoesNotFit` when no layout of
    the named devices holds the model.
    """
    fitted = fit_set([replace(fit, interval=options.interval) for fit in fits])
    optimizer = optimizer_name(fitted.setup(), options.setting, wish.optimizer)
    speed = _speed(wish, optimizer, options)
    plan = _plan(wish, fitted, optimizer, speed, options)
    if wish.days is None and wish.money is None:
        return plan
    for _ in range(PASSES):
        before, plan = plan, _plan(wish, fitted, optimizer, speed, options, plan.batch.sequences)
        if plan.batch.sequences == before.batch.sequences:
            break
    return plan


def _plan(
    wish: Wish,
    fitted: FitSet,
    optimizer: str,
    speed: Speed | None,
    options: PlanOptions,
    at_sequences: int | None = None,
) -> Plan:
    """`at_sequences` is the batch at which the devices' speed counts for the length, where that depends on it."""
    notes, setup = Notes(), fitted.setup()
    target = resolve(wish, fitted.loss, speed, notes, at_sequences)
    check_setup(fitted.setups(), {"optimizer": wish.optimizer, **wish.recipe}, target, notes)
    check_batch_unit(fitted.all, notes)

    loss = predict_loss(fitted, target, notes)
    known = gather(target, fitted, loss, options.setting, optimizer, options.budget, notes)
    pace = pace_on(speed, target)
    beta2 = expected_beta2(optimizer, setup, options.setting)
    found = recommend_batch(known, options.batch, beta2, pace, notes)
    sequences = run_batch(found, options.batch, target)
    batch_tokens = sequences * target.sequence_length

    layout = _layout(target, sequences, training_recipe(wish, optimizer), speed, notes)
    cost = _cost(target, sequences, speed, layout, notes)
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
    remark_on_experts(target, sequences, options.conditions, layout, notes)
    if speed is not None:
        remark_on_devices(target, speed, layout, notes)
    return Plan(
        schema=SCHEMA,
        target=_target_part(target),
        allocation=[AllocationPart(**asdict(row)) for row in target.allocations],
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
    if layout.part["devices"]:  # parts of any size
        return target.sequence_length * target.batch_multiple
    replicas = (target.replicas or 1) if target.accelerator else 1
    at_once = layout.part["micro_batch_sequences"] * layout.part["data_parallel"] * replicas
    return int(at_once * target.sequence_length)


def _speed(wish: Wish, optimizer: str, options: PlanOptions) -> Speed | None:
    """How fast the named devices train; None where none are named."""
    if wish.accelerator is None:
        return None
    replicas = None
    if wish.replicas is not None:
        replicas = Replicas(
            count=wish.replicas,
            steps=wish.sync_every,
            streams=wish.streams,
            bits_per_second=options.replica_link,
        )
    return Speed(
        fleet=fleet_of(wish.accelerator, wish.count, wish.accelerators),
        recipe=training_recipe(wish, optimizer),
        sequence_length=wish.sequence_length,
        conditions=options.conditions,
        economy=options.economy,
        replicas=replicas,
    )


def training_recipe(wish: Wish, optimizer: str) -> Recipe:
    """How the target is trained as far as bytes and time depend on it; `PlanError` for an unknown optimizer."""
    return Recipe(optimizer=cast(Any, optimizer), expert_capacity=wish.capacity_factor)


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


def _layout(target: Target, sequences: int, recipe: Recipe, speed: Speed | None, notes: Notes) -> MemoryPlan:
    """The fastest layout that fits on the named devices; without any, one device that holds it all."""
    if speed is not None:
        found = speed.layout(target.shape, sequences)
    else:
        found = plan_memory(
            target.shape, sequence_length=target.sequence_length, batch_sequences=sequences,
            recipe=recipe,
        )  # fmt: skip
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


def _cost(
    target: Target, sequences: int, speed: Speed | None, layout: MemoryPlan, notes: Notes
) -> CostPart | None:
    if speed is None:
        return None
    device = speed.fleet.device
    found = plan_cost(
        target.exact_flops,
        accelerator=device,
        count=target.count,
        recipe=layout.chosen.recipe,
        step=layout.chosen.step,
        economy=speed.economy,
        goodput=speed.goodput(target.shape, sequences),
    )
    days = FitInterval(value=found.days.value, low=found.days.low, high=found.days.high)
    notes.line(
        "days", days, unit="days", rule=f"FLOPs / (MFU × peak × devices × goodput); {FLOP_COUNT}", source=device.source
    )  # fmt: skip
    return found


def _fit_part(fit: Fit) -> dict[str, Any]:
    document = fit.document()
    kept = ("law", "status", "parameters", "interval", "rows", "groups", "validation", "provenance")
    return {key: document[key] for key in kept}
