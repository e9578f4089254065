"""Critical batch sizes at several targets, each from steps over batches; "not identified" is an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from scalecli.errors import TooFewRuns
from scalecli.fitters.critical.argmin import fewest_samples
from scalecli.fitters.critical.definitions import ARGMIN_SAMPLES, HYPERBOLA, OVERHEAD, SATURATED, SOURCES
from scalecli.fitters.critical.posterior import hyperbola_posterior
from scalecli.fitters.critical.steps import StepsToTarget
from scalecli.fitters.fit import Interval
from scalecli.fitters.laws.critical_batch import CriticalBatch

LARGEST_SPAN = 10.0
"""An interval of B_crit wider than this factor says nothing that a decision could rest on."""

REACH = 4.0
"""B_crit further than this factor outside the batches that were tried is the law's, not the runs'."""

OVERHEAD_SHARE = 0.2
"""Zhang et al. 2024, section 3: a fifth more steps than linear scaling from the smallest batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticalAt:
    """What steps over batches say at one target. Batches and E_min in tokens; None where nothing is identified.

    `reason` says why not, `params` is the size of the model where it is known. `overhead_tokens` counts from the
    smallest batch that was tried.
    """

    target: float
    batches: int
    reason: str | None
    params: float | None = None
    S_min: Interval | None = None
    E_min: Interval | None = None
    B_crit: Interval | None = None
    overhead_tokens: Interval | None = None
    saturated_tokens: Interval | None = None
    argmin_samples_tokens: float | None = None

    @property
    def identified(self) -> bool:
        return self.reason is None

    def figures(self) -> list[dict[str, Any]]:
        """Every critical batch at this target with its own definition."""
        named = (
            (self.B_crit, HYPERBOLA),
            (self.overhead_tokens, OVERHEAD),
            (self.saturated_tokens, SATURATED),
        )
        figures = [_figure(found, definition) for found, definition in named if found is not None]
        if self.argmin_samples_tokens is not None:
            figures.append(_figure(Interval(self.argmin_samples_tokens, None, None), ARGMIN_SAMPLES))
        return figures


def _figure(found: Interval, definition: str) -> dict[str, Any]:
    return {
        "tokens": found.value,
        "low": found.low,
        "high": found.high,
        "definition": definition,
        "source": SOURCES[definition],
    }


def critical_at(
    measured: StepsToTarget, *, interval: float = 0.9, draws: int = 2000, seed: int = 0
) -> CriticalAt:
    """S_min, E_min and B_crit at one target, with intervals at the level `interval`."""
    batch = measured.batch_tokens
    known: dict[str, Any] = {
        "target": measured.target,
        "params": measured.params,
        "batches": len(batch),
        "argmin_samples_tokens": fewest_samples(batch, measured.steps),
    }
    try:
        posterior = hyperbola_posterior(batch, measured.steps, draws, np.random.default_rng(seed))
    except TooFewRuns as error:
        return CriticalAt(**known, reason=error.message)

    def query(function: Callable[[CriticalBatch], Any]) -> Interval:
        low, high = np.quantile(function(posterior.draws), [(1 - interval) / 2, (1 + interval) / 2])
        return Interval(float(function(posterior.law)), float(low), float(high))

    base = float(batch.min())
    critical = query(lambda law: law.B_crit)
    reason = _not_identified(critical, base, float(batch.max()))
    if reason is not None:
        return CriticalAt(**known, reason=reason)
    return CriticalAt(
        **known,
        reason=None,
        S_min=query(lambda law: law.S_min),
        E_min=query(lambda law: law.min_tokens()),
        B_crit=critical,
        overhead_tokens=query(lambda law: law.batch_at_overhead(OVERHEAD_SHARE, base)),
        saturated_tokens=query(lambda law: law.B_crit / OVERHEAD_SHARE),
    )


def _not_identified(critical: Interval, least: float, most: float) -> str | None:
    if critical.value > REACH * most:
        return (
            f"steps still fall in proportion at the largest batch, {most:g} tokens: the critical one is larger; "
            "add larger batches"
        )
    if critical.value < least / REACH:
        return (
            f"steps hardly fall from the smallest batch on, {least:g} tokens: the critical one is smaller; "
            "add smaller batches"
        )
    if critical.low is None or critical.high is None or critical.high > LARGEST_SPAN * critical.low:
        span = (
            "has no end"
            if not critical.low or critical.high is None
            else f"spans {critical.high / critical.low:.0f}×"
        )
        return (
            f"the interval of B_crit {span}: add batches about {np.sqrt(least * most):.2g} tokens, or seeds"
        )
    return None
