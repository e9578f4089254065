"""Approach 2 with cubics, which follow the asymmetry of an isoFLOP curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from scalecli.fitters.law import Array, Columns, Param
from scalecli.fitters.laws.isoflop import power_line, vertices

CUBIC_WINDOW = 16.0
"""A cubic stays close to a loss curve over this factor on either side of the best size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IsoFlopCubic:
    """N*(C) = a C^b  [parameters]; C: FLOPs; a line through the minima of cubics of loss in log N.

    As `isoflop`, with a cubic for every budget: cures the bias from asymmetric curves, not that from a
    drifting grid. Czech et al. 2026, arXiv 2603.22339.
    """

    name: ClassVar[str] = "isoflop-cubic"
    inputs: ClassVar[tuple[str, ...]] = ("flops",)
    output: ClassVar[str] = "params_optimal"
    required: ClassVar[tuple[str, ...]] = ("flops", "params")
    sources: ClassVar[tuple[str, ...]] = ("hoffmann2022", "czech2026")

    a: Annotated[float, Param(1e-30, 1e30, unit="parameters", log=True)]
    b: Annotated[float, Param(-1.0, 3.0)]

    def predict(self, x: Columns) -> Array:
        return self.a * x["flops"] ** self.b

    def gradient(self, x: Columns) -> Array:
        power = x["flops"] ** self.b
        return np.stack([power, self.a * power * np.log(x["flops"])], axis=-1)

    def optimal_params(self, flops: Array | float) -> Array | float:
        """N*(C) = a C^b."""
        return self.a * flops**self.b

    def optimal_tokens(self, flops: Array | float) -> Array | float:
        """D* = C / (6 N*), for FLOPs counted as 6 N D."""
        return flops / (6 * self.optimal_params(flops))

    @classmethod
    def estimate(cls, x: Columns, y: Array, weights: Array) -> Array:
        budgets, sizes = vertices(x, y, weights, degree=3, window=CUBIC_WINDOW)
        return power_line(budgets, sizes)
