"""Regression on random features of data with a power-law spectrum: whichever of size and data is short decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from scalecli.fitters.law import Array

SIZES = np.geomspace(3e6, 1e10, 10)
RATIOS = np.array([1 / 128, 1 / 32, 1 / 8, 8.0, 32.0, 128.0])
"""Samples for each feature: away from 1, where the loss without a ridge diverges."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomFeatures:
    """L(N, D) = m kappa_m / (1 - m / M), with m and M the smaller and larger of N features and D samples.

    kappa_m solves sum over k of 1 / (1 + kappa k^(1+alpha)) = m, for eigenvalues k^-(1+alpha). Far from N = D the loss
    is a power m^-alpha of the scarcer one and flat in the other: a plateau, and a best size that grows as the data do.
    Maloney et al. 2022, in the limit of no ridge.
    """

    name: ClassVar[str] = "random-features"
    source: ClassVar[str] = "maloney2022"
    measured: ClassVar[str] = "loss"
    group: ClassVar[str | None] = None

    alpha: float = 0.4

    def columns(self) -> dict[str, Array]:
        size, ratio = (axis.ravel() for axis in np.meshgrid(np.round(SIZES), RATIOS))
        data = np.round(size * ratio)
        return {"params": size, "tokens": data, "loss": self.loss(size, data)}

    def truth(self) -> dict[str, float]:
        return {"alpha and beta of chinchilla": self.alpha, "exponent of the best size over compute": 0.5}

    def loss(self, size: Array, data: Array) -> Array:
        """At sizes and samples of shape (rows,)."""
        scarce, plenty = np.minimum(size, data), np.maximum(size, data)
        return np.asarray(scarce * self.kappa(scarce) / (1 - scarce / plenty))

    def kappa(self, count: Array) -> Array:
        """The sum by its integral from 1/2 on, which is exact to a part in count^2: (c / (m + 1/2))^(1 + alpha)."""
        power = 1 + self.alpha
        whole = np.pi / power / np.sin(np.pi / power)
        return np.asarray((whole / (count + 0.5)) ** power)
