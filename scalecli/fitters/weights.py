"""Row weights from what is known of each row's noise: measured with it, or seen between repeated seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scalecli.errors import DataError
from scalecli.fitters.law import Array, Columns

FEWEST_REPEATED = 5
"""With fewer settings trained more than once, the change of noise with loss is not looked for."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Row weights of mean 1, shape (rows,), and what they rest on: `equal`, `loss_std` or `repeated
    seeds`."""

    rows: Array
    source: str


def row_weights(x: Columns, y: Array, loss_std: Array | None) -> Weights:
    """The weights of rows with inputs `x` and measured values `y` (rows,).

    `loss_std` (rows,) are standard deviations of `y`, in its units. Without them, the spread between runs of
    equal inputs tells how noise changes with the measured value. Raises `DataError` for a standard deviation
    that is negative or missing.
    """
    if loss_std is not None:
        return Weights(_from_spread(_relative(y, loss_std)), "loss_std")
    spread = repeated_spread(x, y)
    if spread is not None:
        return Weights(_from_spread(spread), "repeated seeds")
    return Weights(np.ones_like(y), "equal")


def repeated_spread(x: Columns, y: Array) -> Array | None:
    """Relative standard deviation of every row by a power law of noise over the measured value, (rows,).

    Fitted to the spreads of settings that were run more than once, weighted by their degrees of freedom;
    noise is larger at high loss, that is in small runs (Porian et al. 2024). None with too few such settings.
    """
    settings = np.stack(list(x.values()), axis=1)
    _, label, counts = np.unique(settings, axis=0, return_inverse=True, return_counts=True)
    log_y = np.log(y)
    mean = np.bincount(label, log_y) / counts
    variance = np.bincount(label, (log_y - mean[label]) ** 2) / np.maximum(counts - 1, 1)
    repeated = (counts > 1) & (variance > 0)
    if repeated.sum() < FEWEST_REPEATED or np.ptp(mean[repeated]) == 0:
        return None
    freedom = counts[repeated] - 1.0
    off = mean[repeated] - np.average(mean[repeated], weights=freedom)
    half_log = 0.5 * np.log(variance[repeated])
    slope = (freedom * off * half_log).sum() / (freedom * off**2).sum()
    return np.asarray(np.exp(slope * (log_y - log_y.mean())))


def _relative(y: Array, std: Array) -> Array:
    spread = np.asarray(std, dtype=float) / y
    odd = ~(np.isfinite(spread) & (spread >= 0))
    if odd.any():
        row = int(np.flatnonzero(odd)[0])
        raise DataError(
            f"loss_std is {std[row]} in row {row + 1}; it must be known and not negative in every row",
            hint="drop the column, or the rows without it",
        )
    return np.asarray(spread)


def _from_spread(spread: Array) -> Array:
    """Proportional to 1 / (s^2 + typical s^2): a measured noise is not all that separates a run from the law,
    so that no row weighs more than twice what a typical one does."""
    typical = np.median(spread)
    if typical == 0:
        return np.ones_like(spread)
    weights = 1 / (spread**2 + typical**2)
    return np.asarray(weights / weights.mean())
