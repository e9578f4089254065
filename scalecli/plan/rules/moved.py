"""What a rule says about one value of a setting that was moved."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A value as one rule gives it; None where the rule has no answer, and `warning` then says why.

    `quantity` is the canonical column; `source` a key of the catalogue; `range` where the rule holds, in words;
    `warning` is set when the move leaves that range.
    """

    quantity: str
    value: float | None
    rule: str
    source: str
    range: str
    warning: str | None = None
    low: float | None = None
    high: float | None = None
