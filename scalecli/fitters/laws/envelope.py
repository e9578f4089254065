"""Approach 1: the best size at a FLOP budget, from the lower envelope of loss curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from scalecli.fitters.law import Array, Columns
from scalecli.fitters.problem import Indices
from scalecli.fitters.size_line import ComputeOptimalSize, power_line

GRID = 200
"""FLOP values, evenly spaced in log FLOPs, at which the lowest curve is read off."""

FEWEST_SIZES = 3
"""A line through fewer sizes shows where they are, not how the best one grows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope(ComputeOptimalSize):
    """N*(C) = a C^b  [parameters]; C: FLOPs; a line through the sizes whose loss curves are lowest.

    Rows of equal `params` make one curve of loss over FLOPs (checkpoints, or runs of several lengths).
    Where the lowest curve is that of the smallest or largest size present, the optimum lies outside and the
    point does not count; three sizes must be lowest somewhere. Hoffmann et al. 2022, section 3.1 (approach 1).
    """

    name: ClassVar[str] = "envelope"
    sources: ClassVar[tuple[str, ...]] = ("hoffmann2022",)

    @classmethod
    def estimate(cls, x: Columns, y: Array, weights: Array) -> Array:
        grid = np.geomspace(x["flops"].min(), x["flops"].max(), GRID)
        order = np.argsort(x["params"], kind="stable")
        starts = np.flatnonzero(np.diff(x["params"][order])) + 1
        curves = [rows for rows in np.split(order, starts) if len(rows) > 1]  # one row is no curve
        best = np.stack([_best_sizes(x, y, row > 0, curves, grid) for row in weights])
        few = [len(np.unique(row[np.isfinite(row)])) < FEWEST_SIZES for row in best]
        best[few] = np.nan
        return power_line(grid, best)


def _best_sizes(
    x: Columns, loss: Array, used: NDArray[np.bool_], curves: Sequence[Indices], grid: Array
) -> Array:
    """The size of the lowest curve at every FLOP value, shape (grid,); NaN where it is not bracketed.

    `curves` has the rows of each size, the smallest first.
    """
    if not curves:
        return np.full(len(grid), np.nan)
    sizes = np.array([x["params"][rows[0]] for rows in curves])
    height = np.stack([_curve(x["flops"], loss, rows[used[rows]], grid) for rows in curves])
    present = np.isfinite(height)
    lowest = np.where(present, height, np.inf).argmin(axis=0)
    smallest, largest = present.argmax(axis=0), len(sizes) - 1 - present[::-1].argmax(axis=0)
    return np.where((lowest > smallest) & (lowest < largest), sizes[lowest], np.nan)


def _curve(flops: Array, loss: Array, rows: Indices, grid: Array) -> Array:
    """Log loss at the FLOP values, interpolated in log FLOPs between one size's rows; NaN outside them."""
    if not len(rows):
        return np.full(len(grid), np.nan)
    at, point = np.unique(flops[rows], return_inverse=True)
    best = np.full(len(at), np.inf)
    np.minimum.at(best, point, loss[rows])  # of runs alike but for their tuning the best counts
    curve = np.interp(np.log(grid), np.log(at), np.log(best), left=np.nan, right=np.nan)
    return np.asarray(curve, dtype=float)
