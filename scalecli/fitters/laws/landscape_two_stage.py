"""Optimal learning rate and batch from the vertex of each setting, then power laws through the vertices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from scalecli.errors import NotIdentified
from scalecli.fitters.identify import Notice
from scalecli.fitters.landscape.flat_range import FlatRange
from scalecli.fitters.landscape.settings import group_settings, label_settings
from scalecli.fitters.landscape.survey import settings_notices
from scalecli.fitters.landscape.two_stage import two_stage
from scalecli.fitters.landscape.widen import widen
from scalecli.fitters.law import Array, Columns, Param
from scalecli.fitters.problem import Indices


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

    def predict(self, x: Columns) -> Array:
        u, v = self._offsets(x)
        return self.tuned_loss(x["params"], x["tokens"]) + self._excess(u, v)

    def gradient(self, x: Columns) -> Array:
        u, v = self._offsets(x)
        log_params, log_tokens = np.log(x["params"]), np.log(x["tokens"])
        size, data = x["params"] ** -self.alpha, x["tokens"] ** -self.beta
        by_rate = -(self.curvature_lr * u + self.curvature_cross * v)
        by_batch = -(self.curvature_cross * u + self.curvature_batch * v)
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
            u**2 / 2,
            u * v,
            v**2 / 2,
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
        """batch*(N, D) [tokens]. Raises `NotIdentified` where the runs did not vary the batch."""
        self._require_batch()
        return self._central_batch(params, tokens)

    def optimal_learning_rate_at(
        self, params: Array | float, tokens: Array | float, batch_tokens: Array | float
    ) -> Array:
        """The rate re-tuned for this batch: the bottom line of the quadratic. Raises `NotIdentified`."""
        self._require_batch()
        ratio = batch_tokens / self._central_batch(params, tokens)
        rate: Array = self.optimal_learning_rate(params, tokens) * ratio ** (
            -self.curvature_cross / self.curvature_lr
        )
        return rate

    def excess_loss(
        self,
        params: Array | float,
        tokens: Array | float,
        batch_tokens: Array | float,
        learning_rate: Array | float,
    ) -> Array:
        """Nats per token above the optimum of this (N, D)."""
        u = np.log(learning_rate / self.optimal_learning_rate(params, tokens))
        return self._excess(u, np.log(batch_tokens / self._central_batch(params, tokens)))

    def flat_range(self, params: Array | float, tokens: Array | float, tolerance: float = 1e-3) -> FlatRange:
        """Where the loss stays within this fraction of its optimum."""
        nats = tolerance * self.tuned_loss(params, tokens)
        rate, around = (
            self.optimal_learning_rate(params, tokens),
            np.exp(np.sqrt(2 * nats / self.curvature_lr)),
        )
        if not self._has_batch:
            return FlatRange(None, (rate / around, rate * around))
        along = self.curvature_batch - self.curvature_cross**2 / self.curvature_lr
        batch, spread = self._central_batch(params, tokens), np.exp(np.sqrt(2 * nats / along))
        return FlatRange((batch / spread, batch * spread), (rate / around, rate * around))

    @property
    def _has_batch(self) -> bool:
        return bool(np.all(self.curvature_batch > 0))

    def _require_batch(self) -> None:
        if not self._has_batch:
            raise NotIdentified(
                "the runs do not determine an optimal batch: too few batch sizes at each (params, tokens)",
                hint="scalecli probe sweep with at least four --batch-tokens at every size",
            )

    def _central_batch(self, params: Array | float, tokens: Array | float) -> Array:
        batch: Array = self.batch_scale * params**self.batch_params * tokens**self.batch_tokens
        return batch

    def _offsets(self, x: Columns) -> tuple[Array, Array]:
        u = np.log(x["learning_rate"] / self.optimal_learning_rate(x["params"], x["tokens"]))
        return u, np.log(x["batch_tokens"] / self._central_batch(x["params"], x["tokens"]))

    def _excess(self, u: Array, v: Array) -> Array:
        return (self.curvature_lr * u**2 + 2 * self.curvature_cross * u * v + self.curvature_batch * v**2) / 2

    @classmethod
    def estimate(cls, x: Columns, y: Array, weights: Array) -> Array:
        """Vertex per setting, then power laws through them. `NoOptimum` when no setting has a vertex."""
        return two_stage(group_settings(x, y), weights)

    @classmethod
    def clusters(cls, x: Columns) -> Indices:
        """Runs of one (params, tokens) setting share its error."""
        return label_settings(x)

    @classmethod
    def draws(cls, x: Columns, y: Array, weights: Array, counts: Array, rng: np.random.Generator) -> Array:
        """A resample of settings for every row of `counts`, widened for how few settings there are."""
        settings = group_settings(x, y)
        point = two_stage(settings, weights[None])[0]
        return widen(cls, two_stage(settings, weights * counts), point, settings.count)

    @classmethod
    def notices(cls, x: Columns, y: Array) -> list[Notice]:
        return settings_notices(x, y)
