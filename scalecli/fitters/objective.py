"""What a fit minimises: the weighted sum over rows of a loss of the log residual.

The residual of a row is r = log(prediction) - log(measured), so r > 0 is an over-prediction. Every loss here
is a Huber loss with its own `delta`, possibly tilted:

- `huber`: quadratic up to `delta`, absolute beyond (Hoffmann et al. 2022 use 1e-3 on log loss);
- `least-squares`: `delta` infinite, r^2 / 2;
- `absolute`: `delta` so small that only the rows the curve passes through are inside it, |r|;
- `envelope`: Huber that charges an over-prediction `over` times as much, so that the curve follows the lower
  envelope: the runs that were tuned best.

The objective is a sum, never a mean: tolerances of optimizers are absolute, and a mean stops them early
(Besiroglu et al. 2024).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from scalecli.fitters.law import Array

ABSOLUTE_DELTA = 1e-6
"""Half-width of the quadratic part of `absolute`, in log units: far below any measurement's noise."""

ENVELOPE_TILT = 10.0
"""How much more an over-prediction costs in `envelope`; the default of the `chinchilla` package on PyPI."""


class LossName(StrEnum):
    """The losses a fit can minimise, as the command line spells them."""

    huber = "huber"
    least_squares = "least-squares"
    absolute = "absolute"
    envelope = "envelope"


@dataclass(frozen=True, slots=True)
class Pieces:
    """A loss at residuals of any shape: value, first and second derivative, and the weight psi(r) / r.

    Twice the loss is at most `majorizer` x r^2 + a constant: with it in place of `second`, a Newton step is
    one step of iteratively reweighted least squares, which always descends.
    """

    value: Array
    first: Array
    second: Array
    majorizer: Array


@dataclass(frozen=True, slots=True)
class RowLoss:
    """A tilted Huber loss: h(r) for r <= 0 and `over` x h(r) for r > 0, divided by `unit`."""

    name: str
    delta: float
    over: float = 1.0
    unit: float = 1.0

    def pieces(self, residual: Array) -> Pieces:
        size = np.abs(residual)
        inner = np.minimum(size, self.delta)
        value = inner * (size - 0.5 * inner)
        first = np.copysign(inner, residual)
        second = (size <= self.delta).astype(float)
        with np.errstate(divide="ignore"):  # an exact fit: psi(r) / r tends to 1
            majorizer = np.minimum(1.0, self.delta / size)
        if self.over == 1.0 and self.unit == 1.0:
            return Pieces(value, first, second, majorizer)
        tilt = np.where(residual > 0, self.over, 1.0) / self.unit
        return Pieces(value * tilt, first * tilt, second * tilt, majorizer * tilt)

    def with_delta(self, delta: float) -> RowLoss:
        return replace(self, delta=delta)

    @property
    def delta_matters(self) -> bool:
        """Whether `delta` is the user's, not part of the loss's own definition."""
        return ABSOLUTE_DELTA < self.delta < np.inf


def row_loss(name: LossName, delta: float) -> RowLoss:
    """The loss called `name`; `delta` [log units] matters to `huber` and `envelope` alone."""
    match name:
        case LossName.huber:
            return RowLoss("huber_log", delta)
        case LossName.least_squares:
            return RowLoss("least_squares_log", np.inf)
        case LossName.absolute:
            return RowLoss("absolute_log", ABSOLUTE_DELTA, unit=ABSOLUTE_DELTA)
        case LossName.envelope:
            return RowLoss("envelope_log", delta, over=ENVELOPE_TILT)
