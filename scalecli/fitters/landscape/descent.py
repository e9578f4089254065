"""Damped Gauss-Newton for robust nonlinear least squares, many row weightings at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scalecli.fitters.landscape.regression import HUBER
from scalecli.fitters.law import Array

Model = Callable[[Array], tuple[Array, Array]]
"""Parameters (draws, p) -> values (draws, rows) and derivatives (draws, p, rows)."""

BLOCK = 100_000
"""Elements of a Jacobian block: larger ones leave the processor's cache and take up to four times as long."""

STEPS = 60
CONVERGED = 1e-9
"""A search rests when a step improves its objective by less than this fraction."""

ROUGHLY = 1e-3
"""The same for draws that start at the point estimate: their spread is then right to a few per cent."""


@dataclass(frozen=True, slots=True)
class Prior:
    """Independent normal priors on the parameters, (p,) each; width zero holds a parameter at its mean."""

    mean: Array
    width: Array

    @property
    def precision(self) -> Array:
        held = self.width == 0
        return np.where(held, 0.0, 1.0 / np.where(held, 1.0, self.width) ** 2)

    @property
    def free(self) -> Array:
        return (self.width > 0).astype(float)


@dataclass(frozen=True, slots=True)
class Problem:
    """Minimise sum(weights * huber((y - offset[label] - model) / noise)) - log prior.

    `labels` is one-hot, (rows, labels), with one free offset per label; without columns there is none.
    `noise` is the standard deviation of the residuals.
    """

    model: Model
    labels: Array
    noise: float
    prior: Prior


def minimise(
    problem: Problem, y: Array, start: Array, weights: Array, tolerance: float = CONVERGED
) -> tuple[Array, Array]:
    """Parameters (draws, p) and objective (draws,) from `start` (draws, p) under `weights` (draws, rows).

    `y` is (rows,) or (draws, rows).
    """
    y = np.broadcast_to(y, weights.shape)
    size = max(1, BLOCK // (weights.shape[1] * start.shape[1]))
    parts = [slice(i, i + size) for i in range(0, len(start), size)]
    blocks = [_minimise_block(problem, y[part], start[part], weights[part], tolerance) for part in parts]
    return np.concatenate([b[0] for b in blocks]), np.concatenate([b[1] for b in blocks])


def _minimise_block(
    problem: Problem, y: Array, start: Array, weights: Array, tolerance: float
) -> tuple[Array, Array]:
    theta = start.copy()
    value, jacobian = problem.model(theta)
    offset = _offsets(problem, y - value, weights)
    cost = _cost(problem, theta, y - value - offset @ problem.labels.T, weights)
    damping, active = np.full(len(theta), 1e-3), np.arange(len(theta))
    for _ in range(STEPS):
        residual = y[active] - value - offset[active] @ problem.labels.T
        step, shift = _step(problem, theta[active], residual, jacobian, weights[active], damping[active])
        tried, moved = theta[active] + step, offset[active] + shift
        with np.errstate(over="ignore", invalid="ignore"):
            new_value, new_jacobian = problem.model(tried)
            new_cost = _cost(
                problem, tried, y[active] - new_value - moved @ problem.labels.T, weights[active]
            )
        better = new_cost < cost[active]
        gain = np.where(better, cost[active] - new_cost, 0.0)
        resting = np.where(better, gain <= tolerance * cost[active], damping[active] > 1e8)
        theta[active[better]], offset[active[better]] = tried[better], moved[better]
        cost[active[better]] = new_cost[better]
        damping[active] *= np.where(better, 0.2, 8.0)
        value[better], jacobian[better] = new_value[better], new_jacobian[better]
        if resting.any():
            value, jacobian, active = value[~resting], jacobian[~resting], active[~resting]
        if not active.size:
            break
    return theta, cost


def _step(
    problem: Problem, theta: Array, residual: Array, jacobian: Array, weights: Array, damping: Array
) -> tuple[Array, Array]:
    """Steps of the parameters (draws, p) and of the offsets (draws, labels)."""
    robust = weights * _reweight(residual, problem.noise) / problem.noise**2
    jacobian = jacobian * problem.prior.free[:, None]
    weighted = jacobian * robust[:, None]
    total = robust @ problem.labels + 1e-300
    sums = np.matmul(weighted, problem.labels)
    mean_jacobian = sums / total[:, None]
    mean_residual = (robust * residual) @ problem.labels / total
    normal = np.matmul(weighted, np.swapaxes(jacobian, 1, 2))
    normal -= np.matmul(sums, np.swapaxes(mean_jacobian, 1, 2))
    slope = np.matmul(weighted, residual[..., None])[..., 0]
    slope -= np.matmul(sums, mean_residual[..., None])[..., 0]
    slope -= problem.prior.precision * (theta - problem.prior.mean)
    identity = np.eye(theta.shape[1])
    normal += identity * (problem.prior.precision + (1.0 - problem.prior.free))
    curvature = np.einsum("dii->di", normal)
    normal = normal + identity * (damping[:, None, None] * curvature[:, None, :] + 1e-12)
    step = np.linalg.solve(normal, (slope * problem.prior.free)[..., None])[..., 0]
    shift = mean_residual - np.matmul(step[:, None], mean_jacobian)[:, 0]
    return step, shift


def _reweight(residual: Array, noise: float) -> Array:
    return 1.0 / np.maximum(1.0, np.abs(residual) / (HUBER * noise))


def _offsets(problem: Problem, residual: Array, weights: Array) -> Array:
    total = weights @ problem.labels
    return (weights * residual) @ problem.labels / np.where(total > 0, total, 1.0)


def _cost(problem: Problem, theta: Array, residual: Array, weights: Array) -> Array:
    size = np.abs(residual) / problem.noise
    huber = np.where(size <= HUBER, size**2 / 2, HUBER * (size - HUBER / 2))
    pull = problem.prior.precision * (theta - problem.prior.mean) ** 2
    cost: Array = np.einsum("dr,dr->d", weights, huber) + pull.sum(axis=1) / 2
    return np.where(np.isfinite(cost), cost, np.inf)
