"""A law and its data as a function to minimise, for many draws at once.

A draw is one set of row weights (a bootstrap resample, a row left out) or of measured values (a wild
bootstrap); all draws share the columns. Parameters are searched in coordinates that suit Newton steps,
`theta`; `to_raw` and `from_raw` translate to the law's own. There are two problems:
`power_sum.PowerSumProblem` (laws that are sums of power-law terms, exact Hessian) and
`generic.GenericProblem` (any law that has a gradient).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from scalecli.fitters.law import Array, Columns
from scalecli.fitters.objective import RowLoss

BLOCK_BYTES = 64 * 1024
"""Temporaries of shape (draws, rows) stay below this, so that they live in the cache and on the heap: with
blocks of 128 KiB and more, a bootstrap takes 1.5 times as long."""

Indices = NDArray[np.intp]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Data:
    """What a law is fitted to: its input columns, measured values and row weights, each of shape (rows,)."""

    x: Columns
    y: Array
    weights: Array

    @property
    def rows(self) -> int:
        return len(self.y)

    def take(self, rows: Indices | Mask) -> Data:
        return Data({name: column[rows] for name, column in self.x.items()}, self.y[rows], self.weights[rows])

    def targets(self) -> Targets:
        return Targets(np.log(self.y), self.weights)


@dataclass(frozen=True, slots=True)
class Targets:
    """Log of the measured values, and row weights; each of shape (rows,), or (draws, rows) where draws
    differ."""

    log_y: Array
    weights: Array

    def at(self, draws: Indices) -> Targets:
        """These draws only; what all draws share stays shared."""
        return Targets(*(part if part.ndim == 1 else part[draws] for part in (self.log_y, self.weights)))


@dataclass(frozen=True, slots=True)
class Expansion:
    """An objective to second order: value (draws,), gradient (draws, k), two matrices (draws, k, k).

    `majorizer` is that of iteratively reweighted least squares: positive semi-definite, which `hessian` need
    not be.
    """

    value: Array
    gradient: Array
    hessian: Array
    majorizer: Array

    @classmethod
    def zeros(cls, draws: int, size: int) -> Expansion:
        square = (draws, size, size)
        return cls(np.zeros(draws), np.zeros((draws, size)), np.zeros(square), np.zeros(square))

    def put(self, where: Indices | slice, other: Expansion) -> None:
        """Overwrite these draws with `other`."""
        self.value[where] = other.value
        self.gradient[where] = other.gradient
        self.hessian[where] = other.hessian
        self.majorizer[where] = other.majorizer

    def at(self, draws: Indices) -> Expansion:
        return Expansion(self.value[draws], self.gradient[draws], self.hessian[draws], self.majorizer[draws])


class Problem(Protocol):
    """What the solver needs of a law with data."""

    @property
    def law(self) -> type[Any]: ...
    @property
    def free(self) -> Indices:
        """The raw parameters that theta holds, in field order; the others are pinned."""
        ...

    @property
    def low(self) -> Array:
        """Lower bounds of theta, shape (k,)."""
        ...

    @property
    def high(self) -> Array: ...

    @property
    def loss(self) -> RowLoss: ...

    @property
    def rows(self) -> int: ...

    def with_loss(self, loss: RowLoss) -> Self:
        """The same law and data under another loss."""
        ...

    def around(self, theta: Array) -> Self:
        """The problem prepared for many draws that start at theta (k,)."""
        ...

    def expand_block(self, theta: Array, targets: Targets) -> Expansion:
        """The objective of a few draws, theta (draws, k)."""
        ...

    def log_prediction(self, theta: Array) -> Array:
        """(draws, rows)."""
        ...

    def jacobian(self, theta: Array) -> Array:
        """Derivatives of the log prediction by theta, (draws, rows, k)."""
        ...

    def to_raw(self, theta: Array) -> Array:
        """(draws, k) -> (draws, parameters)."""
        ...

    def from_raw(self, raw: Array) -> Array:
        """(draws, parameters) -> (draws, k)."""
        ...


def blocks(draws: int, row_values: int) -> Iterator[slice]:
    """Slices over draws such that one temporary with `row_values` numbers a draw stays within
    `BLOCK_BYTES`."""
    step = max(1, BLOCK_BYTES // (8 * max(1, row_values)))
    for start in range(0, draws, step):
        yield slice(start, min(start + step, draws))


def expand(problem: Problem, theta: Array, targets: Targets, draws: Indices) -> Expansion:
    """The objective of these draws of `targets` at theta (draws, k), block by block; infinite where
    undefined."""
    total = Expansion.zeros(*theta.shape)
    for block in blocks(len(theta), problem.rows):
        total.put(block, problem.expand_block(theta[block], targets.at(draws[block])))
    defined = np.isfinite(total.value) & np.isfinite(total.gradient).all(1)
    total.value[~(defined & np.isfinite(total.hessian).all((1, 2)))] = np.inf
    return total


def objective(problem: Problem, theta: Array, targets: Targets) -> Array:
    """The objective alone, of every theta (draws, k) on the same targets, or each on its own draw:
    (draws,)."""
    value = np.empty(len(theta))
    everything = np.arange(len(theta))
    for block in blocks(len(theta), problem.rows):
        part = targets.at(everything[block])
        value[block] = row_objective(problem.loss, problem.log_prediction(theta[block]), part)
    return value


def row_objective(loss: RowLoss, log_prediction: Array, targets: Targets) -> Array:
    """Sum of weighted losses over the last axis; infinite where the prediction is not a positive number."""
    value: Array = (targets.weights * loss.pieces(log_prediction - targets.log_y).value).sum(-1)
    return np.where(np.isfinite(value), value, np.inf)
