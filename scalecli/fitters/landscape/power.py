"""Power laws over settings: a quantity per setting against params and tokens."""

from __future__ import annotations

import numpy as np

from scalecli.fitters.landscape.regression import fit_linear
from scalecli.fitters.landscape.settings import Settings
from scalecli.fitters.law import Array

RIDGE = 1e-8
"""Shrinks exponents that the settings do not determine to zero, the others hardly."""


def fit_power_law(settings: Settings, log_value: Array, weights: Array, *, free_params: bool = True) -> Array:
    """Log scale, params exponent, tokens exponent (draws, 3) from `log_value`, `weights` (draws, settings).

    Settings where `log_value` is NaN carry no weight; a draw in which all are NaN is NaN. `free_params=False`
    holds the params exponent at zero.
    """
    known = np.isfinite(log_value)
    weights = np.where(known, weights, 0.0)
    params = settings.log_params - settings.log_params.mean()
    tokens = settings.log_tokens - settings.log_tokens.mean()
    design = np.stack([np.ones_like(params), params * free_params, tokens], axis=1)
    c = fit_linear(design, np.where(known, log_value, 0.0), weights, ridge=RIDGE)
    c[:, 1] *= free_params
    c[:, 0] -= c[:, 1] * settings.log_params.mean() + c[:, 2] * settings.log_tokens.mean()
    c[weights.sum(axis=1) == 0] = np.nan
    return c


def used_batch(settings: Settings, draws: int) -> Array:
    """The power law through the batches that were used, for grids that do not say which is best: (draws, 3)."""
    used = np.bincount(settings.label, settings.log_batch) / np.bincount(settings.label)
    return np.tile(fit_power_law(settings, used[None], np.ones((1, settings.count))), (draws, 1))
