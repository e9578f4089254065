"""Robust weighted least squares, many weightings in one call."""

from __future__ import annotations

import numpy as np

from scalecli.fitters.law import Array

ROUNDS = 6
"""Reweighting rounds; coefficients move by under 1 % of their error after four."""

HUBER = 1.345
"""Residuals beyond this many standard deviations are weighted down (95 % efficiency on normal noise)."""

FLOOR = 1e-9
"""Smallest residual scale: noise-free data must not divide by zero [unit of the residuals]."""


def fit_linear(design: Array, y: Array, weights: Array, *, ridge: float = 1e-10) -> Array:
    """Coefficients (draws, columns) of y ~ design (rows, columns) under weights (draws, rows).

    `y` is (rows,) or (draws, rows). The first column is the constant; the others are shrunk towards zero by
    `ridge` times the total weight, so that directions the rows do not determine come out as zero.
    """
    penalty = ridge * np.eye(design.shape[1])
    penalty[0, 0] = 0.0
    robust = weights
    for _ in range(ROUNDS):
        normal = np.einsum("dr,ri,rj->dij", robust, design, design, optimize=True)
        normal = normal + (penalty * robust.sum(axis=1)[:, None, None] + 1e-300 * np.eye(design.shape[1]))
        right = np.einsum("dr,ri->di", robust * y, design, optimize=True)
        coefficients = np.linalg.solve(normal, right[..., None])[..., 0]
        robust = weights * huber_weights(y - coefficients @ design.T, weights)
    return coefficients


def huber_weights(residual: Array, weights: Array) -> Array:
    """Weights in (0, 1], shape (draws, rows); the scale is that of each draw."""
    return 1.0 / np.maximum(1.0, np.abs(residual) / (HUBER * scale(residual, weights)))


def scale(residual: Array, weights: Array) -> Array:
    """Robust standard deviation (draws, 1): the weighted median of |residual|, over 0.6745."""
    size = np.abs(residual)
    order = np.argsort(size, axis=1)
    below = np.cumsum(np.take_along_axis(weights, order, axis=1), axis=1)
    # a hair below one half: with equal weights the order of summing must not choose between two rows
    middle = np.argmax(below >= (0.5 - 1e-9) * below[:, -1:], axis=1)[:, None]
    median = np.take_along_axis(size, np.take_along_axis(order, middle, axis=1), axis=1)
    return np.maximum(median / 0.6745, FLOOR)
