"""From a law and its data to the best parameters, with a certificate of the search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scalecli.errors import FitError
from scalecli.fitters.generic import GenericProblem
from scalecli.fitters.law import Array, PowerSum, parameters
from scalecli.fitters.newton import EXACT, MOST_ITERATIONS, Minimum, minimise
from scalecli.fitters.objective import RowLoss
from scalecli.fitters.power_sum import PowerSumProblem
from scalecli.fitters.problem import Data, Indices, Problem, Targets, objective
from scalecli.fitters.starts import starting_points


@dataclass(frozen=True, slots=True)
class Effort:
    """How many starts are searched from, and for how many iterations each at most."""

    starts: int
    iterations: int


THOROUGH = Effort(24, MOST_ITERATIONS)
QUICK = Effort(8, 80)
"""For searches whose certificate nobody reads: the fits to smaller runs that calibrate intervals."""

SAME = 1e-6
"""Starts agree when their objectives are within this fraction of the best one."""

SEARCH_ROWS = 1000
"""Starts are compared on at most this many rows, evenly spread over the measured values."""

FINALISTS = 3
"""So many of the minima found on these rows go on to all rows."""

SMOOTH_DELTA = 1e-3
"""Losses with sharper kinks are approached through wider ones, a decade at a time: the lines along which such
a loss has kinks would stop a Newton method that meets them too early."""

NO_EFFECT = 1e-9
"""A parameter counts as being at a bound when moving it there raises the objective by less than this
fraction."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """Why to believe that the minimum is the minimum.

    `agree` of `starts` searches ended within 1e-6 (relative) of the best objective. `gradient_norm` is the
    norm of the objective's gradient there, in search coordinates, over the parameters not at a bound.
    `profile_gap` is the fraction by which the fit lowers the objective of the best profiled point; negative
    would mean that the profile has a better one.
    """

    starts: int
    agree: int
    gradient_norm: float
    profile_gap: float
    iterations: int
    converged: bool


@dataclass(frozen=True, slots=True)
class Bound:
    """A parameter that ended at one of its bounds [raw units]."""

    parameter: str
    side: str
    value: float


@dataclass(frozen=True)
class Solution:
    """The best parameters found: theta (k,), raw (parameters,), and the objective there."""

    problem: Problem
    theta: Array
    raw: Array
    value: float
    certificate: Certificate
    bounds: tuple[Bound, ...]


def build_problem(law: type[Any], data: Data, loss: RowLoss, pins: Mapping[str, float]) -> Problem:
    """The fastest problem that the law allows."""
    if isinstance(law, PowerSum):
        return PowerSumProblem.build(law, data, loss, pins)
    return GenericProblem.build(law, data, loss, pins)


def solve(
    law: type[Any], data: Data, loss: RowLoss, pins: Mapping[str, float], *, effort: Effort = THOROUGH
) -> Solution:
    """Search from many starts and polish the best.

    Raises `FitError` when the law has no finite prediction at any start.
    """
    problem = build_problem(law, data, loss, pins)
    few = data.take(_spread_rows(data)) if data.rows > SEARCH_ROWS else data
    raw = starting_points(law, few, loss, pins, effort.starts)
    first = problem.from_raw(raw)
    with np.errstate(all="ignore"):
        profile = objective(problem, np.clip(first, problem.low, problem.high), data.targets())
    if not np.isfinite(profile).any():
        raise FitError(
            f"{law.name} has no finite prediction for these runs at any starting point",
            hint="check the units of the input columns",
        )
    if few is not data:
        rough = build_problem(law, few, loss, pins)
        searched = descend(rough, rough.from_raw(raw), few.targets(), max_iterations=effort.iterations)
        best = _different(searched.value)[:FINALISTS]
        found = descend(problem, problem.from_raw(rough.to_raw(searched.theta[best])), data.targets())
    else:
        searched = found = descend(problem, first, data.targets(), max_iterations=effort.iterations)
    winner = int(np.argmin(found.value))
    agree = searched.value <= searched.value.min() * (1 + SAME) + EXACT * data.weights.sum()
    value = float(found.value[winner])
    certificate = Certificate(
        starts=len(raw),
        agree=int(agree.sum()),
        gradient_norm=float(found.gradient_norm[winner]),
        profile_gap=1 - value / max(float(profile.min()), np.finfo(float).tiny),
        iterations=int(found.iterations[winner]),
        converged=bool(found.converged[winner]),
    )
    theta, bounds = _at_bounds(problem, found.theta[winner], value, data.targets())
    return Solution(problem, theta, problem.to_raw(theta[None])[0], value, certificate, bounds)


def descend(
    problem: Problem, start: Array, targets: Targets, *, max_iterations: int = MOST_ITERATIONS
) -> Minimum:
    """Minimise every draw from its start, through ever sharper losses where the loss is sharp."""
    found = None
    for loss in _ladder(problem.loss):
        found = minimise(
            problem.with_loss(loss),
            start if found is None else found.theta,
            targets,
            max_iterations=max_iterations,
        )
    assert found is not None
    return found


def _ladder(loss: RowLoss) -> Iterator[RowLoss]:
    delta = SMOOTH_DELTA
    while delta > 2 * loss.delta:
        yield replace(loss, delta=delta)
        delta /= 10
    yield loss


def _different(value: Array) -> Indices:
    """Where the different minima are, the best first; equal objectives are one minimum."""
    order = np.argsort(value)
    higher = np.diff(value[order], prepend=-np.inf) > SAME * np.abs(value[order])
    return order[higher & np.isfinite(value[order])]


def _spread_rows(data: Data) -> Indices:
    """Rows evenly spread over the sorted measured values."""
    return np.argsort(data.y, kind="stable")[np.linspace(0, data.rows - 1, SEARCH_ROWS).astype(np.intp)]


def _at_bounds(
    problem: Problem, theta: Array, value: float, targets: Targets
) -> tuple[Array, tuple[Bound, ...]]:
    """Parameters that are at a bound or make no difference on the way there; the latter are moved there.

    The scale of a term that is centred on the data has no bound in the search: beyond its own it is told, too.
    """
    size = len(theta)
    trials = np.tile(theta, (2 * size, 1))
    trials[np.arange(size), np.arange(size)] = problem.low
    trials[size + np.arange(size), np.arange(size)] = problem.high
    with np.errstate(all="ignore"):
        same = objective(problem, trials, targets) <= value * (1 + NO_EFFECT)
    theta = theta.copy()
    theta[same[:size]] = problem.low[same[:size]]
    theta[same[size:] & ~same[:size]] = problem.high[same[size:] & ~same[:size]]
    raw = problem.to_raw(theta[None])[0]
    bounds = []
    for i, (name, param) in enumerate(parameters(problem.law).items()):
        place = np.flatnonzero(problem.free == i)
        if place.size and (same[place[0]] or raw[i] < param.low):
            bounds.append(Bound(name, "lower", float(raw[i])))
        elif place.size and (same[size + place[0]] or raw[i] > param.high):
            bounds.append(Bound(name, "upper", float(raw[i])))
    return theta, tuple(bounds)
