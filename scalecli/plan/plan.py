"""Fits and a wish in, a plan out: each part is decided in its own module, in the order in which the parts need each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from scalecli import __version__
from scalecli.data.catalogue import Accelerator, accelerator
from scalecli.fitters.fit import Fit
from scalecli.plan.batch import batch_part, recommend_batch, round_batch
from scalecli.plan.document import MemoryPart, Plan, TargetPart
from scalecli.plan.fits import FitSet, fit_set
from scalecli.plan.learning_rate import rate_part, recommend_rate
from scalecli.plan.loss import predict_loss
from scalecli.plan.memory import plan_memory
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
    target = resolve(wish, known.loss, notes)
    setup = known.setup()
    check_setup(known.setups(), {"optimizer": wish.optimizer}, target, notes)
    loss = predict_loss(known.loss, target, options.interval, notes)
    presets = presets_for(target, None if loss is None else loss.value)
    batch = recommend_batch(target, known, presets, options.max_extra_tokens, notes)
    sequences = None if batch.value is None else round_batch(batch.value, target, target.count)
    batch_tokens = None if sequences is None else sequences * target.sequence_length
    peak = None
    if batch_tokens is not None:
        peak = recommend_rate(target, batch_tokens, known.landscape, presets, notes)
    optimizer = choose_optimizer(setup, notes)
    schedule = choose_schedule(setup, target, notes)
    memory = _memory(target, sequences, optimizer.name, device, notes)
    for fit in known.all:
        notes.adopt(fit.document()["warnings"], fit.law.name)
    return Plan(
        target=_target_part(target),
        batch=batch_part(batch, sequences, known, target, None),
        learning_rate=rate_part(peak, schedule, target, known.landscape, setup),
        optimizer=optimizer,
        loss=as_interval(loss),
        memory=memory,
        cost=None,
        alternatives=[],
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


def _memory(
    target: Target, sequences: int | None, optimizer: str, device: Accelerator | None, notes: Notes
) -> MemoryPart:
    """Bytes of the worst device: the fastest layout that fits on named devices, else one device that holds it all."""
    from scalecli.accounting.memory import Recipe

    found = plan_memory(
        target.shape,
        sequence_length=target.sequence_length,
        batch_sequences=sequences,
        accelerator=device,
        count=target.count,
        recipe=Recipe(optimizer=optimizer),
        search=device is not None,
    )
    for code, message in found.warnings:
        notes.warn(code, message)
    for term in found.part["terms"]:
        notes.line(
            f"memory: {term['name']}", term["bytes"], unit="bytes", rule=term["rule"], source="closed form"
        )
    return MemoryPart.model_validate(found.part)


def _fit_part(fit: Fit) -> dict[str, Any]:
    document = fit.document()
    kept = ("law", "status", "parameters", "interval", "rows", "groups", "validation", "provenance")
    return {key: document[key] for key in kept}
