"""What the procedures for the best model size have in common: a power law of size, and the questions asked of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from scalecli.fitters.law import Array, Columns, Param

FEWEST_POINTS = 3
"""Two points determine a power law exactly, so nothing would tell a good fit from a bad one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeLine:
    """N*(x) = a x^b  [parameters]; x: the law's one input. Laws say how a and b are estimated."""

    inputs: ClassVar[tuple[str, ...]]
    output: ClassVar[str] = "params_optimal"

    a: Annotated[float, Param(1e-30, 1e30, unit="parameters", log=True)]
    b: Annotated[float, Param(-1.0, 3.0)]

    def predict(self, x: Columns) -> Array:
        return self.a * x[self.inputs[0]] ** self.b

    def gradient(self, x: Columns) -> Array:
        power = x[self.inputs[0]] ** self.b
        return np.stack([power, self.a * power * np.log(x[self.inputs[0]])], axis=-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeOptimalSize(SizeLine):
    """N*(C) = a C^b  [parameters]; C: FLOPs."""

    inputs: ClassVar[tuple[str, ...]] = ("flops",)
    required: ClassVar[tuple[str, ...]] = ("flops", "params")

    def optimal_params(self, flops: Array | float) -> Array | float:
        """N*(C) = a C^b."""
        return self.a * flops**self.b

    def optimal_tokens(self, flops: Array | float) -> Array | float:
        """D* = C / (6 N*), for FLOPs counted as 6 N D."""
        return flops / (6 * self.optimal_params(flops))


def power_line(x: Array, y: Array) -> Array:
    """Least squares of log y on log x: (a, b) of y = a x^b, shape (draws, 2).

    `x` has shape (points,) or (draws, points), `y` (draws, points); points where `y` is NaN do not count,
    and a draw with fewer than three of them is NaN.
    """
    present = np.isfinite(y)
    count = np.maximum(present.sum(axis=1, keepdims=True), 1)
    log_x = np.where(present, np.log(np.broadcast_to(x, y.shape)), 0.0)
    log_y = np.log(np.where(present, y, 1.0))
    mean_x, mean_y = log_x.sum(axis=1, keepdims=True) / count, log_y.sum(axis=1, keepdims=True) / count
    from_x = np.where(present, log_x - mean_x, 0.0)
    spread = (from_x**2).sum(axis=1)
    enough = (present.sum(axis=1) >= FEWEST_POINTS) & (spread > 0)
    slope = (from_x * log_y).sum(axis=1) / np.where(enough, spread, np.nan)
    return np.stack([np.exp(mean_y[:, 0] - slope * mean_x[:, 0]), slope], axis=-1)
