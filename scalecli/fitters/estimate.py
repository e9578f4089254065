"""The point estimate of a law and its bootstrap draws, whichever way the law is estimated.

Most laws minimise an objective over rows (`solver`); an `EstimatedLaw` brings its own procedure. Everything
above this module (intervals, validation, diagnostics) treats both alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scalecli.errors import FitError
from scalecli.fitters.law import Array, Columns, CostlyLaw, EstimatedLaw, GridLaw, PowerSum, with_values
from scalecli.fitters.objective import LossName, RowLoss, row_loss
from scalecli.fitters.problem import Data, Indices, Targets, expand
from scalecli.fitters.resample import Clusters, leave_cluster_out
from scalecli.fitters.solver import THOROUGH, Effort, Solution, descend, solve

MOST_WORK = 2e6
"""Refits of more than this many draws x rows (`work_of` a law) are one Newton step from the point estimate each, on
the sums of scores over clusters (Kline and Santos 2012): with so many rows the difference is far below the draws'
own spread."""

GENERIC_WORK = 4
"""A row of a law that is searched by its gradient costs as much as so many of a sum of powers."""

DRAW_ITERATIONS = 80
"""A draw that has not settled by then creeps along a valley that its runs leave open: 1 % of its objective is not
worth the time of all the others."""


@dataclass(frozen=True, slots=True)
class Method:
    """How parameters are estimated: the loss, parameters pinned to given values [raw units], and how long the
    search may take."""

    loss: RowLoss
    pins: Mapping[str, float]
    effort: Effort = THOROUGH


@dataclass(frozen=True)
class Estimate:
    """A law estimated from data; `solution` is None for an `EstimatedLaw`."""

    law: type[Any]
    data: Data
    clusters: Clusters
    method: Method
    raw: Array
    """Shape (parameters,)."""
    solution: Solution | None

    def log_prediction(self) -> Array:
        """On the rows it was estimated from, (rows,)."""
        return np.asarray(np.log(with_values(self.law, self.raw).predict(self.data.x)))

    def residuals(self) -> Array:
        """Log of measured over predicted, (rows,)."""
        return np.log(self.data.y) - self.log_prediction()

    def reweighted(self, factors: Array) -> Array:
        """Estimates with the row weights multiplied by each of `factors` (m, rows): raw parameters, (m,
        parameters).

        Rows of NaN where an `EstimatedLaw` has no answer.
        """
        if self.solution is None:
            return np.asarray(self.law.estimate(self.data.x, self.data.y, self.data.weights * factors))
        targets = Targets(np.log(self.data.y), self.data.weights * factors)
        return self._descended(targets, len(factors))

    def under(self, loss: RowLoss) -> Array:
        """Raw parameters that minimise another loss, searched from this estimate, (parameters,)."""
        assert self.solution is not None
        problem = self.solution.problem.with_loss(loss)
        found = descend(problem, self.solution.theta[None], self.data.targets())
        return np.asarray(problem.to_raw(found.theta)[0])

    def scores(self, label: Indices, count: int) -> Array:
        """Gradients of the objective's part from the rows of each label, (count, k)."""
        assert self.solution is not None
        problem, theta = self.solution.problem, self.solution.theta[None]
        pull = self.data.weights * problem.loss.pieces(-self.residuals()).first
        row_scores = pull[:, None] * problem.jacobian(theta)[0]
        return np.stack([np.bincount(label, column, count) for column in row_scores.T], axis=1)

    def without(self, label: Indices, count: int, chosen: Indices) -> Array:
        """Estimates without the rows of each of the `chosen` labels, of which there are `count`: (m,
        parameters)."""
        if self.solution is not None and len(chosen) * work_of(self.law, self.data.x) > MOST_WORK:
            return self._one_step(-self.scores(label, count)[chosen])
        return self.reweighted((label != chosen[:, None]).astype(float))

    def draws(self, count: int, rng: np.random.Generator) -> Array:
        """Bootstrap draws of the raw parameters, (count, parameters); those without an answer are NaN."""
        if isinstance(self.law, GridLaw):
            counts = self.clusters.counts(count, rng)[:, self.clusters.label]
            return self.law.draws(self.data.x, self.data.y, self.data.weights, counts, rng)
        if self.solution is None:
            return self.reweighted(self.clusters.counts(count, rng)[:, self.clusters.label])
        if count * work_of(self.law, self.data.x) > MOST_WORK:
            return self._score_draws(count, rng)
        if self.clusters.few:
            return self._wild_draws(count, rng)
        return self.reweighted(self.clusters.counts(count, rng)[:, self.clusters.label])

    def _descended(self, targets: Targets, count: int) -> Array:
        assert self.solution is not None
        problem = self.solution.problem.around(self.solution.theta)
        start = np.tile(self.solution.theta, (count, 1))
        found = descend(problem, start, targets, max_iterations=DRAW_ITERATIONS)
        return self.solution.problem.to_raw(np.where(np.isfinite(found.value)[:, None], found.theta, np.nan))

    def _wild_draws(self, count: int, rng: np.random.Generator) -> Array:
        multipliers = self.clusters.multipliers(count, rng)[:, self.clusters.label]
        noise = multipliers * self._left_out_residuals()
        return self._descended(Targets(self.log_prediction() + noise, self.data.weights), count)

    def _left_out_residuals(self) -> Array:
        """How far each cluster would lie from a least-squares fit to all the others, about, (rows,).

        A robust fit goes through some of few runs exactly; least squares, with every cluster's pull on its own
        prediction undone (Bell and McCaffrey 2002), says how far off they may be.
        """
        assert self.solution is not None
        problem = self.solution.problem
        theta = problem.from_raw(self.under(row_loss(LossName.least_squares, np.inf))[None])
        residual = np.log(self.data.y) - problem.log_prediction(theta)[0]
        free = (theta[0] > problem.low) & (theta[0] < problem.high)
        root = np.sqrt(self.data.weights)
        slopes = root[:, None] * problem.jacobian(theta)[0][:, free]
        return leave_cluster_out(root * residual, slopes, self.clusters) / root

    def _score_draws(self, count: int, rng: np.random.Generator) -> Array:
        scores = self.scores(self.clusters.label, self.clusters.count)
        changes = np.empty((count, scores.shape[1]))
        for i in range(count):  # one draw at a time: weights for all would not fit in memory
            few = self.clusters.few
            factor = self.clusters.multipliers(1, rng) if few else self.clusters.counts(1, rng) - 1.0
            changes[i] = factor[0] @ scores
        return self._one_step(changes)

    def _one_step(self, changes: Array) -> Array:
        """One Newton step from the estimate for every change of the gradient (m, k): raw parameters."""
        assert self.solution is not None
        problem, theta = self.solution.problem, self.solution.theta[None]
        here = expand(problem, theta, self.data.targets(), np.zeros(1, dtype=np.intp))
        inside = (theta[0] > problem.low) & (theta[0] < problem.high)
        moved = np.tile(theta, (len(changes), 1))
        moved[:, inside] -= np.linalg.solve(here.hessian[0][np.ix_(inside, inside)], changes[:, inside].T).T
        return problem.to_raw(np.clip(moved, problem.low, problem.high))


def work_of(law: type[Any], x: Columns) -> int:
    """What one prediction of all rows costs, in rows of a sum of powers."""
    if isinstance(law, CostlyLaw):
        return GENERIC_WORK * law.work(x)
    rows = len(next(iter(x.values())))
    return rows if isinstance(law, PowerSum) else GENERIC_WORK * rows


def estimate(law: type[Any], data: Data, clusters: Clusters, method: Method) -> Estimate:
    """The point estimate. Raises `FitError` where the law or its procedure has none."""
    if not isinstance(law, EstimatedLaw):
        solution = solve(law, data, method.loss, method.pins, effort=method.effort)
        return Estimate(law, data, clusters, method, solution.raw, solution)
    raw = np.asarray(law.estimate(data.x, data.y, data.weights[None]))[0]
    if not np.isfinite(raw).all():
        raise FitError(
            f"the procedure of {law.name} has no answer for these {data.rows} runs",
            hint=f"scalecli laws show {law.name} says which it takes",
        )
    return Estimate(law, data, clusters, method, raw, None)
