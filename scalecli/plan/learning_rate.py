"""The learning rate: its peak for the chosen batch, how flat the valley is, and its course over the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scalecli.errors import NotIdentified
from scalecli.fitters.fit import Fit
from scalecli.fitters.fit import Interval as FitInterval
from scalecli.plan.document import RateGroup, RatePart
from scalecli.plan.evidence import Evidence, folklore
from scalecli.plan.landscape import flat_rates
from scalecli.plan.moving import move_rate
from scalecli.plan.notes import Notes, as_interval
from scalecli.plan.recipe import Schedule
from scalecli.plan.rules.moved import Moved
from scalecli.plan.rules.optimizer import change_optimizer
from scalecli.plan.rules.width import width_groups
from scalecli.plan.target import Target

# Every published rule of the catalogue was measured with it.
RULES_OPTIMIZER = "adamw"


def recommend_rate(known: Evidence, batch_tokens: float, notes: Notes) -> FitInterval | None:
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


def _from_presets(known: Evidence, notes: Notes) -> FitInterval | None:
    """The published rules are all for AdamW: another optimizer has their rate only where a ratio is published."""
    found = folklore([(p.learning_rate, p.valid) for p in known.optima if p.learning_rate is not None])
    interval, rule = found.interval, found.rule
    if known.optimizer != RULES_OPTIMIZER:
        changed = change_optimizer(interval.value, RULES_OPTIMIZER, known.optimizer)
        if changed.value is None:
            notes.warn("W-RATE-UNKNOWN", f"{changed.rule}: {changed.warning}")
            return None
        interval, rule = _times(interval, changed), f"{rule}; {changed.rule}"
    notes.line(
        "learning rate", interval, unit="peak", rule=rule, source="presets",
        warning="folklore until probes are run; each rule's rate belongs to its own batch",
    )  # fmt: skip
    return interval


def _times(found: FitInterval, changed: Moved) -> FitInterval:
    """The interval moved along with its value, wider by that of the ratio."""
    assert changed.value is not None
    low = None if found.low is None else found.low * (changed.low or changed.value) / found.value
    high = None if found.high is None else found.high * (changed.high or changed.value) / found.value
    return FitInterval(changed.value, low, high)


def rate_part(
    peak: FitInterval | None, schedule: Schedule, target: Target, fit: Fit | None, groups: list[RateGroup]
) -> RatePart:
    """The `learning_rate` key of the plan."""
    return RatePart(
        peak=as_interval(peak),
        final=None if peak is None else peak.value * schedule.final,
        schedule=schedule.name,
        warmup_tokens=round(schedule.warmup * target.tokens),
        decay_tokens=round(schedule.decay * target.tokens),
        flat_range=None if fit is None else flat_rates(fit, target),
        groups=groups,
    )


def rate_groups(setup: Mapping[str, Any], target: Target, notes: Notes) -> list[RateGroup]:
    """Multipliers of the peak for each kind of weight: those of muP where the runs used it, else none."""
    if setup.get("parametrization") != "mup":
        return []
    if "base_width" not in setup:
        notes.warn(
            "W-MUP-BASE-WIDTH",
            "the runs used muP but do not share a base_width: the multipliers of the target's matrices are not known",
        )
        return []
    groups = width_groups(float(setup["base_width"]), float(target.shape.width))
    for group in groups:
        notes.line(
            f"learning rate: {group.name}", group.multiplier, unit="of the peak", rule="muP under Adam",
            source="yang2022", warning="carries over width only: neither depth, tokens nor batch",
        )  # fmt: skip
    return [RateGroup(name=group.name, multiplier=group.multiplier) for group in groups]
