"""The size of least loss at each of several budgets: vertices of polynomials of loss in log size."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from scalecli.fitters.law import Array
from scalecli.fitters.problem import Indices

SAME_BUDGET = 1.1
"""Budgets that follow each other by a smaller ratio are one."""

WIDEST_BUDGET = 1.5
"""But none spans more than this: where they follow each other closely all along (checkpoints), they are cut evenly."""

PARABOLA_WINDOW = 4.0
"""Sizes further than this factor from the best of their budget are left out: no parabola holds there."""

CUBIC_WINDOW = 16.0
"""A cubic stays close to a loss curve over this factor on either side of the best size."""


def vertices(
    budget: Array, params: Array, loss: Array, weights: Array, *, degree: int, window: float
) -> tuple[Array, Array]:
    """The size of least loss at every budget, from a polynomial (degree 2 or 3) of loss in log params.

    `budget`, `params` and `loss` have shape (rows,), `weights` (draws, rows). Only sizes within the factor
    `window` of the best one of their budget are used. Returns the budgets, shape (budgets,), and the sizes,
    shape (draws, budgets): NaN where no minimum is bracketed.
    """
    log_budget, log_size = np.log(budget), np.log(params)
    budgets, sizes = [], []
    for rows in _budgets(log_budget):
        budgets.append(np.exp(log_budget[rows].mean()))
        sizes.append(np.exp(_log_vertex(log_size[rows], loss[rows], weights[:, rows], degree, window)))
    return np.array(budgets), np.stack(sizes, axis=-1)


def _budgets(log_budget: Array) -> Iterator[Indices]:
    """The rows of each budget, smallest first."""
    order = np.argsort(log_budget, kind="stable")
    breaks = np.flatnonzero(np.diff(log_budget[order]) > np.log(SAME_BUDGET)) + 1
    for rows in np.split(order, breaks):
        own = log_budget[rows]
        count = math.ceil((own[-1] - own[0]) / np.log(WIDEST_BUDGET)) or 1
        ends = np.searchsorted(own, np.linspace(own[0], own[-1], count + 1)[1:-1], side="right")
        yield from np.split(rows, ends)


def _log_vertex(log_params: Array, loss: Array, weights: Array, degree: int, window: float) -> Array:
    """Log of the best size for every draw, shape (draws,); NaN where the sizes do not bracket it."""
    log_size, least, weight = _best_of_each_size(log_params, loss, weights)
    best = log_size[np.where(weight > 0, least, np.inf).argmin(axis=1)]
    used = np.where(np.abs(log_size - best[:, None]) <= np.log(window), weight, 0.0)
    solvable = (used > 0).sum(axis=1) > degree
    offset, scale = log_size.mean(), max(float(np.ptp(log_size)), 1e-12)
    powers = np.vander((log_size - offset) / scale, degree + 1, increasing=True)
    normal = np.einsum("dn,ni,nj->dij", used, powers, powers)
    solvable &= np.linalg.matrix_rank(normal, hermitian=True) > degree
    normal[~solvable] = np.eye(degree + 1)
    coefficients = np.linalg.solve(normal, ((used * least) @ powers)[..., None])[..., 0]
    vertex = offset + scale * _minimum(coefficients)
    low = np.where(used > 0, log_size, np.inf).min(axis=1)
    high = np.where(used > 0, log_size, -np.inf).max(axis=1)
    return np.where(solvable & (vertex > low) & (vertex < high), vertex, np.nan)


def _best_of_each_size(log_params: Array, loss: Array, weights: Array) -> tuple[Array, Array, Array]:
    """The different sizes (sizes,), the least loss and the weight of each (draws, sizes); 0 where a draw has none.

    Of several runs of a size at one budget (a sweep of learning rates) the best is the tuned one.
    """
    order = np.argsort(log_params, kind="stable")
    sizes, starts = np.unique(log_params[order], return_index=True)
    ordered = weights[:, order]
    weight = np.add.reduceat(ordered, starts, axis=1)
    least = np.minimum.reduceat(np.where(ordered > 0, loss[order], np.inf), starts, axis=1)
    return sizes, np.where(weight > 0, least, 0.0), weight


def _minimum(coefficients: Array) -> Array:
    """Where a polynomial of degree 2 or 3, coefficients rising, shape (draws, degree + 1), has its minimum.

    The root -c1 / (c2 + sqrt(c2^2 - 3 c3 c1)) of the derivative is the one with positive curvature, and
    needs no case for c3 = 0. NaN or infinite where there is none.
    """
    slope, bend = coefficients[:, 1], coefficients[:, 2]
    cubic = coefficients[:, 3] if coefficients.shape[1] > 3 else np.zeros_like(slope)
    with np.errstate(invalid="ignore", divide="ignore"):
        return -slope / (bend + np.sqrt(bend**2 - 3 * cubic * slope))
