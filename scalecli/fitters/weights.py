"""Row weights from what is known of each row's noise."""

from __future__ import annotations

import numpy as np

from scalecli.errors import DataError
from scalecli.fitters.law import Array


def row_weights(y: Array, loss_std: Array | None) -> Array:
    """Weights of mean 1 from standard deviations of `y` (in its units), (rows,); all 1 without.

    Proportional to 1 / (s^2 + typical s^2) with s the relative standard deviation: a measured noise is not
    all that separates a run from the law, so that no row weighs more than twice what a typical one does.
    Raises `DataError` for a standard deviation that is negative or missing.
    """
    if loss_std is None:
        return np.ones_like(y)
    spread = np.asarray(loss_std, dtype=float) / y
    if not (np.isfinite(spread).all() and (spread >= 0).all()):
        where = int(np.flatnonzero(~(np.isfinite(spread) & (spread >= 0)))[0])
        raise DataError(
            f"loss_std is {loss_std[where]} in row {where + 1}; it must be known and not negative in every "
            "row",
            hint="drop the column, or the rows without it",
        )
    typical = np.median(spread)
    if typical == 0:
        return np.ones_like(y)
    weights = 1 / (spread**2 + typical**2)
    return np.asarray(weights / weights.mean())
