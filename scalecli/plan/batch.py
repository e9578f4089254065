"""The batch: what to recommend, and what of it the devices can run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from scalecli.errors import PlanError
from scalecli.fitters.fit import Interval as FitInterval
from scalecli.plan.ceiling import BatchCeiling, cap_batch, sequences_below
from scalecli.plan.critical import note_overhead
from scalecli.plan.document import BatchPart, Choice, CriticalPart, Stage
from scalecli.plan.evidence import Evidence
from scalecli.plan.folklore import WARNING, Said, folklore
from scalecli.plan.landscape import best_batch_of, flat_batches
from scalecli.plan.moving import how_moved, middle, move_batch
from scalecli.plan.notes import ONE_RULE, Notes, as_interval
from scalecli.plan.objectives import Objective, Pace, best_batch
from scalecli.plan.rules.updates import largest_batch, least_updates
from scalecli.plan.schedule import steps_of
from scalecli.plan.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchWish:
    """What the batch is to be best for, or what it is to be; no batch goes over a ceiling unless it was wished."""

    objective: Objective = field(default_factory=Objective)
    tokens: float | None = None
    ceilings: tuple[BatchCeiling, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommended:
    """A batch [tokens] before it is rounded to what a layout can run, and the ceilings that it keeps to."""

    tokens: FitInterval
    ceilings: tuple[BatchCeiling, ...]


def recommend_batch(
    known: Evidence, wish: BatchWish, beta2: float | None, pace: Pace | None, notes: Notes
) -> Recommended:
    """The wished batch, or the best by the evidence under every ceiling. Raises `PlanError` for impossible wishes."""
    if wish.tokens is not None:
        return Recommended(tokens=_as_wished(wish.tokens, known.target, notes), ceilings=())
    measured = best_batch_of(known.fits.landscape, known.target, known.budget, notes)
    least = measured or _from_setting(known, notes) or _from_presets(known, notes)
    unit = known.target.sequence_length * known.target.batch_multiple
    found = best_batch(wish.objective, least, known.efficiency, pace, unit)
    if wish.objective.goal != "tokens":
        assert known.efficiency is not None, "these objectives rest on one"
        notes.line(
            "batch for the objective", found, unit="tokens", rule=f"{wish.objective}, counted from "
            f"{known.efficiency.reference}", source=known.efficiency.source,
        )  # fmt: skip
    # Rules know nothing of short runs: what is measured may go further, with a warning.
    guard = () if measured is not None else _enough_updates(known.target, beta2)
    ceilings = (*wish.ceilings, *guard)
    return Recommended(tokens=cap_batch(found, ceilings, notes), ceilings=ceilings)


def _as_wished(tokens: float, target: Target, notes: Notes) -> FitInterval:
    if tokens < target.sequence_length:
        raise PlanError(
            f"a batch of {tokens:g} tokens is less than one sequence of {target.sequence_length}",
            hint="batches are in tokens: multiply sequences by their length",
        )
    notes.line("batch", tokens, unit="tokens", rule="as wished", source="you")
    return FitInterval(tokens, None, None)


def _from_setting(known: Evidence, notes: Notes) -> FitInterval | None:
    if known.journey is None:
        return None
    rules = move_batch(known.journey)
    found = middle(rules)
    assert found is not None, "what no rule moves is kept"
    interval = found.interval()
    notes.line(
        "batch", interval, unit="tokens", rule=how_moved(interval, rules), source="you",
        warning="rules, not measurements: see `moved`", no_interval=ONE_RULE,
    )  # fmt: skip
    return interval


def _from_presets(known: Evidence, notes: Notes) -> FitInterval:
    said = [Said(p.batch_tokens, p.valid) for p in known.optima if p.batch_tokens is not None]
    if not said:
        raise PlanError(
            f"no published rule states a batch for fixed {known.budget}",
            hint="leave out --fix, or give a fit",
        )
    found = folklore(said)
    notes.line(
        "batch", found.interval, unit="tokens", rule=found.rule, source="presets", warning=WARNING,
        no_interval=found.no_interval,
    )  # fmt: skip
    every = [each.value for each in said]
    spread = f"the middle of published rules, which here span {max(every) / min(every):.2g}×"
    notes.warn(
        "W-FOLKLORE",
        f"no landscape was fitted: the batch is {spread if len(every) > 1 else 'that of one published rule'}; run "
        "`scalecli probe sweep` and fit a landscape",
    )
    return found.interval


def _enough_updates(target: Target, beta2: float | None) -> tuple[BatchCeiling, ...]:
    """The ceiling that leaves a run the updates in which its second moments settle; none where it would be no batch."""
    most = largest_batch(target.tokens, beta2)
    if not target.sequence_length * target.batch_multiple <= most < math.inf:
        return ()
    reason = f"at least {least_updates(beta2):.0f} updates, in which second moments settle"
    return (BatchCeiling(tokens=most, reason=reason, source="hoffer2017"),)


def run_batch(found: Recommended, wish: BatchWish, target: Target) -> int:
    """Sequences a step that the devices can run: nearest to the wished or recommended batch, under every ceiling."""
    if wish.tokens is not None:
        return _whole(wish.tokens, target)
    most = sequences_below(found.ceilings, target)
    nearest = round_batch(found.tokens.value, target)
    return nearest if most is None else min(nearest, most)


def round_batch(batch_tokens: float, target: Target) -> int:
    """Sequences a step: a multiple of devices and replicas with at most three significant bits.

    Such numbers (4, 5, 6, 7, 8, 10, 12, 14, 16, ...) divide into micro-batches; none is further than 1/8 away, which
    is well inside any flat range.
    """
    each = max(1.0, batch_tokens / target.sequence_length / target.batch_multiple)
    step = 1 << max(0, math.floor(math.log2(each)) - 2)
    return target.batch_multiple * step * round(each / step)


def _whole(batch_tokens: float, target: Target) -> int:
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


def batch_part(
    found: Recommended, sequences: int, stages: list[Stage], known: Evidence, rows: list[Choice]
) -> BatchPart:
    """The `batch` key of the plan; `sequences` is the batch that the layout runs."""
    target, critical, landscape = known.target, known.critical, known.fits.landscape
    return BatchPart(
        tokens=as_interval(found.tokens),
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
        flat_range_tokens=None if landscape is None else flat_batches(landscape, target),
        tradeoff=rows,
        schedule=stages,
    )
