"""Optimal learning rate and batch from the vertex of each setting, then power laws through the vertices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from scalecli.fitters.landscape import queries
from scalecli.fitters.landscape.settings import VARIANT, group_settings, label_settings
from scalecli.fitters.landscape.survey import settings_notices
from scalecli.fitters.landscape.two_stage import two_stage
from scalecli.fitters.landscape.widen import resample, widen
from scalecli.fitters.law import Array, Columns


@dataclass(frozen=True, slots=True, kw_only=True)
class LandscapeTwoStage:
    """L = E + A N^-alpha + B D^-beta + q  [nats/token], a paraboloid q around the optimum of each (N, D).

    q = (curvature_lr u^2 + 2 curvature_cross u v + curvature_batch v^2) / 2.

    u = ln(lr / lr*), v = ln(batch / batch*); lr* = lr_scale N^lr_params D^lr_tokens and batch* = batch_scale
    N^batch_params D^batch_tokens [tokens] go through the vertices of a quadratic at each (N, D). N:
    parameters, D: tokens; curvatures in nats per squared log. Where runs did not vary the batch, the batch
    curvatures are zero and batch* is the batch that was used. The procedure of Li et al. 2025 (StepLaw),
    with vertices for their best runs.
    """

    name: ClassVar[str] = "landscape-two-stage"
    inputs: ClassVar[tuple[str, ...]] = queries.INPUTS
    output: ClassVar[str] = "loss"
    required: ClassVar[tuple[str, ...]] = inputs
    optional: ClassVar[tuple[str, ...]] = (VARIANT,)
    sources: ClassVar[tuple[str, ...]] = ("steplaw2025",)

    E: queries.Floor
    A: queries.Size
    alpha: queries.Fall
    B: queries.Size
    beta: queries.Fall
    lr_scale: queries.RateScale
    lr_params: queries.Exponent
    lr_tokens: queries.Exponent
    batch_scale: queries.BatchScale
    batch_params: queries.Exponent
    batch_tokens: queries.Exponent
    curvature_lr: queries.RateCurvature
    curvature_cross: queries.CrossCurvature
    curvature_batch: queries.BatchCurvature

    predict = queries.predict
    tuned_loss = queries.tuned_loss
    optimal_learning_rate = queries.optimal_learning_rate
    optimal_batch_tokens = queries.optimal_batch_tokens
    optimal_learning_rate_at = queries.optimal_learning_rate_at
    excess_loss = queries.excess_loss
    flat_range = queries.flat_range
    flat_rates_at = queries.flat_rates_at

    def gradient(self, x: Columns) -> Array:
        u, v = queries.offsets(self, *(x[name] for name in self.inputs))
        by_rate = -(self.curvature_lr * u + self.curvature_cross * v)
        by_batch = -(self.curvature_cross * u + self.curvature_batch * v)
        columns = [*queries.centre_gradient(self, x, by_rate, by_batch), u**2 / 2, u * v, v**2 / 2]
        return np.stack([column + np.zeros_like(u) for column in columns], axis=-1)

    def excess(self, u: Array | float, v: Array | float) -> Array:
        """Nats per token above the optimum, at these offsets from it."""
        excess = self.curvature_lr * u**2 + 2 * self.curvature_cross * u * v + self.curvature_batch * v**2
        return np.asarray(excess / 2)

    def bottom(self, v: Array | float) -> Array:
        """The u that is best at this v."""
        return np.asarray(-self.curvature_cross / self.curvature_lr * v)

    @classmethod
    def estimate(cls, x: Columns, y: Array, weights: Array) -> Array:
        """Vertex per setting, then power laws through them. `NoOptimum` when no setting has a vertex."""
        return two_stage(group_settings(x, y), weights)

    @classmethod
    def draws(cls, x: Columns, y: Array, weights: Array, counts: Array, rng: np.random.Generator) -> Array:
        """A resample of settings for every row of `counts`, widened for what that does not show."""
        settings = group_settings(x, y)
        point = two_stage(settings, weights[None])[0]
        drawn = two_stage(settings, weights * resample(settings, counts, rng))
        return widen(cls, drawn, point, settings, rng)

    clusters = staticmethod(label_settings)
    notices = staticmethod(settings_notices)
