"""Loss curves under any learning-rate schedule."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from scalecli.fitters.law import Array, Columns, Param

PIECES = 3
"""Pieces into which a warm-up is cut, and the change of the rate right before a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiPower:
    """L(t) = L0 + A S(t)^-alpha - B sum_k (r_(k-1) - r_k) (1 - (1 + C r_k^-gamma S_k(t))^-beta)  [nats/token].

    r_k: learning rate at step k; S(t): sum of the rates up to step t; S_k(t): that from step k on. Every
    fall of the rate lowers the loss, the more the longer ago it was. Luo et al. 2025.

    One row is one point of a training's loss curve, and `learning_rate` the rate at that step. Rows of a
    training stand together in order of `steps`; where the steps do not rise the next training begins. Between
    rows the rate is a line, and before the first, which best ends the warm-up, a line from 0 at step 0.
    """

    name: ClassVar[str] = "multi-power"
    inputs: ClassVar[tuple[str, ...]] = ("steps", "learning_rate")
    output: ClassVar[str] = "loss"
    sources: ClassVar[tuple[str, ...]] = ("luo2025",)
    linear: ClassVar[tuple[str, ...]] = ("L0", "A", "B")

    L0: Annotated[float, Param(1e-6, 20.0, unit="nats/token", log=True)]
    A: Annotated[float, Param(1e-9, 1e6, unit="nats/token", log=True)]
    alpha: Annotated[float, Param(0.01, 2.5, start=(0.1, 1.0))]
    B: Annotated[float, Param(1e-6, 1e9, unit="nats/token", log=True)]
    C: Annotated[float, Param(1e-20, 1e9, log=True, start=(1e-2, 1e2))]
    beta: Annotated[float, Param(0.01, 2.5, start=(0.1, 1.0))]
    gamma: Annotated[float, Param(0.0, 4.0, start=(0.1, 1.0))]

    @classmethod
    def clusters(cls, x: Columns) -> NDArray[np.intp]:
        """The training of each row."""
        return np.concatenate([[0], np.cumsum(np.diff(x["steps"]) <= 0)])

    @classmethod
    def work(cls, x: Columns) -> int:
        """Every row goes through all earlier falls of the rate."""
        return max(len(x["steps"]), len(_history_of(x)[1].size))

    def predict(self, x: Columns) -> Array:
        total, falls = _history_of(x)
        _, left = self._left(falls)
        return np.asarray(self.L0 + self.A * total**-self.alpha - self.B * falls.summed(1 - left))

    def gradient(self, x: Columns) -> Array:
        total, falls = _history_of(x)
        log_grown, left = self._left(falls)
        fading = -self.beta * left * np.expm1(-log_grown)
        power = total**-self.alpha
        slopes = [
            np.ones_like(power),
            power,
            -self.A * power * np.log(total),
            -falls.summed(1 - left),
            -self.B * falls.summed(fading) / self.C,
            -self.B * falls.summed(left * log_grown),
            self.B * falls.summed(fading * falls.log_rate),
        ]
        return np.stack(np.broadcast_arrays(*slopes), axis=-1)

    def _left(self, falls: _Falls) -> tuple[Array, Array]:
        """ln(1 + u) with u = C r^-gamma S, and (1 + u)^-beta: the share of a fall's effect still to come."""
        log_grown = np.log1p(np.exp(np.log(self.C) - self.gamma * falls.log_rate + falls.log_since))
        return log_grown, np.asarray(np.exp(-self.beta * log_grown))


@dataclass(frozen=True, slots=True)
class _Falls:
    """Every pair of a row and an earlier fall of the rate in the same training, sorted by row; (pairs,) each."""

    rows: int
    size: Array
    """By how much the rate fell; negative where it rose."""
    log_rate: Array
    """Log of the rate after the fall."""
    log_since: Array
    """Log of the sum of the rates from the fall to the row."""
    present: NDArray[np.intp]
    """Rows that have a pair, and where the pairs of each begin: `first`."""
    first: NDArray[np.intp]

    def summed(self, effect: Array) -> Array:
        """Sum of size x effect over the falls before each row: (..., pairs) -> (..., rows)."""
        sums = np.zeros((*effect.shape[:-1], self.rows))
        sums[..., self.present] = np.add.reduceat(effect * self.size, self.first, axis=-1)
        return sums


def _history_of(x: Columns) -> tuple[Array, _Falls]:
    return _history(*(np.ascontiguousarray(x[name]).tobytes() for name in MultiPower.inputs))


@lru_cache(maxsize=8)
def _history(steps_bytes: bytes, rate_bytes: bytes) -> tuple[Array, _Falls]:
    """The sum of the rates up to each row, warm-up included, and the falls before it.

    Takes columns as bytes, so that the many evaluations of one fit share the work.
    """
    steps, rate = np.frombuffer(steps_bytes), np.frombuffer(rate_bytes)
    total = np.empty(len(steps))
    parts = []
    for rows in np.split(np.arange(len(steps)), np.flatnonzero(np.diff(steps) <= 0) + 1):
        rise = np.linspace(0.0, 1.0, PIECES + 1)
        at = np.concatenate([rise[:-1] * steps[rows[0]], steps[rows]])
        path = np.concatenate([rise[:-1] * rate[rows[0]], rate[rows]])
        total[rows] = _sums(at, path)[PIECES:]
        own_row, *rest = _falls_of(at, path, PIECES)
        parts.append((rows[own_row], *rest))
    row, size, reached, since = (np.concatenate(part) for part in zip(*parts, strict=True))
    present, first = np.unique(row, return_index=True)
    return total, _Falls(len(steps), size, np.log(reached), np.log(since), present, first)


def _sums(at: Array, path: Array) -> Array:
    """Sum of the rates from step 0 to each point, the rate being a line between points."""
    return np.concatenate([[0.0], np.cumsum((path[1:] + path[:-1]) / 2 * np.diff(at))])


def _falls_of(at: Array, path: Array, skipped: int) -> list[Any]:
    """Row, size, rate after, and sum since, of every pair in one training; its first points are not rows.

    A fall between two points stands in the middle; for the row right after it, where its effect grows fast,
    it is cut into pieces.
    """
    sums, lengths, size = _sums(at, path), np.diff(at), path[:-1] - path[1:]
    points = np.arange(len(at))[:, None]
    row, fall = np.nonzero((points > points[:-1].T + 1) & (points >= skipped) & (size != 0))
    recent = np.flatnonzero((size != 0) & (points[1:, 0] >= skipped))
    place, share = np.full(len(row), 0.5), np.ones(len(row))
    pieces = (np.arange(PIECES) + 0.5) / PIECES
    row = np.concatenate([row, np.tile(recent + 1, PIECES)])
    fall = np.concatenate([fall, np.tile(recent, PIECES)])
    place = np.concatenate([place, np.repeat(pieces, len(recent))])
    share = np.concatenate([share, np.full(PIECES * len(recent), 1 / PIECES)])
    reached = path[fall] - place * size[fall]
    since = sums[row] - sums[fall] - (path[fall] + reached) / 2 * place * lengths[fall]
    order = np.argsort(row, kind="stable")
    return [column[order] for column in (row - skipped, share * size[fall], reached, since)]
