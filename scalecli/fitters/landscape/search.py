"""Minima and crossings of one-dimensional functions, for many draws at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scalecli.fitters.law import Array

ROUNDS = 48
"""Halvings of a bracket a few logs wide: beyond double precision of what is compared."""

GOLDEN = (np.sqrt(5) - 1) / 2


def lowest(function: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """Where a unimodal function is lowest between `low` and `high`, elementwise; by golden section."""
    for _ in range(ROUNDS):
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        falling = function(left) > function(right)
        low, high = np.where(falling, left, low), np.where(falling, high, right)
    return np.asarray((low + high) / 2)


def crossing(function: Callable[[Array], Array], level: Array, reach: float) -> Array:
    """Where a function rising from 0 at 0 meets `level`, elementwise; `reach`, of either sign, if it does not."""
    near, far = np.zeros_like(level), np.full_like(level, reach)
    for _ in range(ROUNDS):
        middle = (near + far) / 2
        below = function(middle) < level
        near, far = np.where(below, middle, near), np.where(below, far, middle)
    return np.asarray((near + far) / 2)
