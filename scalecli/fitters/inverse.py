"""Solving a power-law term for its column."""

from __future__ import annotations

import numpy as np

from scalecli.fitters.law import Array


def column_for_term(term: Array | float, scale: Array | float, exponent: Array | float) -> Array:
    """x with scale x^-exponent = term; NaN where the term would have to be zero or less: no x reaches that.

    >>> column_for_term(0.5, 50.0, 0.5)
    array(10000.)
    """
    term = np.asarray(term, dtype=float)
    return np.asarray((scale / np.where(term > 0, term, np.nan)) ** (1 / exponent))
