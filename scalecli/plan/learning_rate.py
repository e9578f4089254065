"""The learning rate: its peak for the chosen batch, how flat the valley is, and its course over the run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from scalecli.errors import NotIdentified
from scalecli.fitters.fit import Fit
from scalecli.fitters.fit import Interval as FitInterval
from scalecli.plan.batch import FLAT_TOLERANCE
from scalecli.plan.document import Preset, RateGroup, RatePart
from scalecli.plan.notes import Notes, as_interval
from scalecli.plan.recipe import Schedule
from scalecli.plan.target import Target


def recommend_rate(
    target: Target, batch_tokens: float, fit: Fit | None, presets: list[Preset], notes: Notes
) -> FitInterval | None:
    """The peak learning rate at the batch that will be run."""
    if fit is not None:
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
    return _from_presets(presets, notes)


def _from_presets(presets: list[Preset], notes: Notes) -> FitInterval | None:
    said = sorted(p.learning_rate for p in presets if p.quantity == "optimum" and p.learning_rate is not None)
    if not said:
        return None
    middle = math.exp(sum(math.log(rate) for rate in said) / len(said))
    found = FitInterval(value=middle, low=said[0], high=said[-1])
    notes.line(
        "learning rate", found, unit="peak", rule=f"geometric mean and whole spread of {len(said)} published rules",
        source="presets", warning="folklore until probes are run",
    )  # fmt: skip
    return found


def rate_part(
    peak: FitInterval | None, schedule: Schedule, target: Target, fit: Fit | None, setup: Mapping[str, Any]
) -> RatePart:
    """The `learning_rate` key of the plan."""
    return RatePart(
        peak=as_interval(peak),
        final=None if peak is None else peak.value * schedule.final,
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
