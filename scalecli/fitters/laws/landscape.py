"""The joint landscape: tuned loss over params and tokens, and an asymmetric basin in batch and learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from scalecli.fitters.landscape import queries
from scalecli.fitters.landscape.recommend import draw_landscape, estimate_landscape
from scalecli.fitters.landscape.search import lowest
from scalecli.fitters.landscape.settings import VARIANT, group_settings, label_settings
from scalecli.fitters.landscape.survey import settings_notices
from scalecli.fitters.landscape.widen import resample, widen
from scalecli.fitters.law import Array, Columns, Param

BRACKET = 2.0
"""How far the asymmetry can move the re-tuned rate from the bottom line of the quadratic [log]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Landscape:
    """L = E + A N^-alpha + B D^-beta + saturation ln(1 + q exp(asymmetry tanh u) / saturation)  [nats/token].

    q = (curvature_lr u^2 + 2 curvature_cross u v + curvature_batch v^2) / 2, u = ln(lr / lr*), v = ln(batch /
    batch*); lr* = lr_scale N^lr_params D^lr_tokens, batch* = batch_scale N^batch_params D^batch_tokens [tokens].
    N: parameters, D: tokens; curvatures in nats per squared log; a positive asymmetry makes high rates worse.

    Estimated from all runs at once, each setting with its own floor, by this form and by a sum of three
    exponentials; lr* and batch* are weighted geometric means of the two. The tuned loss goes through the
    settings' floors. Where runs did not vary the batch, or its optimum lies outside all that was tried, the batch
    curvatures are zero and batch* is the batch that was used.
    """

    name: ClassVar[str] = "landscape"
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
    saturation: Annotated[float, Param(1e-4, 100.0, unit="nats/token", log=True)]
    asymmetry: Annotated[float, Param(-4.0, 4.0)]

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
        skew = np.exp(self.asymmetry * np.tanh(u))
        bowl = self._bowl(u, v) / self.saturation
        steep = skew / (1 + bowl)
        by_rate = -steep * (self.curvature_lr * u + self.curvature_cross * v)
        by_rate = by_rate - self.asymmetry * self.saturation * bowl / (1 + bowl) / np.cosh(u) ** 2
        by_batch = -steep * (self.curvature_cross * u + self.curvature_batch * v)
        columns = [
            *queries.centre_gradient(self, x, by_rate, by_batch),
            steep * u**2 / 2,
            steep * u * v,
            steep * v**2 / 2,
            np.log1p(bowl) - bowl / (1 + bowl),
            self.saturation * bowl / (1 + bowl) * np.tanh(u),
        ]
        return np.stack([column + np.zeros_like(u) for column in columns], axis=-1)

    def excess(self, u: Array | float, v: Array | float) -> Array:
        """Nats per token above the optimum, at these offsets from it."""
        excess: Array = self.saturation * np.log1p(self._bowl(u, v) / self.saturation)
        return excess

    def bottom(self, v: Array | float) -> Array:
        """The u that is best at this v: near the bottom line of the quadratic, which the asymmetry shifts."""
        middle = np.asarray(-self.curvature_cross / self.curvature_lr * v)
        return lowest(lambda u: self._bowl(u, v), middle - BRACKET, middle + BRACKET)

    def _bowl(self, u: Array | float, v: Array | float) -> Array:
        """q exp(a tanh u)."""
        bowl = self.curvature_lr * u**2 + 2 * self.curvature_cross * u * v + self.curvature_batch * v**2
        return bowl / 2 * np.exp(self.asymmetry * np.tanh(u))

    @classmethod
    def estimate(cls, x: Columns, y: Array, weights: Array) -> Array:
        """Both joint forms, combined. `NoOptimum` when no setting's best rate lies inside what was tried."""
        return estimate_landscape(group_settings(x, y), weights)

    @classmethod
    def draws(cls, x: Columns, y: Array, weights: Array, counts: Array, rng: np.random.Generator) -> Array:
        """A resample of settings for every row of `counts`, widened for what that does not show."""
        settings = group_settings(x, y)
        point, drawn = draw_landscape(settings, weights, resample(settings, counts, rng), rng)
        return widen(cls, drawn, point, settings, rng)

    clusters = staticmethod(label_settings)
    notices = staticmethod(settings_notices)
