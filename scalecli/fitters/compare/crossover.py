"""Where two curves cross, and what compute the worse one needs to match the better."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from scalecli.fitters.compare.curve import Curve
from scalecli.fitters.fit import Interval
from scalecli.fitters.law import Array

STEPS = 40
"""Points a decade on which curves are compared; between them they are straight in log-log to 1e-4."""

REACH = 4.0
"""Decades beyond the range that are searched for the compute at which one curve matches the other."""


@dataclass(frozen=True, slots=True)
class Crossover:
    """Where the curves cross on the axis; `first_wins_beyond` says which has the lower loss above it.

    `chance` is the share of draws that cross in this direction within the range; the interval is theirs.
    """

    place: Interval
    first_wins_beyond: bool
    chance: float | None


def crossovers(first: Curve, second: Curve, span: tuple[float, float], level: float) -> list[Crossover]:
    """All crossings of the point estimates inside `span`, in order, with intervals over the draws."""
    grid = _grid(span)
    gap = np.log(first.point(grid)) - np.log(second.point(grid))
    spread = _log_ratio(first, second, grid)
    return [_crossover(place, falling, grid, spread, level) for place, falling in _crossings(grid, gap)]


def chance_of_crossing(first: Curve, second: Curve, span: tuple[float, float]) -> float | None:
    """The share of draws in which the curves cross anywhere inside `span`; None without draws."""
    gap = _log_ratio(first, second, _grid(span))
    return float((np.diff(np.sign(gap), axis=1) != 0).any(axis=1).mean()) if len(gap) else None


def chance_first_wins(first: Curve, second: Curve, place: float) -> float | None:
    """The share of draws in which the first fit has the lower value at this place; None without draws."""
    gap = _log_ratio(first, second, np.array([place]))
    return float((gap[:, 0] < 0).mean()) if len(gap) else None


def multipliers(first: Curve, second: Curve, places: Array, level: float) -> list[Interval]:
    """How many times more of the axis the second fit needs to match the first, at each of `places`.

    NaN, and draws counted as missing, where it never does within four decades of the places.
    """
    grid = _grid((places.min() / 10**REACH, places.max() * 10**REACH))
    value = _needed(first.point(places)[None], second.point(grid)[None], grid)[0] / places
    count = min(len(first.fit.draws), len(second.fit.draws))
    draws = _needed(first.draws(places)[:count], second.draws(grid)[:count], grid) / places
    return [interval_of(value[i], draws[:, i], level) for i in range(len(places))]


def interval_of(value: float, draws: Array, level: float) -> Interval:
    """The value with the quantiles of those draws that have an answer."""
    known = draws[np.isfinite(draws)]
    if not known.size:
        return Interval(float(value), None, None, draws.size)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high), draws.size - known.size)


def _grid(span: tuple[float, float]) -> Array:
    return np.geomspace(*span, max(2, int(np.ceil(STEPS * np.log10(span[1] / span[0])))))


def _log_ratio(first: Curve, second: Curve, grid: Array) -> Array:
    """Log of first over second for every pair of draws, (draws, places)."""
    count = min(len(first.fit.draws), len(second.fit.draws))
    with np.errstate(all="ignore"):
        return np.asarray(np.log(first.draws(grid)[:count] / second.draws(grid)[:count]))


def _crossings(grid: Array, gap: Array) -> Iterator[tuple[float, bool]]:
    """Place, and whether the gap turns negative there, of every change of sign."""
    for i in np.flatnonzero(np.diff(np.sign(gap)) != 0):
        share = gap[i] / (gap[i] - gap[i + 1])
        yield float(grid[i] * (grid[i + 1] / grid[i]) ** share), bool(gap[i] > gap[i + 1])


def _crossover(place: float, falling: bool, grid: Array, spread: Array, level: float) -> Crossover:
    found = np.full(len(spread), np.nan)
    for i, gap in enumerate(spread):
        alike = [where for where, turns in _crossings(grid, gap) if turns == falling]
        if alike:  # of several, the one that answers to the estimate's
            found[i] = min(alike, key=lambda where: abs(np.log(where / place)))
    chance = float(np.isfinite(found).mean()) if len(found) else None
    return Crossover(interval_of(place, found, level), falling, chance)


def _needed(wanted: Array, curve: Array, grid: Array) -> Array:
    """Where each falling curve (draws, grid) takes its wanted values (draws, places); NaN where it does not."""
    answers = np.full(wanted.shape, np.nan)
    for i, values in enumerate(curve):
        if np.isfinite(values).all():
            lowest = np.minimum.accumulate(values)[::-1]
            place = np.interp(wanted[i], lowest, np.log(grid)[::-1], left=np.nan, right=np.nan)
            answers[i] = np.exp(place)
    return answers
