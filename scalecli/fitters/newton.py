"""Damped Newton's method in a box, for many independent draws at once.

The step solves (H + damping x M) step = -gradient over the parameters that are not held at a bound; M is the
majorizer, so that enough damping always gives a descent direction, whatever the sign of H, and none gives
Newton's quadratic convergence. Both matrices transform alike, hence the path does not depend on the units of
parameters. A parameter that the step would carry out of the box is put on its bound, and the others are
solved for again, given that. Draws that have converged leave the computation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scalecli.fitters.law import Array
from scalecli.fitters.problem import Expansion, Indices, Mask, Problem, Targets, expand

ENOUGH = 1e-13
"""A draw has converged when the next step is predicted to lower its objective by less than this fraction."""

EXACT = 1e-24
"""Or by less than this times the sum of its weights: residuals are then rounding errors (noise-free data)."""

MOST_ITERATIONS = 200
FIRST_DAMPING = 0.1
MOST_DAMPING = 1e10
RIDGE = 1e-13
"""Added to the diagonal of the scaled system: a parameter without any influence does not move."""


@dataclass(frozen=True, slots=True)
class Minimum:
    """Where each draw ended: theta (draws, k); value, gradient_norm, converged, iterations of shape (draws,).

    `gradient_norm` is the Euclidean norm over the parameters that are not held at a bound.
    """

    theta: Array
    value: Array
    gradient_norm: Array
    converged: Mask
    iterations: Indices


def minimise(
    problem: Problem, start: Array, targets: Targets, *, max_iterations: int = MOST_ITERATIONS
) -> Minimum:
    """Minimise each draw of `targets` from its row of `start` (draws, k)."""
    with np.errstate(all="ignore"):  # undefined points have an infinite objective and are stepped back from
        return _minimise(problem, start, targets, max_iterations)


def _minimise(problem: Problem, start: Array, targets: Targets, max_iterations: int) -> Minimum:
    draws = len(start)
    theta = np.clip(start, problem.low, problem.high)
    here = expand(problem, theta, targets, np.arange(draws))
    enough = EXACT * np.broadcast_to(targets.weights, (draws, problem.rows)).sum(1)
    damping = np.full(draws, FIRST_DAMPING)
    converged = np.zeros(draws, dtype=bool)
    iterations = np.zeros(draws, dtype=np.intp)
    active = np.flatnonzero(np.isfinite(here.value))
    for _ in range(max_iterations):
        step, predicted = _step(problem, theta[active], here.at(active), damping[active])
        small = np.abs(predicted) <= np.maximum(ENOUGH * here.value[active], enough[active])
        settled = small & (damping[active] <= FIRST_DAMPING)
        converged[active[settled]] = True
        hopeless = damping[active] > MOST_DAMPING
        keep = ~(settled | hopeless)
        active, step, predicted = active[keep], step[keep], predicted[keep]
        if not active.size:
            break
        iterations[active] += 1
        trial = np.clip(theta[active] + step, problem.low, problem.high)
        there = expand(problem, trial, targets, active)
        gain = (here.value[active] - there.value) / predicted
        better = (predicted > 0) & (there.value <= here.value[active])
        damping[active] *= np.where(better, np.where(gain > 0.75, 0.3, np.where(gain > 0.25, 0.7, 2.0)), 6.0)
        moved = active[better]
        theta[moved] = trial[better]
        here.put(moved, there.at(np.flatnonzero(better)))
    held = _held(problem, theta, here.gradient)
    norm = np.linalg.norm(np.where(held, 0.0, here.gradient), axis=1)
    return Minimum(theta, here.value, norm, converged, iterations)


def _held(problem: Problem, theta: Array, gradient: Array) -> Mask:
    """Which parameters sit at a bound that the objective pushes them against, (draws, k)."""
    return ((theta <= problem.low) & (gradient > 0)) | ((theta >= problem.high) & (gradient < 0))


def _step(problem: Problem, theta: Array, here: Expansion, damping: Array) -> tuple[Array, Array]:
    """The damped step (draws, k), and by how much its quadratic model says the objective falls (draws,)."""
    matrix = here.hessian + damping[:, None, None] * here.majorizer
    diagonal = np.einsum("dkk->dk", here.majorizer)
    unit = 1.0 / np.sqrt(np.maximum(diagonal, np.finfo(float).tiny))
    scaled = matrix * unit[:, :, None] * unit[:, None, :]
    fixed = _held(problem, theta, here.gradient)
    step = np.zeros_like(theta)
    todo = np.arange(len(theta))
    while todo.size:
        step[todo] = unit[todo] * _solved(
            scaled[todo], (unit * here.gradient)[todo], (step / unit)[todo], fixed[todo], damping[todo]
        )
        inside = np.clip(theta[todo] + step[todo], problem.low, problem.high) - theta[todo]
        outside = ~fixed[todo] & (inside != step[todo]) & np.isfinite(step[todo])
        again = outside.any(axis=1)
        todo, outside, inside = todo[again], outside[again], inside[again]
        fixed[todo] |= outside
        step[todo] = np.where(outside, inside, step[todo])
    bent = (here.hessian @ step[:, :, None])[:, :, 0]
    predicted = -(step * (here.gradient + 0.5 * bent)).sum(1)
    return np.where(np.isfinite(step), step, 0.0), np.where(np.isfinite(predicted), predicted, -np.inf)


def _solved(matrix: Array, gradient: Array, step: Array, fixed: Mask, damping: Array) -> Array:
    """The step of the free parameters where those of the fixed ones are given, all in scaled units: (draws, k)."""
    given = np.where(fixed, step, 0.0)
    right = np.where(fixed, 0.0, gradient + (matrix @ given[:, :, None])[:, :, 0])
    free = np.where(fixed[:, :, None] | fixed[:, None, :], 0.0, matrix)
    position = np.arange(free.shape[1])
    free[:, position, position] += np.where(fixed, 1.0, RIDGE * (1 + damping[:, None]))
    return np.where(fixed, given, -_solve(free, right))


def _solve(matrix: Array, right: Array) -> Array:
    """matrix^-1 right, (draws, k); the shortest solution where a matrix is exactly singular."""
    try:
        return np.asarray(np.linalg.solve(matrix, right[:, :, None]))[:, :, 0]
    except np.linalg.LinAlgError:
        return np.asarray((np.linalg.pinv(matrix) @ right[:, :, None])[:, :, 0])
