"""Approach 2: the best size at a FLOP budget, from the vertices of isoFLOP curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from scalecli.fitters.law import Array, Columns, Param

SAME_BUDGET = 1.1
"""Runs whose FLOPs follow each other by a smaller ratio belong to one budget."""

PARABOLA_WINDOW = 4.0
"""Sizes further than this factor from the best of their budget are left out: no parabola holds there."""

FEWEST_BUDGETS = 3
"""Two budgets determine a power law exactly, so nothing would tell a good fit from a bad one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IsoFlop:
    """N*(C) = a C^b  [parameters]; C: FLOPs; a line through the minima of parabolas of loss in log N.

    Rows at equal FLOPs and several sizes, of each the best run; a budget whose minimum is not bracketed by
    its sizes does not count. Biased where the grid drifts off the minimum from budget to budget: compare
    with `isoflop-cubic` and `chinchilla`. Hoffmann et al. 2022, section 3.2 (approach 2).
    """

    name: ClassVar[str] = "isoflop"
    inputs: ClassVar[tuple[str, ...]] = ("flops",)
    output: ClassVar[str] = "params_optimal"
    required: ClassVar[tuple[str, ...]] = ("flops", "params")
    sources: ClassVar[tuple[str, ...]] = ("hoffmann2022", "porian2024")

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
        budgets, sizes = vertices(x, y, weights, degree=2, window=PARABOLA_WINDOW)
        return power_line(budgets, sizes)


def vertices(x: Columns, loss: Array, weights: Array, *, degree: int, window: float) -> tuple[Array, Array]:
    """The size of least loss at every budget, from a polynomial (degree 2 or 3) of loss in log params.

    Only sizes within the factor `window` of the best one of their budget are used. Returns the budgets
    [FLOPs], shape (budgets,), and the sizes, shape (draws, budgets): NaN where no minimum is bracketed.
    """
    flops, log_size = np.asarray(x["flops"], dtype=float), np.log(x["params"])
    order = np.argsort(flops, kind="stable")
    breaks = np.flatnonzero(np.diff(np.log(flops[order])) > np.log(SAME_BUDGET)) + 1
    budgets, sizes = [], []
    for rows in np.split(order, breaks):
        budgets.append(np.exp(np.log(flops[rows]).mean()))
        sizes.append(np.exp(_log_vertex(log_size[rows], loss[rows], weights[:, rows], degree, window)))
    return np.array(budgets), np.stack(sizes, axis=-1)


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
    enough = (present.sum(axis=1) >= FEWEST_BUDGETS) & (spread > 0)
    slope = (from_x * log_y).sum(axis=1) / np.where(enough, spread, np.nan)
    return np.stack([np.exp(mean_y[:, 0] - slope * mean_x[:, 0]), slope], axis=-1)


def _log_vertex(log_params: Array, loss: Array, weights: Array, degree: int, window: float) -> Array:
    """Log of the best size for every draw, shape (draws,); NaN where the sizes do not bracket it."""
    log_size, least, weight = _best_of_each_size(log_params, loss, weights)
    best = log_size[np.where(weight > 0, least, np.inf).argmin(axis=1)]
    used = np.where(np.abs(log_size - best[:, None]) <= np.log(window), weight, 0.0)
    solvable = (used > 0).sum(axis=1) > degree
    offset, scale = log_size.mean(), max(float(np.ptp(log_size)), 1e-12)
    powers = np.vander((log_size - offset) / scale, degree + 1, increasing=True)
    normal = np.einsum("dn,ni,nj->dij", used, powers, powers)
    solvable &= np.linalg.matrix_rank(normal, hermitian=True) > degree
    normal[~solvable] = np.eye(degree + 1)
    coefficients = np.linalg.solve(normal, ((used * least) @ powers)[..., None])[..., 0]
    vertex = offset + scale * _minimum(coefficients)
    low = np.where(used > 0, log_size, np.inf).min(axis=1)
    high = np.where(used > 0, log_size, -np.inf).max(axis=1)
    return np.where(solvable & (vertex > low) & (vertex < high), vertex, np.nan)


def _best_of_each_size(log_params: Array, loss: Array, weights: Array) -> tuple[Array, Array, Array]:
    """The different sizes (sizes,), the least loss and the weight of each (draws, sizes); 0 where a draw has none.

    Of several runs of a size at one budget (a sweep of learning rates) the best is the tuned one.
    """
    sizes = np.unique(log_params)
    rows = [log_params == size for size in sizes]
    weight = np.stack([weights[:, of].sum(axis=1) for of in rows], axis=-1)
    least = np.stack([np.where(weights[:, of] > 0, loss[of], np.inf).min(axis=1) for of in rows], axis=-1)
    return sizes, np.where(weight > 0, least, 0.0), weight


def _minimum(coefficients: Array) -> Array:
    """Where a polynomial of degree 2 or 3, coefficients rising, shape (draws, degree + 1), has its minimum.

    The root -c1 / (c2 + sqrt(c2^2 - 3 c3 c1)) of the derivative is the one with positive curvature, and
    needs no case for c3 = 0. NaN or infinite where there is none.
    """
    slope, bend = coefficients[:, 1], coefficients[:, 2]
    cubic = coefficients[:, 3] if coefficients.shape[1] > 3 else np.zeros_like(slope)
    with np.errstate(invalid="ignore", divide="ignore"):
        return -slope / (bend + np.sqrt(bend**2 - 3 * cubic * slope))
