"""The objective of laws that are sums of power-law terms, with its exact generalised Hessian.

Every term is s exp(G e) with its scale s, its exponents e, and features G that do not depend on either: the
logs of its columns, centred on the data. What is searched is therefore s, the term at the centre of the data,
as it is and not as its logarithm: the prediction is linear in it, floors and terms that trade against each
other do so along straight lines, and one that vanishes is found at its bound instead of on an endless way
there. Centring keeps a scale and its exponent apart, which are otherwise correlated to 0.999.

With q = exp(G e) / prediction for every term, the gradient and Hessian of a log residual are

    J = (q, s q G),    Hessian of r = sum over terms of (0, q G; q G, s q G'G) - J' J,

so that the objective's matrices are products of (parameters, rows) with (rows, parameters), one a draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations_with_replacement
from typing import Any, Self

import numpy as np

from scalecli.fitters.law import Array, Columns, Term, names, parameters
from scalecli.fitters.objective import RowLoss
from scalecli.fitters.problem import Data, Expansion, Indices, Targets

SCALE_RANGE = (1e-15, 1e7)
"""Bounds of a term at the centre of the data, in shares of the least and the largest measured value."""


@dataclass(frozen=True)
class Design:
    """One term on the data: theta[scale] x exp(offset + theta[exponents] @ features)."""

    name: str
    """The parameter that is the scale."""
    scale: int | None
    """Its position in theta; None for a pinned scale, which is part of the offset."""
    exponents: Indices
    """The m positions of the free exponents in theta."""
    features: Array
    """Signed logs of the columns, centred where the scale is free, (m, rows)."""
    offset: Array
    """What pinned parameters contribute, (rows,)."""
    centres: tuple[tuple[str, float], ...]
    """(exponent, signed mean log column): log scale = log theta - sum of exponent x centre. Empty for a pinned
    scale."""

    @cached_property
    def pairs(self) -> list[tuple[int, int]]:
        """Pairs of exponents, as positions among the term's own."""
        return list(combinations_with_replacement(range(len(self.features)), 2))

    @cached_property
    def products(self) -> Array:
        """The features and the products of their pairs, (rows, m + pairs)."""
        squares = [self.features[i] * self.features[j] for i, j in self.pairs]
        return np.stack([*self.features, *squares], axis=1)

    def basis(self, theta: Array) -> Array:
        """The term with its scale taken as 1, (draws, rows)."""
        return np.exp(self.offset + theta[:, self.exponents] @ self.features)

    def size(self, theta: Array) -> Array:
        """The scale, (draws, 1)."""
        return np.ones((len(theta), 1)) if self.scale is None else theta[:, self.scale, None]

    def add_slopes(self, jacobian: Array, share: Array, size: Array) -> None:
        """Add the derivatives of the log prediction, (draws, k, rows), from basis over prediction (draws, rows)."""
        if self.scale is not None:
            jacobian[:, self.scale] += share
        term = share * size
        for place, feature in zip(self.exponents, self.features, strict=True):
            jacobian[:, place] += term * feature

    def add_bends(self, hessian: Array, weighted: Array, size: Array) -> None:
        """Add the second derivatives of the term itself, from row weights x basis over prediction (draws, rows)."""
        if not len(self.features):
            return
        sums = weighted @ self.products
        if self.scale is not None:
            hessian[:, self.scale, self.exponents] += sums[:, : len(self.features)]
            hessian[:, self.exponents, self.scale] += sums[:, : len(self.features)]
        for (i, j), bend in zip(self.pairs, (size * sums[:, len(self.features) :]).T, strict=True):
            first, second = self.exponents[i], self.exponents[j]
            hessian[:, first, second] += bend
            if i != j:
                hessian[:, second, first] += bend


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
        low, high = _bounds(law, designs, free, data.y)
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
        return len(self.designs[0].offset)

    def with_loss(self, loss: RowLoss) -> Self:
        return replace(self, loss=loss)

    def around(self, theta: Array) -> Self:
        """The same problem: its second derivatives are exact and cost nothing."""
        del theta
        return self

    def log_prediction(self, theta: Array) -> Array:
        return np.asarray(np.log(sum(design.size(theta) * design.basis(theta) for design in self.designs)))

    def jacobian(self, theta: Array) -> Array:
        bases, total = self._prediction(theta)
        return self._slopes(theta, bases, total).transpose(0, 2, 1)

    def expand_block(self, theta: Array, targets: Targets) -> Expansion:
        bases, total = self._prediction(theta)
        loss = self.loss.pieces(np.log(total) - targets.log_y)
        pull = targets.weights * loss.first
        slopes = self._slopes(theta, bases, total)
        turned = slopes.transpose(0, 2, 1)
        hessian = (slopes * (targets.weights * loss.second - pull)[:, None, :]) @ turned
        pulled = pull / total
        for design, basis in zip(self.designs, bases, strict=True):
            design.add_bends(hessian, pulled * basis, design.size(theta))
        return Expansion(
            value=(targets.weights * loss.value).sum(1),
            gradient=(slopes @ pull[:, :, None])[:, :, 0],
            hessian=hessian,
            majorizer=(slopes * (targets.weights * loss.majorizer)[:, None, :]) @ turned,
        )

    def _prediction(self, theta: Array) -> tuple[list[Array], Array]:
        """The basis of every term and the prediction, (draws, rows) each."""
        bases = [design.basis(theta) for design in self.designs]
        total = self.designs[0].size(theta) * bases[0]
        for design, basis in zip(self.designs[1:], bases[1:], strict=True):
            total += design.size(theta) * basis
        return bases, total

    def _slopes(self, theta: Array, bases: list[Array], total: Array) -> Array:
        """Derivatives of the log prediction by theta, (draws, k, rows)."""
        found = np.zeros((len(theta), len(self.free), self.rows))
        for design, basis in zip(self.designs, bases, strict=True):
            design.add_slopes(found, basis / total, design.size(theta))
        return found

    def to_raw(self, theta: Array) -> Array:
        raw = np.tile(self.template, (len(theta), 1))
        raw[:, self.free] = theta
        return self._scales_moved(raw, -1.0)

    def from_raw(self, raw: Array) -> Array:
        return self._scales_moved(raw.copy(), 1.0)[:, self.free]

    def _scales_moved(self, parameters: Array, sign: float) -> Array:
        """Scales to the centre of the data (sign 1) and back (sign -1), in place."""
        order = names(self.law)
        for design in self.designs:
            shift = np.zeros(len(parameters))
            for exponent, centre in design.centres:
                shift += parameters[:, order.index(exponent)] * centre
            parameters[:, order.index(design.name)] *= np.exp(sign * shift)
        return parameters


def _design(term: Term, x: Columns, pins: Mapping[str, float], free: list[str]) -> Design:
    offset = np.full(len(next(iter(x.values()))), np.log(pins.get(term.scale, 1.0)))
    own = np.ones(len(offset), dtype=bool) if term.only is None else x[term.only] > 0
    offset = np.where(own, offset, -np.inf)
    features: dict[str, Array] = {}
    centres = []
    for column, exponent, sign in term.powers():
        signed = sign * np.log(x[column])
        if term.scale not in pins:
            centre = float(signed[own].mean())
            centres.append((exponent, centre))
            signed = signed - centre
        if exponent in pins:
            offset = offset + pins[exponent] * signed
        else:
            features[exponent] = features.get(exponent, 0.0) + signed
    return Design(
        name=term.scale,
        scale=None if term.scale in pins else free.index(term.scale),
        exponents=np.array([free.index(name) for name in features], dtype=np.intp),
        features=np.array(list(features.values())).reshape(len(features), len(offset)),
        offset=offset,
        centres=tuple(centres),
    )


def _bounds(law: type[Any], designs: tuple[Design, ...], free: list[str], y: Array) -> tuple[Array, Array]:
    """Bounds of theta: a parameter's own, but a wide range round the data for centred scales."""
    bounds = {name: (param.low, param.high) for name, param in parameters(law).items()}
    for design in designs:
        if design.centres:
            bounds[design.name] = (SCALE_RANGE[0] * float(y.min()), SCALE_RANGE[1] * float(y.max()))
    return np.array([bounds[name][0] for name in free]), np.array([bounds[name][1] for name in free])
