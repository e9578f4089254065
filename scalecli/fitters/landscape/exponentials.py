"""The exponential form: a sum of three exponentials of affine logs, whose optimum is an exact power law."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from scalecli.fitters.landscape.form import Normal
from scalecli.fitters.landscape.grid import OFF, Grid, Optimum
from scalecli.fitters.law import Array, with_values

FASTEST = 1.5
"""An optimum that moves with a larger power of params or tokens is none: noise bent the terms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exponentials:
    """Sum over k of exp(level_k + params_k n + tokens_k t + rate_k r + batch_k b), in centred logs.

    Any three terms will do; they are named for what usually plays their part: `slow` falls with the rate,
    `hot` rises with it, `coarse` rises with the batch. With `level_coarse` at `OFF` two terms remain and
    the batch is left out. The optimum solves sum_k w_k (rate_k, batch_k) = 0 and exists where 0 lies
    between the (rate_k, batch_k). Each field is (draws, 1).
    """

    level_slow: Annotated[Array, Normal(-3.0, 3.0)]
    params_slow: Annotated[Array, Normal(0.0, 1.0)]
    tokens_slow: Annotated[Array, Normal(0.0, 1.0)]
    rate_slow: Annotated[Array, Normal(-0.7, 0.7)]
    batch_slow: Annotated[Array, Normal(0.0, 0.7)]
    level_hot: Annotated[Array, Normal(-3.0, 3.0)]
    params_hot: Annotated[Array, Normal(0.0, 1.0)]
    tokens_hot: Annotated[Array, Normal(0.0, 1.0)]
    rate_hot: Annotated[Array, Normal(0.7, 0.7)]
    batch_hot: Annotated[Array, Normal(0.0, 0.7)]
    level_coarse: Annotated[Array, Normal(-3.0, 3.0)]
    params_coarse: Annotated[Array, Normal(0.0, 1.0)]
    tokens_coarse: Annotated[Array, Normal(0.0, 1.0)]
    rate_coarse: Annotated[Array, Normal(0.0, 0.7)]
    batch_coarse: Annotated[Array, Normal(0.7, 0.7)]

    def height(self, grid: Grid) -> tuple[Array, Array]:
        axes = np.stack([np.ones_like(grid.rate), grid.params, grid.tokens, grid.rate, grid.batch])
        terms = [np.exp(np.concatenate(c, axis=1) @ axes) for c in (self._slow, self._hot, self._coarse)]
        height: Array = terms[0] + terms[1] + terms[2]
        return height, np.concatenate([term[:, None] * axes for term in terms], axis=1)

    @property
    def _slow(self) -> tuple[Array, ...]:
        return self.level_slow, self.params_slow, self.tokens_slow, self.rate_slow, self.batch_slow

    @property
    def _hot(self) -> tuple[Array, ...]:
        return self.level_hot, self.params_hot, self.tokens_hot, self.rate_hot, self.batch_hot

    @property
    def _coarse(self) -> tuple[Array, ...]:
        return self.level_coarse, self.params_coarse, self.tokens_coarse, self.rate_coarse, self.batch_coarse

    def optimum(self) -> Optimum:
        """Where log w_k = level_k + ... meets log p_k + const, p the positive null vector of the slopes."""
        terms = np.stack(
            [np.concatenate(term, axis=1) for term in (self._slow, self._hot, self._coarse)], axis=1
        )
        found = _rate_only(terms[:, :2]) if np.all(self.level_coarse == OFF) else _both(terms)
        racing = (np.abs(np.nan_to_num(np.stack([found.rate, found.batch])[..., 1:])) > FASTEST).any(
            axis=(0, 2)
        )
        found.rate[racing], found.batch[racing] = np.nan, np.nan
        return found


def _both(terms: Array) -> Optimum:
    """Three terms (draws, 3, 5) in rate and batch."""
    slopes, levels = terms[..., 3:], terms[..., :3].copy()
    shares = np.cross(slopes[..., 0], slopes[..., 1])
    inside = np.abs(np.sign(shares).sum(axis=1)) == 3
    levels[..., 0] -= np.log(np.where(inside[:, None], np.abs(shares), 1.0))
    matrix = np.concatenate([slopes, -np.ones_like(slopes[..., :1])], axis=2)
    matrix[~inside] = np.eye(3)
    where = np.linalg.solve(matrix, -levels)
    where[~inside] = np.nan
    return Optimum(rate=where[:, 0], batch=where[:, 1])


def _rate_only(terms: Array) -> Optimum:
    """Two terms (draws, 2, 5) in the rate alone: exp(...) rate_1 + exp(...) rate_2 = 0."""
    slopes, levels = terms[..., 3], terms[..., :3].copy()
    inside = slopes[:, 0] * slopes[:, 1] < 0
    levels[..., 0] += np.log(np.where(inside[:, None], np.abs(slopes), 1.0))
    gap = np.where(inside, slopes[:, 1] - slopes[:, 0], np.nan)
    rate = (levels[:, 0] - levels[:, 1]) / gap[:, None]
    return Optimum(rate=rate, batch=np.full_like(rate, np.nan))


def around(optimum: Optimum, curvature: Array, reach: float, turn: float) -> Exponentials:
    """Three equal terms with this optimum and curvature (one draw); `reach` scales their slopes, `turn` turns them."""
    rate, cross, batch = curvature[0]
    if np.isnan(optimum.batch).any():
        return _around_rate(optimum.rate[0], rate, reach)
    factor = np.linalg.cholesky(np.array([[rate, cross], [cross, batch]]))
    size = np.sqrt((rate + batch) / 2)
    angles = turn + 2 * np.pi * np.arange(3) / 3 + np.pi
    slopes = reach * np.stack([np.cos(angles), np.sin(angles)], axis=1) @ factor.T / size
    level = np.log(size**2 / (1.5 * reach**2))
    where = np.stack([optimum.rate[0], optimum.batch[0]])
    levels = -slopes @ where
    levels[:, 0] += level
    return with_values(Exponentials, np.concatenate([levels, slopes], axis=1).reshape(1, 15))


def _around_rate(rate: Array, curvature: float, reach: float) -> Exponentials:
    """Two equal terms, the third off."""
    level = np.array([np.log(curvature / (2 * reach**2)), 0.0, 0.0])
    slow, hot = [*(level + reach * rate), -reach, 0.0], [*(level - reach * rate), reach, 0.0]
    return with_values(Exponentials, np.array([[*slow, *hot, OFF, 0.0, 0.0, 0.0, 0.0]]))
