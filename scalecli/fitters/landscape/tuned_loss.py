"""The loss of tuned runs over params and tokens: E + A N^-alpha + B D^-beta through the settings' lowest."""

from __future__ import annotations

import numpy as np

from scalecli.fitters.landscape.descent import ROUGHLY, Model, Prior, Problem, minimise
from scalecli.fitters.landscape.settings import Settings
from scalecli.fitters.law import Array

STARTS = [(size, data) for size in (0.2, 0.4, 0.8) for data in (0.2, 0.4, 0.8)]
"""Exponents of params and tokens that the search starts from."""

SHARES = np.log([0.5, 0.25, 0.25])
"""Parts of the loss that are floor, params and tokens at the start."""

NOISE = 1e-3
"""Log residuals of tuned losses beyond about this are weighted down: the usual delta of scaling-law fits."""

WIDTH = np.array([5.0, 5.0, 1.0, 5.0, 1.0])
"""Prior widths of log E, log A', alpha, log B', beta (A', B': at the mean setting); they matter only where the
settings determine nothing."""


def fit_tuned_loss(settings: Settings, loss: Array, weights: Array) -> Array:
    """E, A, alpha, B, beta (draws, 5), from `loss` and `weights` (draws, settings); a NaN does not count.

    The best of several starts for the average draw is where every draw starts.
    """
    known = np.isfinite(loss) & (weights > 0)
    used, target = np.where(known, weights, 0.0), np.log(np.where(known, loss, 1.0))
    total = used.sum(axis=0)
    middle = (used * target).sum(axis=0) / np.where(total > 0, total, 1.0)
    starts = np.array([_start(float(middle @ total / total.sum()), *exponents) for exponents in STARTS])
    problem = Problem(
        _model(settings), np.zeros((settings.count, 0)), NOISE, Prior(starts[len(starts) // 2], WIDTH)
    )
    found, cost = minimise(problem, middle, starts, np.tile(total / len(loss), (len(starts), 1)))
    start = np.tile(found[np.argmin(cost)], (len(loss), 1))
    theta, _ = minimise(problem, target, start, used, tolerance=ROUGHLY if len(loss) > 1 else 0.0)
    floor, size, alpha, data, beta = theta.T
    size, data = size + alpha * settings.log_params.mean(), data + beta * settings.log_tokens.mean()
    return np.stack([np.exp(floor), np.exp(size), alpha, np.exp(data), beta], axis=1)


def _start(log_loss: float, alpha: float, beta: float) -> list[float]:
    floor, size, data = log_loss + SHARES
    return [floor, size, alpha, data, beta]


def _model(settings: Settings) -> Model:
    """Log of the loss at each setting, with both axes centred."""
    params = settings.log_params - settings.log_params.mean()
    tokens = settings.log_tokens - settings.log_tokens.mean()

    def model(theta: Array) -> tuple[Array, Array]:
        log_floor, log_size, alpha, log_data, beta = theta.T[..., None]
        floor = np.exp(log_floor) + np.zeros_like(params)
        size, data = np.exp(log_size - alpha * params), np.exp(log_data - beta * tokens)
        total = floor + size + data
        slopes = np.stack([floor, size, -size * params, data, -data * tokens], axis=1) / total[:, None]
        return np.log(total), slopes

    return model
