"""Limits on batch and rate that no law of the loss knows of: the user's own, and what probes of stability measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scalecli.errors import PlanError
from scalecli.fitters.fit import Interval as FitInterval
from scalecli.plan.moving import Journey, move_rate
from scalecli.plan.notes import ONE_RULE, Notes
from scalecli.plan.rules.setting import Setting
from scalecli.plan.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCeiling:
    """No batch of more than `tokens`, and why; `source` is `you` or a key of the catalogue.

    Some limits come neither from noise nor from memory: the memories of a dynamic graph go stale within a batch, say
    (Su et al. 2024, 2402.04284). Only the user knows those.
    """

    tokens: float
    reason: str
    source: str = "you"


@dataclass(frozen=True, slots=True, kw_only=True)
class RateCeiling:
    """A largest stable rate, as the setting of the probe that measured it; `source` is the probe's file."""

    setting: Setting
    reason: str
    source: str


def cap_batch(found: FitInterval, ceilings: Sequence[BatchCeiling], notes: Notes) -> FitInterval:
    """The batch [tokens], or the lowest ceiling where that is less; a line for every ceiling.

    An interval that lies above the ceiling as a whole says nothing of it: then there is none.
    """
    for ceiling in ceilings:
        binding = found.value > ceiling.tokens
        notes.line(
            "batch ceiling", ceiling.tokens, unit="tokens", rule=ceiling.reason, source=ceiling.source,
            warning=f"binding: the batch would be {found.value:.3g}" if binding else None,
            no_interval="a limit, not an estimate",
        )  # fmt: skip
    lowest = min((ceiling.tokens for ceiling in ceilings), default=found.value)
    if found.value <= lowest:
        return found
    inside = found.low is not None and found.low < lowest
    return FitInterval(lowest, found.low, lowest) if inside else FitInterval(lowest, None, None)


def sequences_below(ceilings: Sequence[BatchCeiling], target: Target) -> int | None:
    """The most sequences a step, a multiple of devices and replicas with three significant bits; None: no limit.

    Raises `PlanError` for a ceiling under one sequence for each of them.
    """
    if not ceilings:
        return None
    lowest = min(ceilings, key=lambda ceiling: ceiling.tokens)
    each = int(lowest.tokens / target.sequence_length / target.batch_multiple)
    if each < 1:
        raise PlanError(
            f"a batch of at most {lowest.tokens:g} tokens ({lowest.reason}) is less than one sequence of "
            f"{target.sequence_length} on each of {target.batch_multiple} devices or replicas",
            hint="batches are in tokens: multiply sequences by their length; or give fewer devices",
        )
    step = 1 << max(0, each.bit_length() - 3)
    return target.batch_multiple * (each // step * step)


def cap_rate(
    found: FitInterval | None,
    ceilings: Sequence[RateCeiling],
    target: Target,
    optimizer: str,
    batch_tokens: float,
    notes: Notes,
) -> FitInterval | None:
    """The peak rate, or the lowest ceiling where that is less. A probe's ceiling moves as a good rate would."""
    for ceiling in ceilings:
        moved, rules = move_rate(
            Journey(setting=ceiling.setting, target=target, optimizer=optimizer), batch_tokens
        )
        if moved is None:
            notes.warn("W-CEILING-NOT-MOVED", f"{ceiling.source}: {rules[-1].rule}")
            continue
        binding = found is not None and found.value > moved.value
        notes.line(
            "learning rate ceiling", moved, unit="peak", rule=f"{ceiling.reason}, moved by {len(rules)} rules",
            source=ceiling.source, warning="binding" if binding else None, no_interval=ONE_RULE,
        )  # fmt: skip
        if binding:
            assert found is not None
            notes.warn(
                "W-RATE-CEILING",
                f"the rate of {found.value:.3g} is over the stable {moved.value:.3g}: {ceiling.reason}",
            )
            found = _capped(found, moved)
    return found


def _capped(found: FitInterval, most: FitInterval) -> FitInterval:
    """The ceiling, down to the lower end of what lies above it; without ends where either has none."""
    if found.low is None or most.high is None:
        return FitInterval(most.value, None, None)
    return FitInterval(most.value, min(found.low, most.value), most.high)
