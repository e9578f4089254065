"""The two-stage way: a vertex per setting, then power laws through the vertices."""

from __future__ import annotations

import numpy as np

from scalecli.fitters.landscape.edges import no_optimum, one_sided
from scalecli.fitters.landscape.power import fit_power_law, used_batch
from scalecli.fitters.landscape.settings import Settings
from scalecli.fitters.landscape.tuned_loss import fit_tuned_loss
from scalecli.fitters.landscape.vertex import Vertices, find_vertices
from scalecli.fitters.law import Array


def two_stage(settings: Settings, weights: Array) -> Array:
    """Tuned loss (5), lr* (3), batch* (3), curvatures (3): shape (draws, 14), from row weights (draws, rows).

    Raises `NoOptimum` when no setting has its minimum inside what was tried; a draw without one is NaN.
    """
    vertices = find_vertices(settings, weights)
    if one_sided(settings) or np.isnan(vertices.log_rate).all():
        raise no_optimum(settings)
    share = _setting_weights(settings, weights)
    batch_open = np.isnan(vertices.log_batch).all()
    located = np.isfinite(vertices.log_rate if batch_open else vertices.log_batch)
    share = np.where(located, share, 0.0)
    rate = fit_power_law(settings, np.where(located, vertices.log_rate, np.nan), share)
    batch = used_batch(settings, len(share))
    if not batch_open:
        batch = fit_power_law(settings, vertices.log_batch, share)
    loss = fit_tuned_loss(settings, np.where(located, vertices.loss, np.nan), share)
    curvature = _mean_curvature(vertices, share)
    raw = np.concatenate(
        [loss, np.exp(rate[:, :1]), rate[:, 1:], np.exp(batch[:, :1]), batch[:, 1:], curvature], axis=1
    )
    raw[share.sum(axis=1) == 0] = np.nan
    return raw


def _setting_weights(settings: Settings, weights: Array) -> Array:
    """Each setting's share (draws, settings): one under unit row weights."""
    labels = np.eye(settings.count)[settings.label]
    shares: Array = (weights * settings.weights()) @ labels
    return shares


def _mean_curvature(vertices: Vertices, share: Array) -> Array:
    """Over settings; the mean of positive definite matrices is one, too."""
    known = np.where(share[..., None] > 0, vertices.curvature, 0.0)
    total = np.where(share > 0, share, 0.0).sum(axis=1)[:, None]
    mean: Array = (known * share[..., None]).sum(axis=1) / np.where(total > 0, total, 1.0)
    return mean
