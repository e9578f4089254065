"""The batch: what to recommend, and what other sizes would cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from scalecli.errors import NotIdentified, PlanError
from scalecli.fitters.fit import Fit
from scalecli.fitters.fit import Interval as FitInterval
from scalecli.plan.critical import note_overhead
from scalecli.plan.document import BatchPart, Choice, CriticalPart, Stage
from scalecli.plan.efficiency import LandscapeEfficiency, has_batch
from scalecli.plan.evidence import Evidence, folklore
from scalecli.plan.loss import loss_gain_per_compute
from scalecli.plan.moving import middle, move_batch
from scalecli.plan.notes import Notes, as_interval
from scalecli.plan.objectives import Objective, Pace, best_batch
from scalecli.plan.rules.updates import least_updates
from scalecli.plan.schedule import steps_of
from scalecli.plan.target import Target

# Within this share of the loss two settings count as equally good: seeds of one run differ by about as much.
FLAT_TOLERANCE = 1e-3
TRADEOFF_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
SECONDS_PER_DAY = 86_400
# Of the fastest batch's tokens a second: what counts as keeping the devices busy.
BUSY = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchWish:
    """What the batch is to be best for, or what it is to be; `max_tokens` is a ceiling of the user's own."""

    objective: Objective = field(default_factory=Objective)
    tokens: float | None = None
    max_tokens: float | None = None


def recommend_batch(known: Evidence, wish: BatchWish, pace: Pace | None, notes: Notes) -> FitInterval:
    """The batch [tokens] before it is rounded to what a layout can run. Raises `PlanError` for impossible wishes."""
    if wish.tokens is not None:
        return _as_wished(wish.tokens, known.target, notes)
    least = _of_least_loss(known, notes)
    found = best_batch(wish.objective, least, known.efficiency, pace)
    if wish.objective.goal != "tokens":
        assert known.efficiency is not None, "these objectives rest on one"
        notes.line(
            "batch for the objective", found, unit="tokens", rule=f"{wish.objective}, counted from "
            f"{known.efficiency.reference}", source=known.efficiency.source,
        )  # fmt: skip
    if wish.max_tokens is not None and found.value > wish.max_tokens:
        notes.line("batch ceiling", wish.max_tokens, unit="tokens", rule="as wished", source="you")
        return FitInterval(wish.max_tokens, wish.max_tokens, wish.max_tokens)
    return found


def _as_wished(tokens: float, target: Target, notes: Notes) -> FitInterval:
    if tokens < target.sequence_length:
        raise PlanError(
            f"a batch of {tokens:g} tokens is less than one sequence of {target.sequence_length}",
            hint="batches are in tokens: multiply sequences by their length",
        )
    notes.line("batch", tokens, unit="tokens", rule="as wished", source="you")
    return FitInterval(tokens, tokens, tokens)


def _of_least_loss(known: Evidence, notes: Notes) -> FitInterval:
    return _from_landscape(known, notes) or _from_setting(known, notes) or _from_presets(known, notes)


def _from_landscape(known: Evidence, notes: Notes) -> FitInterval | None:
    fit, target = known.fits.landscape, known.target
    if fit is None:
        return None
    try:
        found = fit.query(lambda law: law.optimal_batch_tokens(target.params, target.tokens))
    except NotIdentified as error:
        notes.warn("W-BATCH-NOT-IDENTIFIED", error.message)
        return None
    notes.line(
        "batch", found, unit="tokens", rule=f"least loss at fixed tokens: the optimum of the {fit.law.name} law",
        source="fit",
    )  # fmt: skip
    _note_growth(fit, target, notes)
    return found


def _note_growth(fit: Fit, target: Target, notes: Notes) -> None:
    """How the best batch grows with data for this model, and with compute at constant tokens a parameter."""

    def power(law: Any, size: float, length: float) -> Any:
        grown = law.optimal_batch_tokens(target.params * size, target.tokens * length)
        return np.log(grown / law.optimal_batch_tokens(target.params, target.tokens))

    for name, size, length in (("data", 1.0, math.e), ("compute", math.sqrt(math.e), math.sqrt(math.e))):
        notes.line(
            f"batch over {name}", fit.query(partial(power, size=size, length=length)), unit="exponent",
            rule=f"least loss at fixed {name}: batch ∝ {name}^value", source="fit",
        )  # fmt: skip


def _from_setting(known: Evidence, notes: Notes) -> FitInterval | None:
    if known.journey is None:
        return None
    rules = move_batch(known.journey)
    found = middle(rules)
    assert found is not None, "every rule over scale has a value"
    interval = FitInterval(found.value, found.low, found.high)
    notes.line(
        "batch", interval, unit="tokens", rule=f"your setting, moved by {len(rules)} rules: middle and whole span",
        source="you", warning="rules, not measurements: see `moved`",
    )  # fmt: skip
    return interval


def _from_presets(known: Evidence, notes: Notes) -> FitInterval:
    said = [(p.batch_tokens, p.valid) for p in known.optima if p.batch_tokens is not None]
    found = folklore(said)
    notes.line(
        "batch", found.interval, unit="tokens", rule=found.rule, source="presets",
        warning="folklore until probes are run",
    )  # fmt: skip
    low, high = min(said)[0], max(said)[0]
    notes.warn(
        "W-FOLKLORE",
        f"no landscape was fitted: the batch is the middle of published rules, which here span {high / low:.2g}×; "
        "run `scalecli probe sweep` and fit a landscape",
    )
    return found.interval


def flat_batches(fit: Fit | None, target: Target) -> tuple[float, float] | None:
    """Batches [tokens] within 0.1 % of the least loss; None where the runs do not say."""
    if fit is None:
        return None
    found = fit.law.flat_range(target.params, target.tokens, FLAT_TOLERANCE).batch_tokens
    return None if found is None else (float(found[0]), float(found[1]))


def round_batch(batch_tokens: float, target: Target) -> int:
    """Sequences a step: a multiple of devices and replicas with at most three significant bits.

    Such numbers (4, 5, 6, 7, 8, 10, 12, 14, 16, ...) divide into micro-batches; none is further than 1/8 away, which
    is well inside any flat range.
    """
    each = max(1.0, batch_tokens / target.sequence_length / target.batch_multiple)
    step = 1 << max(0, math.floor(math.log2(each)) - 2)
    return target.batch_multiple * step * round(each / step)


def whole_batch(batch_tokens: float, target: Target) -> int:
    """Sequences a step nearest to a wished batch: any multiple of devices and replicas."""
    return (
        max(1, round(batch_tokens / target.sequence_length / target.batch_multiple)) * target.batch_multiple
    )


def check_batch(known: Evidence, batch_tokens: int, beta2: float | None, notes: Notes) -> None:
    """Say how far the batch that is run lies from the critical one, and warn where it leaves too few updates."""
    note_overhead(known.critical, batch_tokens, notes)
    steps, least = known.target.tokens / batch_tokens, least_updates(beta2)
    if steps < least:
        notes.warn(
            "W-FEW-UPDATES",
            f"the batch leaves {steps:.0f} updates, under the {least:.0f} in which second moments settle",
        )


def tradeoff(best: float, known: Evidence, pace: Pace | None) -> list[Choice]:
    """What a quarter to eight times the batch would cost for the loss that `best` reaches at the target's tokens."""
    target = known.target
    rounded = (round_batch(best * factor, target) * target.sequence_length for factor in TRADEOFF_FACTORS)
    batches = dict.fromkeys(rounded)
    return [_choice(batch, best, known, pace) for batch in batches]


def _choice(batch_tokens: int, best: float, known: Evidence, pace: Pace | None) -> Choice:
    efficiency, target = known.efficiency, known.target
    extra = None if efficiency is None else efficiency.extra_tokens(batch_tokens)
    at_best = None if efficiency is None else efficiency.extra_tokens(best)
    more = 1.0 if extra is None or at_best is None else (1 + extra) / (1 + at_best)
    steps = math.ceil(more * target.tokens / batch_tokens)
    seconds = None if pace is None else pace(batch_tokens)
    excess = efficiency.excess_loss(batch_tokens) if isinstance(efficiency, LandscapeEfficiency) else None
    return Choice(
        batch_tokens=batch_tokens,
        steps=steps,
        extra_tokens_fraction=extra,
        excess_loss=excess,
        excess_compute_fraction=_as_compute(excess, known),
        learning_rate=_rate(batch_tokens, known),
        days=None if seconds is None else steps * seconds / SECONDS_PER_DAY,
    )


def _as_compute(excess: float | None, known: Evidence) -> float | None:
    """The compute, as a fraction, that the excess loss is worth: dL / |dL / d ln C|."""
    if excess is None or known.fits.loss is None:
        return None
    return excess / loss_gain_per_compute(known.fits.loss, known.target)


def _rate(batch_tokens: float, known: Evidence) -> float | None:
    """The learning rate re-tuned for this batch, where the landscape knows."""
    fit, target = known.fits.landscape, known.target
    if fit is None or not has_batch(fit, target):
        return None
    return float(fit.law.optimal_learning_rate_at(target.params, target.tokens, batch_tokens))


def note_two_stage(known: Evidence, notes: Notes) -> None:
    """The two-stage optimum beside the joint one, and a warning where their intervals lie apart."""
    joint, two_stage, target = known.fits.landscape, known.fits.two_stage, known.target
    if joint is None or two_stage is None:
        return
    queries = {"learning rate": lambda law: law.optimal_learning_rate(target.params, target.tokens)}
    if has_batch(joint, target) and has_batch(two_stage, target):
        queries["batch"] = lambda law: law.optimal_batch_tokens(target.params, target.tokens)
    for name, query in queries.items():
        one, other = joint.query(query), two_stage.query(query)
        rule = f"optimum of the {two_stage.law.name} law, for comparison"
        notes.line(f"{name} by two stages", other, unit="", rule=rule, source="fit")
        if _apart(one, other):
            notes.warn(
                "W-LANDSCAPES-DISAGREE",
                f"{name}: {other.value:.3g} by two stages, {one.value:.3g} jointly, and their intervals lie apart",
            )


def _apart(one: FitInterval, other: FitInterval) -> bool:
    ends = (one.low, one.high, other.low, other.high)
    if any(end is None for end in ends):
        return False
    return one.high < other.low or other.high < one.low  # type: ignore[operator]


def note_saturation(rows: Sequence[Choice], notes: Notes) -> None:
    """The smallest batch of the trade-off that keeps the devices busy: smaller ones only cost time."""
    speeds = {row.batch_tokens: row.steps * row.batch_tokens / row.days for row in rows if row.days}
    if not speeds:
        return
    fastest = max(speeds.values())
    notes.line(
        "smallest batch at full speed", min(b for b, speed in speeds.items() if speed >= BUSY * fastest),
        unit="tokens", rule=f"tokens a second within {1 - BUSY:.0%} of the fastest batch below", source="marek2025",
    )  # fmt: skip


def batch_part(
    found: FitInterval, sequences: int, stages: list[Stage], known: Evidence, rows: list[Choice]
) -> BatchPart:
    """The `batch` key of the plan; `sequences` is the batch that the layout runs."""
    target, critical = known.target, known.critical
    return BatchPart(
        tokens=as_interval(found),
        sequences=sequences,
        sequence_length=target.sequence_length,
        steps=steps_of(stages, round(target.tokens)),
        critical_tokens=None
        if critical is None
        else CriticalPart(
            value=critical.tokens.value,
            low=critical.tokens.low,
            high=critical.tokens.high,
            definition=critical.definition,
        ),
        flat_range_tokens=flat_batches(known.fits.landscape, target),
        tradeoff=rows,
        schedule=stages,
    )
