"""The best learning rate of Adam over the batch size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from scalecli.fitters.law import Array, Columns, Param


@dataclass(frozen=True, slots=True, kw_only=True)
class Surge:
    """lr(B) = 2 lr_max / (sqrt(B_noise / B) + sqrt(B / B_noise))  [peak learning rate]; B: tokens a step.

    Rises as the square root of the batch, peaks at B_noise and falls again. Rows are the best rates of a grid, one
    for each batch size. B_noise is where the grid says the peak is; a gradient noise scale is another number.
    Li et al. 2024, equation 12, for batches well below the largest.
    """

    name: ClassVar[str] = "surge"
    inputs: ClassVar[tuple[str, ...]] = ("batch_tokens",)
    output: ClassVar[str] = "learning_rate"
    sources: ClassVar[tuple[str, ...]] = ("li2024surge",)
    linear: ClassVar[tuple[str, ...]] = ("lr_max",)

    lr_max: Annotated[float, Param(1e-12, 1e3, log=True)]
    B_noise: Annotated[float, Param(1e-3, 1e15, unit="tokens", log=True, start=(1e2, 1e9))]

    def predict(self, x: Columns) -> Array:
        return self.lr_max * self.relative_rate(x["batch_tokens"])

    def gradient(self, x: Columns) -> Array:
        shape = self.relative_rate(x["batch_tokens"])
        rise, fall = np.sqrt(self.B_noise / x["batch_tokens"]), np.sqrt(x["batch_tokens"] / self.B_noise)
        by_noise = -self.lr_max * shape**2 * (rise - fall) / (4 * self.B_noise)
        return np.stack([shape, by_noise], axis=-1)

    def relative_rate(self, batch_tokens: Array | float) -> Array:
        """The rate over its maximum, 1 at B_noise."""
        rate: Array = 2 / (np.sqrt(self.B_noise / batch_tokens) + np.sqrt(batch_tokens / self.B_noise))
        return rate
