"""The objective of laws that are sums of power-law terms, with its exact generalised Hessian.

Every term is exp(c + F theta) with features F that do not depend on theta: a 1 for the log of its scale and
the centred log of a column for every exponent. Hence log prediction = logsumexp over terms, and with p the
terms' shares of the prediction, gradient and Hessian of a residual are moments of the features under p:

    J = sum_k p_k F_k,    Hessian of r = sum_k p_k F_k' F_k - J' J.

Summed over rows they become thin matrix products of (draws, rows) weights with (rows, features) products, so
that a thousand resamples share one design. Logs are centred because a scale and its exponent are otherwise
correlated to 0.999 (the condition of J'J falls from 1e6 to 1e3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from scalecli.fitters.law import Array, Columns, Term, names, parameters
from scalecli.fitters.objective import RowLoss
from scalecli.fitters.problem import Data, Expansion, Indices, Targets

SCALE_RANGE = (-35.0, 15.0)
"""How far the log of a term at the centre of the data may lie from the log of what was measured."""


@dataclass(frozen=True)
class Design:
    """One term on the data: log term = offset + features @ theta[where]."""

    offset: Array | float
    """Shape (rows,), or 0: what pinned parameters contribute."""
    features: Array
    """Shape (rows, m)."""
    where: Indices
    """The m positions in theta."""
    centres: tuple[tuple[str, float], ...]
    """(exponent, signed mean log column): log scale = theta - sum of exponent x centre. Empty for a pinned
    scale."""
    scale: str


@dataclass(frozen=True)
class PowerSumProblem:
    """A `PowerSum` law on data. See `problem.Problem` for the attributes."""

    law: type[Any]
    loss: RowLoss
    designs: tuple[Design, ...]
    template: Array
    """Raw parameters, shape (parameters,); only the pinned entries count."""
    free: Indices
    low: Array
    high: Array

    @classmethod
    def build(cls, law: type[Any], data: Data, loss: RowLoss, pins: Mapping[str, float]) -> PowerSumProblem:
        order = names(law)
        free = [name for name in order if name not in pins]
        designs = tuple(_design(term, data.x, pins, free) for term in law.terms)
        low, high = _bounds(law, designs, free, np.log(data.y))
        return cls(
            law=law,
            loss=loss,
            designs=designs,
            template=np.array([pins.get(name, np.nan) for name in order]),
            free=np.array([order.index(name) for name in free], dtype=np.intp),
            low=low,
            high=high,
        )

    @property
    def rows(self) -> int:
        return len(self.designs[0].features)

    @cached_property
    def products(self) -> dict[tuple[int, int], Array]:
        """Products of the features of two terms, (rows, m_k m_l), for k <= l."""
        return {
            (k, m): (first.features[:, :, None] * second.features[:, None, :]).reshape(self.rows, -1)
            for k, first in enumerate(self.designs)
            for m, second in enumerate(self.designs)
            if k <= m
        }

    def terms(self, theta: Array) -> list[Array]:
        """The terms of the prediction, (draws, rows) each."""
        return [np.exp(d.offset + theta[:, d.where] @ d.features.T) for d in self.designs]

    def with_loss(self, loss: RowLoss) -> Self:
        return replace(self, loss=loss)

    def around(self, theta: Array) -> Self:
        """The same problem: its second derivatives are exact and cost nothing."""
        del theta
        return self

    def log_prediction(self, theta: Array) -> Array:
        return np.asarray(np.log(sum(self.terms(theta))))

    def jacobian(self, theta: Array) -> Array:
        terms = self.terms(theta)
        total = sum(terms)
        found = np.zeros((*terms[0].shape, len(self.free)))
        for design, term in zip(self.designs, terms, strict=True):
            found[..., design.where] += (term / total)[..., None] * design.features
        return found

    def expand_block(self, theta: Array, targets: Targets) -> Expansion:
        shares = self.terms(theta)
        total = shares[0].copy()
        for share in shares[1:]:
            total += share
        for share in shares:
            share /= total
        loss = self.loss.pieces(np.log(total) - targets.log_y)
        found = Expansion.zeros(*theta.shape)
        found.value[:] = (targets.weights * loss.value).sum(1)
        pull = targets.weights * loss.first
        major = targets.weights * loss.majorizer
        bend = targets.weights * loss.second - pull
        for k, (design, share) in enumerate(zip(self.designs, shares, strict=True)):
            weighted = pull * share
            found.gradient[:, design.where] += weighted @ design.features
            self._add(found.hessian, k, k, weighted)
            for m in range(k, len(shares)):
                both = share * shares[m]
                self._add(found.hessian, k, m, bend * both)
                self._add(found.majorizer, k, m, major * both)
        return found

    def _add(self, matrix: Array, k: int, m: int, row_weights: Array) -> None:
        """Add sum over rows of row_weights x features_k' features_m, and its transpose for different
        terms."""
        first, second = self.designs[k].where, self.designs[m].where
        block = (row_weights @ self.products[k, m]).reshape(len(matrix), len(first), len(second))
        matrix[:, first[:, None], second] += block
        if k != m:
            matrix[:, second[:, None], first] += block.transpose(0, 2, 1)

    def to_raw(self, theta: Array) -> Array:
        raw = np.tile(self.template, (len(theta), 1))
        raw[:, self.free] = theta
        order = names(self.law)
        for design in self.designs:
            scale = order.index(design.scale)
            if scale in self.free:
                raw[:, scale] = np.exp(raw[:, scale] - self._shift(design, raw))
        return raw

    def from_raw(self, raw: Array) -> Array:
        order = names(self.law)
        theta = raw.copy()
        for design in self.designs:
            scale = order.index(design.scale)
            theta[:, scale] = np.log(raw[:, scale]) + self._shift(design, raw)
        return theta[:, self.free]

    def _shift(self, design: Design, raw: Array) -> Array:
        """Log of the term at the centre of the data less the log of its scale, (draws,)."""
        order = names(self.law)
        shift = np.zeros(len(raw))
        for exponent, centre in design.centres:
            shift += raw[:, order.index(exponent)] * centre
        return shift


def _design(term: Term, x: Columns, pins: Mapping[str, float], free: list[str]) -> Design:
    rows = len(next(iter(x.values())))
    offset: Array | float = 0.0
    features: dict[str, Array] = {}
    centres = []
    if term.scale in pins:
        offset = np.full(rows, np.log(pins[term.scale]))
    else:
        features[term.scale] = np.ones(rows)
    for column, exponent, sign in term.powers():
        signed = sign * np.log(x[column])
        if term.scale not in pins:
            centres.append((exponent, float(signed.mean())))
            signed = signed - signed.mean()
        if exponent in pins:
            offset = offset + pins[exponent] * signed
        else:
            features[exponent] = features.get(exponent, 0.0) + signed
    where = np.array([free.index(name) for name in features], dtype=np.intp)
    stacked = np.stack(list(features.values()), axis=1) if features else np.empty((rows, 0))
    return Design(offset, stacked, where, tuple(centres), term.scale)


def _bounds(
    law: type[Any], designs: tuple[Design, ...], free: list[str], log_y: Array
) -> tuple[Array, Array]:
    """Bounds of theta: an exponent's own, a constant's own, a wide range round the data for centred
    scales."""
    bounds = {name: (param.low, param.high) for name, param in parameters(law).items()}
    for design in designs:
        low, high = bounds[design.scale]
        bounds[design.scale] = (float(np.log(low)), float(np.log(high)))
        if design.centres:
            bounds[design.scale] = (float(log_y.min()) + SCALE_RANGE[0], float(log_y.max()) + SCALE_RANGE[1])
    return np.array([bounds[name][0] for name in free]), np.array([bounds[name][1] for name in free])
