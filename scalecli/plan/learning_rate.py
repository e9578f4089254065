"""The learning rate: its peak for the chosen batch, how flat the valley is, and its course over the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scalecli.errors import NotIdentified
from scalecli.fitters.fit import Fit
from scalecli.fitters.fit import Interval as FitInterval
from scalecli.plan.batch import FLAT_TOLERANCE
from scalecli.plan.document import RateGroup, RatePart
from scalecli.plan.evidence import Evidence, folklore
from scalecli.plan.moving import move_rate
from scalecli.plan.notes import Notes, as_interval
from scalecli.plan.recipe import Schedule
from scalecli.plan.target import Target


def recommend_rate(known: Evidence, batch_tokens: float, notes: Notes) -> FitInterval:
    """The peak learning rate at the batch that will be run."""
    return (
        _from_landscape(known, batch_tokens, notes)
        or _from_setting(known, batch_tokens, notes)
        or _from_presets(known, notes)
    )


def _from_landscape(known: Evidence, batch_tokens: float, notes: Notes) -> FitInterval | None:
    fit, target = known.fits.landscape, known.target
    if fit is None:
        return None
    try:
        found = fit.query(
            lambda law: law.optimal_learning_rate_at(target.params, target.tokens, batch_tokens)
        )
        rule = f"optimum of the {fit.law.name} law at the batch that is run"
    except NotIdentified:
        found = fit.query(lambda law: law.optimal_learning_rate(target.params, target.tokens))
        rule = f"optimum of the {fit.law.name} law at the batch that its runs used"
        notes.warn(
            "W-RATE-AT-OTHER-BATCH",
            "the learning rate holds for the batch size of the runs, which they did not vary",
        )
    notes.line("learning rate", found, unit="peak", rule=rule, source="fit")
    return found


def _from_setting(known: Evidence, batch_tokens: float, notes: Notes) -> FitInterval | None:
    if known.journey is None:
        return None
    found, rules = move_rate(known.journey, batch_tokens)
    if found is None:
        notes.warn("W-RATE-NOT-MOVED", f"{rules[-1].rule}; {rules[-1].warning}")
        return None
    notes.line(
        "learning rate", found, unit="peak", rule=f"your setting, moved by {len(rules)} rules: middle and whole span",
        source="you", warning="rules, not measurements: see `moved`",
    )  # fmt: skip
    return found


def _from_presets(known: Evidence, notes: Notes) -> FitInterval:
    found = folklore([(p.learning_rate, p.valid) for p in known.optima if p.learning_rate is not None])
    notes.line(
        "learning rate", found.interval, unit="peak", rule=found.rule, source="presets",
        warning="folklore until probes are run; each rule's rate belongs to its own batch",
    )  # fmt: skip
    return found.interval


def rate_part(
    peak: FitInterval, schedule: Schedule, target: Target, fit: Fit | None, setup: Mapping[str, Any]
) -> RatePart:
    """The `learning_rate` key of the plan."""
    return RatePart(
        peak=as_interval(peak),
        final=peak.value * schedule.final,
        schedule=schedule.name,
        warmup_tokens=round(schedule.warmup * target.tokens),
        decay_tokens=round(schedule.decay * target.tokens),
        flat_range=_flat_range(fit, target),
        groups=[
            RateGroup(name=name, multiplier=value) for name, value in setup.get("rate_groups", {}).items()
        ],
    )


def _flat_range(fit: Fit | None, target: Target) -> tuple[float, float] | None:
    if fit is None:
        return None
    low, high = fit.law.flat_range(target.params, target.tokens, FLAT_TOLERANCE).learning_rate
    return float(low), float(high)
