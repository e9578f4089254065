"""The joint landscape: tuned loss over params and tokens, and an asymmetric basin in batch and learning rate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from scalecli.errors import NotIdentified
from scalecli.fitters.identify import Notice
from scalecli.fitters.landscape.flat_range import FlatRange
from scalecli.fitters.landscape.recommend import draw_landscape, estimate_landscape
from scalecli.fitters.landscape.search import crossing, lowest
from scalecli.fitters.landscape.settings import group_settings, label_settings
from scalecli.fitters.landscape.survey import settings_notices
from scalecli.fitters.landscape.widen import widen
from scalecli.fitters.law import Array, Columns, Param
from scalecli.fitters.problem import Indices

REACH = 12.0
"""Flat ranges end here if the loss never notices: a factor of e^12 from the optimum."""

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
    inputs: ClassVar[tuple[str, ...]] = ("params", "tokens", "batch_tokens", "learning_rate")
    output: ClassVar[str] = "loss"
    required: ClassVar[tuple[str, ...]] = inputs
    sources: ClassVar[tuple[str, ...]] = ("steplaw2025",)

    E: Annotated[float, Param(1e-6, 20.0, unit="nats/token", log=True)]
    A: Annotated[float, Param(1e-9, 1e15, unit="nats/token", log=True)]
    alpha: Annotated[float, Param(0.0, 2.5)]
    B: Annotated[float, Param(1e-9, 1e15, unit="nats/token", log=True)]
    beta: Annotated[float, Param(0.0, 2.5)]
    lr_scale: Annotated[float, Param(1e-30, 1e30, log=True)]
    lr_params: Annotated[float, Param(-3.0, 3.0)]
    lr_tokens: Annotated[float, Param(-3.0, 3.0)]
    batch_scale: Annotated[float, Param(1e-30, 1e30, unit="tokens", log=True)]
    batch_params: Annotated[float, Param(-3.0, 3.0)]
    batch_tokens: Annotated[float, Param(-3.0, 3.0)]
    curvature_lr: Annotated[float, Param(1e-6, 100.0, unit="nats/token", log=True)]
    curvature_cross: Annotated[float, Param(-100.0, 100.0, unit="nats/token")]
    curvature_batch: Annotated[float, Param(0.0, 100.0, unit="nats/token")]
    saturation: Annotated[float, Param(1e-4, 100.0, unit="nats/token", log=True)]
    asymmetry: Annotated[float, Param(-4.0, 4.0)]

    def predict(self, x: Columns) -> Array:
        return self.tuned_loss(x["params"], x["tokens"]) + self.excess_loss(
            **{name: x[name] for name in self.inputs}
        )

    def gradient(self, x: Columns) -> Array:
        u, v = self._offsets(**{name: x[name] for name in self.inputs})
        log_params, log_tokens = np.log(x["params"]), np.log(x["tokens"])
        size, data = x["params"] ** -self.alpha, x["tokens"] ** -self.beta
        skew = np.exp(self.asymmetry * np.tanh(u))
        bowl = self._bowl(u, v) / self.saturation
        steep = skew / (1 + bowl)
        by_rate = -steep * (self.curvature_lr * u + self.curvature_cross * v)
        by_rate = by_rate - self.asymmetry * self.saturation * bowl / (1 + bowl) / np.cosh(u) ** 2
        by_batch = -steep * (self.curvature_cross * u + self.curvature_batch * v)
        columns = [
            np.ones_like(u),
            size,
            -self.A * size * log_params,
            data,
            -self.B * data * log_tokens,
            by_rate / self.lr_scale,
            by_rate * log_params,
            by_rate * log_tokens,
            by_batch / self.batch_scale,
            by_batch * log_params,
            by_batch * log_tokens,
            steep * u**2 / 2,
            steep * u * v,
            steep * v**2 / 2,
            np.log1p(bowl) - bowl / (1 + bowl),
            self.saturation * bowl / (1 + bowl) * np.tanh(u),
        ]
        return np.stack([column + np.zeros_like(u) for column in columns], axis=-1)

    def tuned_loss(self, params: Array | float, tokens: Array | float) -> Array:
        """Loss at the optimum [nats/token]."""
        loss: Array = self.E + self.A * params**-self.alpha + self.B * tokens**-self.beta
        return loss

    def optimal_learning_rate(self, params: Array | float, tokens: Array | float) -> Array:
        """lr*(N, D) = lr_scale N^lr_params D^lr_tokens, at the optimal batch."""
        rate: Array = self.lr_scale * params**self.lr_params * tokens**self.lr_tokens
        return rate

    def optimal_batch_tokens(self, params: Array | float, tokens: Array | float) -> Array:
        """batch*(N, D) [tokens]. Raises `NotIdentified` where the runs do not determine it."""
        self._require_batch()
        return self._central_batch(params, tokens)

    def optimal_learning_rate_at(
        self, params: Array | float, tokens: Array | float, batch_tokens: Array | float
    ) -> Array:
        """The rate re-tuned for this batch. Raises `NotIdentified` where the runs did not vary the batch."""
        self._require_batch()
        v = np.log(batch_tokens / self._central_batch(params, tokens))
        return self.optimal_learning_rate(params, tokens) * np.exp(self._retuned(v))

    def excess_loss(
        self,
        params: Array | float,
        tokens: Array | float,
        batch_tokens: Array | float,
        learning_rate: Array | float,
    ) -> Array:
        """Nats per token above the optimum of this (N, D)."""
        return self._excess(*self._offsets(params, tokens, batch_tokens, learning_rate))

    def flat_range(self, params: Array | float, tokens: Array | float, tolerance: float = 1e-3) -> FlatRange:
        """Where the loss stays within this fraction of its optimum."""
        rate = self.optimal_learning_rate(params, tokens)
        nats = tolerance * self.tuned_loss(params, tokens) + np.zeros_like(rate)
        rates = self._ends(rate, lambda u: self._excess(u, 0.0), nats)
        if not self._has_batch:
            return FlatRange(None, rates)
        batch = self._central_batch(params, tokens)
        return FlatRange(self._ends(batch, lambda v: self._excess(self._retuned(v), v), nats), rates)

    @staticmethod
    def _ends(best: Array, excess: Callable[[Array], Array], nats: Array) -> tuple[Array, Array]:
        low, high = (best * np.exp(crossing(excess, nats, side)) for side in (-REACH, REACH))
        return low, high

    @property
    def _has_batch(self) -> bool:
        return bool(np.all(self.curvature_batch > 0))

    def _require_batch(self) -> None:
        if not self._has_batch:
            raise NotIdentified(
                "the runs do not determine an optimal batch: too few batch sizes at each (params, tokens), or "
                "all on one side of the best",
                hint="scalecli probe sweep with at least four --batch-tokens at every size",
            )

    def _central_batch(self, params: Array | float, tokens: Array | float) -> Array:
        batch: Array = self.batch_scale * params**self.batch_params * tokens**self.batch_tokens
        return batch

    def _offsets(
        self,
        params: Array | float,
        tokens: Array | float,
        batch_tokens: Array | float,
        learning_rate: Array | float,
    ) -> tuple[Array, Array]:
        u = np.log(learning_rate / self.optimal_learning_rate(params, tokens))
        return u, np.log(batch_tokens / self._central_batch(params, tokens))

    def _bowl(self, u: Array, v: Array | float) -> Array:
        """q exp(a tanh u)."""
        bowl = self.curvature_lr * u**2 + 2 * self.curvature_cross * u * v + self.curvature_batch * v**2
        return bowl / 2 * np.exp(self.asymmetry * np.tanh(u))

    def _excess(self, u: Array, v: Array | float) -> Array:
        excess: Array = self.saturation * np.log1p(self._bowl(u, v) / self.saturation)
        return excess

    def _retuned(self, v: Array) -> Array:
        """The u that is best at this v; near the bottom line of the quadratic, which the asymmetry shifts."""
        middle = -self.curvature_cross / self.curvature_lr * v
        return lowest(lambda u: self._bowl(u, v), middle - BRACKET, middle + BRACKET)

    @classmethod
    def estimate(cls, x: Columns, y: Array, weights: Array) -> Array:
        """Both joint forms, combined. `NoOptimum` when no setting's best rate lies inside what was tried."""
        return estimate_landscape(group_settings(x, y), weights)

    @classmethod
    def clusters(cls, x: Columns) -> Indices:
        """Runs of one (params, tokens) setting share its error."""
        return label_settings(x)

    @classmethod
    def draws(cls, x: Columns, y: Array, weights: Array, counts: Array, rng: np.random.Generator) -> Array:
        """A resample of settings for every row of `counts`, widened for how few settings there are."""
        settings = group_settings(x, y)
        point, drawn = draw_landscape(settings, weights, counts, rng)
        return widen(cls, drawn, point, settings.count)

    @classmethod
    def notices(cls, x: Columns, y: Array) -> list[Notice]:
        return settings_notices(x, y)
