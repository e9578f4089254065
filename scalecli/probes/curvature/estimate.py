"""From Lanczos coefficients to the extremes of a spectrum, and from these to the largest stable rate. No torch.

Gradient descent on a quadratic of curvature h stays stable up to a rate of 2 / h, with momentum beta up to
2 (1 + beta) / h; Adam up to 2 (1 + beta1) / ((1 - beta1) h) with h of the preconditioned Hessian (cohen2022,
proposition 1): 38 / h at beta1 = 0.9.

A batch's Hessian is the full one and noise, whose part falls with the batch. Its largest eigenvalue is
lambda + c / B for a spike that stands out (granziol2020, theorem 1), so that the stable rate
grows with the batch while c / B is the larger part, and not beyond.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scalecli.errors import NotEnoughSignal, ProbeError

Array = npt.NDArray[np.float64]
GRID, SPAN = 600, 100.0
"""Values that are tried for the batch at which noise doubles the curvature, this far beyond those measured."""


@dataclass(frozen=True, slots=True)
class Extremes:
    """The ends of a spectrum as Lanczos sees them; `error` bounds how far the upper one is from an eigenvalue."""

    low: float
    high: float
    error: float


def extremes(alphas: Sequence[float], betas: Sequence[float]) -> Extremes:
    """Of the tridiagonal matrix with diagonal `alphas`; `betas` has the same length, its last is the residual.

    >>> extremes([1.0, 3.0], [0.0, 0.0])
    Extremes(low=1.0, high=3.0, error=0.0)
    """
    diagonal, off = np.array(alphas), np.array(betas[:-1])
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1))
    return Extremes(float(values[0]), float(values[-1]), float(abs(betas[-1] * vectors[-1, -1])))


def check_optimizer(optimizer: str) -> None:
    """Raise `ProbeError` for an optimizer whose stable rate is not known in closed form."""
    if optimizer not in ("sgd", "adamw"):
        raise ProbeError(
            f"what is stable under {optimizer} is not known in closed form", hint="use adamw or sgd"
        )


def stable_rate(curvature: float, optimizer: str, beta1: float) -> float:
    """The largest learning rate that this curvature leaves stable; infinite where it is not positive.

    `curvature` is of the Hessian for `sgd`, of the preconditioned one for `adamw`. Raises `ProbeError` for
    others.
    """
    check_optimizer(optimizer)
    if curvature <= 0:
        return math.inf
    factor = 2 * (1 + beta1)
    return factor / curvature if optimizer == "sgd" else factor / ((1 - beta1) * curvature)


@dataclass(frozen=True, slots=True)
class Spike:
    """lambda(B) = full (1 + doubled / B), B in tokens: noise is as large as the rest at a batch of `doubled`."""

    full: float
    full_low: float
    full_high: float
    doubled: float
    doubled_low: float
    doubled_high: float

    def at(self, batch_tokens: float) -> float:
        return self.full * (1 + self.doubled / batch_tokens)


def spike(batch_tokens: Array, curvature: Array, *, interval: float = 0.9) -> Spike:
    """Least squares of logarithms over measurements (n,) at two batches or more, with profile intervals.

    Raises:
        ProbeError: there is one batch only. NotEnoughSignal: curvature that does not depend on the batch explains the
        measurements as well (carries their mean), so that neither part is known.
    """
    if len(np.unique(batch_tokens)) < 2:
        raise ProbeError("1 batch size shows no dependence on it", hint="give several --batches")
    profile = _Profile(batch_tokens, np.log(curvature), interval)
    if profile.error(np.array([0.0]))[0] <= profile.limit:
        raise NotEnoughSignal(
            f"the largest curvature does not fall with the batch beyond its scatter (mean {curvature.mean():.3g})",
            estimate=float(curvature.mean()),
            hint="measure smaller and larger --batches, or more --repeats",
        )
    inside = profile.doubled[profile.errors <= profile.limit]
    best = profile.doubled[profile.errors.argmin()]
    (middle,) = profile.log_full(np.array([best]))
    reach = np.sqrt(np.maximum(0.0, profile.limit - profile.error(inside)) / len(curvature))
    low, high = profile.log_full(inside) - reach, profile.log_full(inside) + reach
    return Spike(
        full=math.exp(middle), full_low=math.exp(low.min()), full_high=math.exp(high.max()),
        doubled=float(best), doubled_low=float(inside[0]), doubled_high=float(inside[-1]),
    )  # fmt: skip


class _Profile:
    """Squared errors of log curvature over the batch at which noise doubles it, the level fitted at each.

    `limit` is the error up to which a value lies in the interval: 1 + t^2 / (n - 2) times the least.
    """

    def __init__(self, batch_tokens: Array, log_curvature: Array, interval: float) -> None:
        from scipy.special import stdtrit

        self._inverse, self._logs = 1 / batch_tokens, log_curvature
        self.doubled = np.geomspace(batch_tokens.min() / SPAN, batch_tokens.max() * SPAN, GRID)
        self.errors = self.error(self.doubled)
        freedom = max(1, len(log_curvature) - 2)
        quantile = float(stdtrit(freedom, (1 + interval) / 2))
        self.limit = float(self.errors.min()) * (1 + quantile**2 / freedom)

    def _rest(self, doubled: Array) -> Array:
        """Log curvature without the batch's part, (values, n)."""
        rest: Array = self._logs - np.log1p(np.outer(doubled, self._inverse))
        return rest

    def log_full(self, doubled: Array) -> Array:
        level: Array = self._rest(doubled).mean(axis=1)
        return level

    def error(self, doubled: Array) -> Array:
        error: Array = self._rest(doubled).var(axis=1) * len(self._logs)
        return error
