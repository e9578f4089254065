"""The vertex of each setting: a robust quadratic in log learning rate and log batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scalecli.fitters.landscape.regression import fit_linear
from scalecli.fitters.landscape.settings import Settings
from scalecli.fitters.law import Array

MARGIN = 0.5
"""A vertex further outside the tried range than this is not located [grid steps]."""

FLATTEST = 1e-6
"""A smaller curvature is rounding: a factor of 100 in the rate would cost less than 1e-5 [nats/token]."""


@dataclass(frozen=True, slots=True)
class Vertices:
    """Per draw and setting, (draws, settings); NaN where a setting shows no minimum inside what was tried.

    `log_batch` is NaN, too, where the batch was not varied enough: `log_rate` is then the best rate at the
    mean batch. `curvature` (draws, settings, 3): derivatives by (rate, rate), (rate, batch), (batch,
    batch).
    """

    log_rate: Array
    log_batch: Array
    loss: Array
    curvature: Array


def find_vertices(settings: Settings, weights: Array) -> Vertices:
    """Vertices of every setting under row weights of shape (draws, rows)."""
    near = settings.weights()
    found = [
        _vertex(settings.select(rows), weights[:, rows] * near[rows])
        for rows in ((settings.label == s) & (near > 0) for s in range(settings.count))
    ]
    return Vertices(*(np.stack(part, axis=1) for part in zip(*found, strict=True)))


def levels(value: Array) -> int:
    """Distinct values of a grid axis given in logs."""
    return int(np.unique(np.round(value, 6)).size)


def _vertex(setting: Settings, weights: Array) -> tuple[Array, Array, Array, Array]:
    """Log rate, log batch, loss (draws,) and curvature (draws, 3) of one setting."""
    rate, batch = setting.log_rate - setting.log_rate.mean(), setting.log_batch - setting.log_batch.mean()
    nothing = np.full(weights.shape[0], np.nan), np.full((weights.shape[0], 3), np.nan)
    if levels(rate) >= 3 and levels(batch) >= 3 and rate.size >= 7:
        where, loss, curvature = _paraboloid(rate, batch, setting.loss, weights)
    elif levels(rate) >= 3:
        where, loss, curvature = _parabola(rate, batch, setting.loss, weights)
    else:
        return nothing[0], nothing[0], nothing[0], nothing[1]
    missed = outside(where[:, 0], rate) | outside(where[:, 1], batch) | ~_has_minimum(curvature)
    where[missed], loss[missed], curvature[missed] = np.nan, np.nan, np.nan
    return where[:, 0] + setting.log_rate.mean(), where[:, 1] + setting.log_batch.mean(), loss, curvature


def _paraboloid(rate: Array, batch: Array, loss: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Vertex (draws, 2), loss there (draws,), curvature (draws, 3)."""
    design = np.stack([np.ones_like(rate), rate, batch, rate**2 / 2, rate * batch, batch**2 / 2], axis=1)
    level, by_rate, by_batch, steep, cross, deep = fit_linear(design, loss, weights).T
    with np.errstate(divide="ignore", invalid="ignore"):  # flat draws give NaN, which is their answer
        determinant = steep * deep - cross**2
        best_rate = (cross * by_batch - deep * by_rate) / determinant
        best_batch = (cross * by_rate - steep * by_batch) / determinant
    lowest = level + (by_rate * best_rate + by_batch * best_batch) / 2
    return np.stack([best_rate, best_batch], axis=1), lowest, np.stack([steep, cross, deep], axis=1)


def _parabola(rate: Array, batch: Array, loss: Array, weights: Array) -> tuple[Array, Array, Array]:
    """In the rate alone; a slope in the batch, where there is one, is taken out but leads to no vertex."""
    slope = [batch] if levels(batch) > 1 else []
    design = np.stack([np.ones_like(rate), rate, rate**2 / 2, *slope], axis=1)
    level, by_rate, steep, *_ = fit_linear(design, loss, weights).T
    with np.errstate(divide="ignore", invalid="ignore"):
        best = -by_rate / steep
    nowhere, flat = np.full_like(best, np.nan), np.zeros_like(best)
    return (
        np.stack([best, nowhere], axis=1),
        level + by_rate * best / 2,
        np.stack([steep, flat, flat], axis=1),
    )


def _has_minimum(curvature: Array) -> NDArray[np.bool_]:
    rate, cross, batch = curvature.T
    curved: NDArray[np.bool_] = (rate > FLATTEST) & (
        (rate * batch > cross**2) | ((cross == 0) & (batch == 0))
    )
    return curved


def outside(vertex: Array, tried: Array) -> NDArray[np.bool_]:
    """Whether a vertex lies beyond the tried values of its axis by more than the margin; NaN lies nowhere."""
    if levels(tried) < 2:
        return np.zeros(vertex.shape, dtype=bool)
    spacing = MARGIN * np.ptp(tried) / (levels(tried) - 1)
    beyond: NDArray[np.bool_] = (vertex < tried.min() - spacing) | (vertex > tried.max() + spacing)
    return beyond
