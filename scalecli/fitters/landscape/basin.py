"""The basin form: an asymmetric bowl around the optimum that grows ever slower far from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from scalecli.fitters.landscape.form import Normal
from scalecli.fitters.landscape.grid import OFF, Grid, Optimum
from scalecli.fitters.law import Array

LEVEL = Normal(0.0, 1.5)
"""The optimum at the centre of the settings lies within a factor of about 20 of the middle of the good runs."""

EXPONENT = Normal(0.0, 0.4)
"""Exponents of published learning-rate and batch laws lie between -0.9 and 0.7. Without it, a long and narrow valley
in noisy runs can be fitted by an optimum that races along it with scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Basin:
    """kappa ln(1 + q exp(a tanh u) / kappa), q = ((steep u + cross v)^2 + (deep v)^2) / 2.

    u = log rate - (rate + rate_params n + rate_tokens t), v = log batch - (batch + batch_params n +
    batch_tokens t), in centred logs. `steep`, `deep` and `kappa` are logarithms; a is the asymmetry,
    positive where high rates are worse. `deep` at `OFF` (and `cross` at zero) leaves the batch out. Each
    field is (draws, 1).
    """

    rate: Annotated[Array, LEVEL]
    rate_params: Annotated[Array, EXPONENT]
    rate_tokens: Annotated[Array, EXPONENT]
    batch: Annotated[Array, LEVEL]
    batch_params: Annotated[Array, EXPONENT]
    batch_tokens: Annotated[Array, EXPONENT]
    steep: Annotated[Array, Normal(-2.0, 1.0)]
    cross: Annotated[Array, Normal(0.0, 0.3)]
    deep: Annotated[Array, Normal(-2.0, 1.0)]
    kappa: Annotated[Array, Normal(-2.0, 1.0)]
    asymmetry: Annotated[Array, Normal(0.0, 1.0)]

    def height(self, grid: Grid) -> tuple[Array, Array]:
        u = grid.rate - (self.rate + self.rate_params * grid.params + self.rate_tokens * grid.tokens)
        v = grid.batch - (self.batch + self.batch_params * grid.params + self.batch_tokens * grid.tokens)
        steep, deep, kappa = np.exp(self.steep), np.exp(self.deep), np.exp(self.kappa)
        along, across, lean = steep * u + self.cross * v, deep * v, np.tanh(u)
        skew = np.exp(self.asymmetry * lean) / kappa
        bowl = (along**2 + across**2) / 2 * skew
        height = kappa * np.log1p(bowl)
        by_bowl = kappa / (1 + bowl)
        by_rate = -by_bowl * (skew * along * steep + bowl * self.asymmetry * (1 - lean**2))
        by_batch = -by_bowl * skew * (along * self.cross + across * deep)
        columns = [
            by_rate,
            by_rate * grid.params,
            by_rate * grid.tokens,
            by_batch,
            by_batch * grid.params,
            by_batch * grid.tokens,
            by_bowl * skew * along * steep * u,
            by_bowl * skew * along * v,
            by_bowl * skew * across**2,
            height - by_bowl * bowl,
            by_bowl * bowl * lean,
        ]
        return height, np.stack(columns, axis=1)

    def optimum(self) -> Optimum:
        batch = np.concatenate([self.batch, self.batch_params, self.batch_tokens], axis=1)
        batch[self.deep[:, 0] == OFF] = np.nan
        return Optimum(np.concatenate([self.rate, self.rate_params, self.rate_tokens], axis=1), batch)

    @property
    def curvature(self) -> Array:
        """Second derivatives at the optimum by (rate, rate), (rate, batch), (batch, batch): (draws, 3)."""
        steep = np.exp(self.steep)
        deep = np.where(self.deep == OFF, 0.0, np.exp(self.deep))
        return np.concatenate([steep**2, steep * self.cross, self.cross**2 + deep**2], axis=1)
