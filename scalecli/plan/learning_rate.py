"""The learning rate: its peak for the chosen batch, how flat the valley is, and its course over the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scalecli.errors import NotIdentified
from scalecli.fitters.fit import Fit
from scalecli.fitters.fit import Interval as FitInterval
from scalecli.plan.document import Preset, RateGroup, RatePart
from scalecli.plan.evidence import Evidence
from scalecli.plan.folklore import WARNING, Said, folklore
from scalecli.plan.landscape import flat_rates
from scalecli.plan.moving import Journey, how_moved, middle, move_rate, rate_over_batch
from scalecli.plan.notes import ONE_RULE, Notes, as_interval
from scalecli.plan.recipe import Schedule
from scalecli.plan.rules.moved import Moved
from scalecli.plan.rules.optimizer import change_optimizer
from scalecli.plan.rules.setting import Setting
from scalecli.plan.rules.width import width_groups
from scalecli.plan.target import Target

# Every published rule of the catalogue was measured with it.
RULES_OPTIMIZER = "adamw"


def recommend_rate(known: Evidence, batch_tokens: float, notes: Notes) -> FitInterval | None:
    """The peak learning rate at the batch that will be run; None, with a warning, where nothing says one."""
    if known.fits.landscape is not None:
        return _from_landscape(known.fits.landscape, known, batch_tokens, notes)
    return _from_setting(known, batch_tokens, notes) or _from_presets(known, batch_tokens, notes)


def _from_landscape(fit: Fit, known: Evidence, batch_tokens: float, notes: Notes) -> FitInterval | None:
    target = known.target.counted(fit)
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
    carried, rule = _for_optimizer(found, rule, _optimizer_of(fit), known.optimizer, notes)
    if carried is not None:
        notes.line("learning rate", carried, unit="peak", rule=rule, source="fit")
    return carried


def _optimizer_of(fit: Fit) -> str | None:
    """What the fit's runs were trained with, where they say."""
    return (fit.provenance.get("setup") or {}).get("optimizer")


def _from_setting(known: Evidence, batch_tokens: float, notes: Notes) -> FitInterval | None:
    if known.journey is None:
        return None
    found, rules = move_rate(known.journey, batch_tokens)
    if found is None:
        notes.warn("W-RATE-NOT-MOVED", f"{rules[-1].rule}; {rules[-1].warning}")
        return None
    notes.line(
        "learning rate", found, unit="peak", rule=how_moved(found, rules), source="you",
        warning="rules, not measurements: see `moved`", no_interval=ONE_RULE,
    )  # fmt: skip
    return found


def _from_presets(known: Evidence, batch_tokens: float, notes: Notes) -> FitInterval | None:
    found = folklore(
        [
            _at_batch(preset, known, batch_tokens)
            for preset in known.optima
            if preset.learning_rate is not None
        ]
    )
    rule = f"{found.rule}, each rule's rate moved from its own batch to the one that is run"
    carried, rule = _for_optimizer(found.interval, rule, RULES_OPTIMIZER, known.optimizer, notes)
    if carried is not None:
        notes.line(
            "learning rate", carried, unit="peak", rule=rule, source="presets", warning=WARNING,
            no_interval=found.no_interval,
        )  # fmt: skip
    return carried


def _at_batch(preset: Preset, known: Evidence, batch_tokens: float) -> Said:
    """The preset's rate at another batch than its own, by the rules over batch; as it is where it states no batch."""
    assert preset.learning_rate is not None
    if preset.batch_tokens is None:
        return Said(preset.learning_rate, preset.valid)
    target = known.target
    setting = Setting(
        batch_tokens=min(preset.batch_tokens, target.tokens), learning_rate=preset.learning_rate,
        params=target.params, tokens=target.tokens, optimizer=RULES_OPTIMIZER,
    )  # fmt: skip
    journey = Journey(
        setting=setting, target=target, optimizer=RULES_OPTIMIZER, critical_tokens=known.critical_tokens
    )
    found = middle(rate_over_batch(journey, preset.learning_rate, batch_tokens))
    assert found is not None, "every rule over the batch has a value"
    return Said(found.value, preset.valid, found.low, found.high)


def _for_optimizer(
    found: FitInterval, rule: str, before: str | None, after: str, notes: Notes
) -> tuple[FitInterval | None, str]:
    """The rate carried to the target's optimizer; None, with a warning, where no ratio is published."""
    if before in (None, after):
        return found, rule
    changed = change_optimizer(found.value, str(before), after)
    if changed.value is None:
        notes.warn("W-RATE-NOT-MOVED", f"{changed.rule}: {changed.warning}")
        return None, rule
    return _times(found, changed), f"{rule}; {changed.rule}"


def _times(found: FitInterval, changed: Moved) -> FitInterval:
    """The interval moved along with its value, wider by that of the ratio."""
    assert changed.value is not None
    low = None if found.low is None else found.low * (changed.low or changed.value) / found.value
    high = None if found.high is None else found.high * (changed.high or changed.value) / found.value
    return FitInterval(changed.value, low, high)


def rate_part(
    peak: FitInterval | None,
    schedule: Schedule,
    known: Evidence,
    batch_tokens: float,
    groups: list[RateGroup],
) -> RatePart:
    """The `learning_rate` key of the plan; a valley that was measured under another optimizer is not this one's."""
    target, fit = known.target, known.fits.landscape
    measured_here = fit is not None and _optimizer_of(fit) in (None, known.optimizer)
    return RatePart(
        peak=as_interval(peak),
        final=None if peak is None else peak.value * schedule.final,
        schedule=schedule.name,
        warmup_tokens=round(schedule.warmup * target.tokens),
        decay_tokens=round(schedule.decay * target.tokens),
        flat_range=flat_rates(fit, target, batch_tokens) if fit is not None and measured_here else None,
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
            no_interval="follows from the two widths",
        )  # fmt: skip
    return [RateGroup(name=group.name, multiplier=group.multiplier) for group in groups]
