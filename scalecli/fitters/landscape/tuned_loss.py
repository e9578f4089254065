"""The loss of tuned runs over params and tokens: E + A N^-alpha + B D^-beta through the settings' lowest."""

from __future__ import annotations

import numpy as np

from scalecli.fitters.landscape.descent import Prior, Problem, minimise
from scalecli.fitters.landscape.settings import Settings
from scalecli.fitters.law import Array

STARTS = [(size, data) for size in (0.2, 0.4, 0.8) for data in (0.2, 0.4, 0.8)]
"""Exponents of params and tokens that the search starts from."""

NOISE = 1e-3
"""Log residuals of tuned losses beyond about this are weighted down: the usual delta of scaling-law fits."""

WIDTH = np.array([5.0, 5.0, 1.0, 5.0, 1.0])
"""Prior widths of log E, log A', alpha, log B', beta (A', B': at the mean setting); matter only where the
settings determine nothing."""


def fit_tuned_loss(settings: Settings, loss: Array, weights: Array) -> Array:
    """E, A, alpha, B, beta (draws, 5), from `loss` and `weights` (draws, settings); a NaN does not count."""
    known = np.isfinite(loss)
    weights, loss = np.where(known, weights, 0.0), np.where(known, loss, np.nanmin(loss))
    params = settings.log_params - settings.log_params.mean()
    tokens = settings.log_tokens - settings.log_tokens.mean()
    middle = np.log(np.average(loss.mean(axis=0)))

    def model(theta: Array) -> tuple[Array, Array]:
        floor = np.exp(theta[:, :1]) + 0 * params
        size, data = (
            np.exp(theta[:, 1:2] - theta[:, 2:3] * params),
            np.exp(theta[:, 3:4] - theta[:, 4:5] * tokens),
        )
        total = floor + size + data
        slopes = np.stack([floor, size, -size * params, data, -data * tokens], axis=1) / total[:, None]
        return np.log(total), slopes

    target = np.log(loss)
    candidates = []
    for alpha, beta in STARTS:
        start = np.array([middle - 0.7, middle - 1.4, alpha, middle - 1.4, beta])
        problem = Problem(model, np.zeros((loss.shape[1], 0)), NOISE, Prior(start, WIDTH))
        candidates.append(minimise(problem, target, np.tile(start, (len(loss), 1)), weights))
    best = np.argmin([cost for _, cost in candidates], axis=0)
    theta = np.stack([found for found, _ in candidates])[best, np.arange(len(loss))]
    return np.stack(
        [
            np.exp(theta[:, 0]),
            np.exp(theta[:, 1] + theta[:, 2] * settings.log_params.mean()),
            theta[:, 2],
            np.exp(theta[:, 3] + theta[:, 4] * settings.log_tokens.mean()),
            theta[:, 4],
        ],
        axis=1,
    )
