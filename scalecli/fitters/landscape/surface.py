"""A smooth surface through the runs of one setting: what a recommendation for it is judged by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scalecli.fitters.landscape.regression import fit_linear
from scalecli.fitters.landscape.settings import SOFTNESS, Settings
from scalecli.fitters.landscape.vertex import levels
from scalecli.fitters.law import Array

MESH = 41
"""Points an axis at which the surface is searched for its minimum."""

DEGREE = 3
"""Cubic: a quadratic's minimum is off where a basin is steeper on one side, and then favours symmetric fits."""

NEAR_BEST = 3
"""A surface is trusted near runs whose weight has fallen by no more than so many factors of e."""

ROWS_PER_TERM = 2
"""Fewer runs near the best than this give no judgement."""


@dataclass(frozen=True, slots=True)
class Surface:
    """Polynomial in log rate and log batch around a setting's best, over the box of the runs that made it.

    `lowest` is its least value within a grid step of a run near the best: elsewhere in the box, where runs have little
    weight or there are none, it may be anything.
    """

    powers: list[tuple[int, int]]
    coefficients: Array
    low: Array
    high: Array
    lowest: float

    def excess(self, log_rate: Array, log_batch: Array) -> Array:
        """Nats above the lowest point near the runs; beyond the box, infinite."""
        where = np.stack([log_rate, log_batch])
        inside = ((where >= self.low[:, None]) & (where <= self.high[:, None])).all(axis=0)
        loss = _design(where, self.powers, self.low, self.high) @ self.coefficients
        return np.where(inside, np.maximum(loss - self.lowest, 0.0), np.inf)


def fit_surface(setting: Settings) -> Surface | None:
    """Through the runs of a single setting; None where they are too few to curve in every axis that was varied."""
    weights = setting.weights()
    near = setting.select(weights > 0)
    axes = np.stack([near.log_rate, near.log_batch])
    varied = [levels(axis) for axis in axes]
    powers = [
        (i, j)
        for i in range(DEGREE + 1)
        for j in range(DEGREE + 1 - i)
        if (varied[0] > 1 or i == 0) and (varied[1] > 1 or j == 0)
    ]
    if varied[0] <= DEGREE or 1 < varied[1] <= DEGREE or near.loss.size < ROWS_PER_TERM * len(powers):
        return None
    low, high = axes.min(axis=1), axes.max(axis=1)
    design = _design(axes, powers, low, high)
    coefficients = fit_linear(design, near.loss, weights[None, weights > 0])[0]
    mesh = np.stack([axis.ravel() for axis in np.meshgrid(*np.linspace(low, high, MESH).T)])
    best = near.height <= NEAR_BEST * SOFTNESS
    mesh = mesh[:, _within_a_step(mesh, axes[:, best], _steps(axes, varied))]
    lowest = float((_design(mesh, powers, low, high) @ coefficients).min())
    return Surface(powers, coefficients, low, high, lowest)


def _steps(axes: Array, varied: list[int]) -> Array:
    """Mean distance between neighbouring levels of each axis, (2,)."""
    return np.asarray(np.ptp(axes, axis=1) / np.maximum(np.array(varied) - 1, 1))


def _within_a_step(points: Array, runs: Array, steps: Array) -> NDArray[np.bool_]:
    """Which points (2, points) have a run (2, runs) no further than `steps` in both axes."""
    apart = np.abs(points[:, :, None] - runs[:, None, :]) <= steps[:, None, None] + 1e-9
    return np.asarray((apart[0] & apart[1]).any(axis=1))


def _design(where: Array, powers: list[tuple[int, int]], low: Array, high: Array) -> Array:
    """Monomials of the coordinates scaled to the box, (points, terms)."""
    half = np.maximum((high - low) / 2, 1e-9)[:, None]
    rate, batch = (where - (low + high)[:, None] / 2) / half
    return np.stack([rate**i * batch**j for i, j in powers], axis=1)
