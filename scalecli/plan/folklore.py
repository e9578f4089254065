"""What published rules say together: their middle and their whole span, which is folklore until probes are run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scalecli.fitters.critical.definitions import HYPERBOLA
from scalecli.fitters.fit import Interval as FitInterval
from scalecli.plan.critical import Critical
from scalecli.plan.document import Preset
from scalecli.plan.notes import ONE_RULE, Notes

WARNING = "folklore until probes are run"


@dataclass(frozen=True, slots=True)
class Said:
    """One rule's answer with its own ends, and whether the rule is in the range it was measured in."""

    value: float
    valid: bool
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Folklore:
    """The geometric mean of the rules in their range (of all when none is), and the whole span of all."""

    interval: FitInterval
    rule: str

    @property
    def no_interval(self) -> str | None:
        """Why there is no span, where there is none."""
        return ONE_RULE if self.interval.low is None else None


def folklore(said: Sequence[Said]) -> Folklore:
    """From what each rule says; at least one says something. A rule alone has no span."""
    trusted = [each.value for each in said if each.valid] or [each.value for each in said]
    value = math.exp(sum(map(math.log, trusted)) / len(trusted))
    inside = sum(each.valid for each in said)
    if len(said) == 1:
        where = "in" if inside else "outside"
        return Folklore(
            FitInterval(value, said[0].low, said[0].high), f"one rule, {where} its measured range"
        )
    kept = f"the {inside} in their measured range" if inside else "all, none of them in its measured range"
    ends = [end for each in said for end in (each.low, each.value, each.high) if end is not None]
    rule = f"geometric mean of {len(said)} published rules ({kept}) and their whole span"
    return Folklore(FitInterval(value, min(ends), max(ends)), rule)


def published_critical(presets: Sequence[Preset], notes: Notes) -> Critical | None:
    """The critical batch of the published rules, all in McCandlish's definition; None where no rule has one."""
    said = [Said(p.hyperbola_tokens, p.valid) for p in presets if p.hyperbola_tokens is not None]
    if not said:
        return None
    found = folklore(said)
    notes.line(
        "critical batch", found.interval, unit="tokens", rule=f"{found.rule}; {HYPERBOLA}", source="presets",
        warning=WARNING, no_interval=found.no_interval,
    )  # fmt: skip
    return Critical(tokens=found.interval, definition=HYPERBOLA, source="presets")
