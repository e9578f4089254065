"""Stochastic gradient descent on Gaussian features: steps to a loss over batches, and the noise scale, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from scalecli.fitters.law import Array

FEATURES = 400
BATCHES = 2.0 ** np.arange(0, 13)
RATES = 2.0 ** -np.arange(0.0, 9.0, 0.5)
"""In units of the largest rate that a full batch bears, 2 over the largest eigenvalue."""

TARGETS = (0.3, 0.2)
"""Losses as shares of the first one."""

MOST_STEPS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SgdFeatures:
    """c_k(t+1) = ((1 - r e_k)^2 + r^2 e_k^2 / B) c_k + r^2 e_k L / B, with the loss L = sum of e_k c_k.

    One pass of SGD at rate r and batch B over Gaussian features with eigenvalues e_k = k^-b; c_k are the mean squared
    errors of the weights. For every batch the fewest steps over rates to each target. The gradient noise scale is
    tr(Sigma) / |G|^2 = 1 + L sum(e) / sum(e^2 c). Bordelon and Pehlevan 2021, section 2: the batch of least compute is
    far smaller than that of least time.
    """

    name: ClassVar[str] = "sgd-features"
    source: ClassVar[str] = "bordelon2021"
    measured: ClassVar[str] = "steps"
    group: ClassVar[str | None] = None

    b: float = 1.0

    def columns(self) -> dict[str, Array]:
        rows = [(target, batch, *self.fewest_steps(batch, target)) for target in TARGETS for batch in BATCHES]
        names = ("loss", "batch_tokens", "steps", "learning_rate", "noise_scale_tokens")
        return {
            name: np.array(column, dtype=float)
            for name, column in zip(names, zip(*rows, strict=True), strict=True)
        }

    def truth(self) -> dict[str, float]:
        """Samples only grow with the batch."""
        return {"batch of fewest samples": 1.0}

    @property
    def eigenvalues(self) -> Array:
        return np.arange(1.0, FEATURES + 1) ** -self.b

    def fewest_steps(self, batch: float, target: float) -> tuple[float, float, float]:
        """Steps to the share `target` of the first loss at the best rate, that rate, and the noise scale there."""
        values = self.eigenvalues
        rate = (2 / values[0] * RATES)[:, None]
        error = np.ones((len(RATES), FEATURES))
        kept, spread = (1 - rate * values) ** 2 + (rate * values) ** 2 / batch, rate**2 * values / batch
        goal = target * values.sum()
        loss = error @ values
        for step in range(1, MOST_STEPS + 1):
            error = np.minimum(kept * error + spread * loss[:, None], 1e30)
            before, loss = loss, error @ values
            best = int(np.argmin(loss))
            if loss[best] <= goal:
                part = (np.log(before[best]) - np.log(goal)) / (np.log(before[best]) - np.log(loss[best]))
                return step - 1 + float(part), float(rate[best, 0]), self.noise_scale(error[best])
        return np.nan, np.nan, np.nan

    def noise_scale(self, error: Array) -> float:
        """tr(Sigma) / |G|^2 of one sample's gradient, from the squared errors of the weights (features,)."""
        values = self.eigenvalues
        return float(1 + (values @ error) * values.sum() / (values**2 @ error))
