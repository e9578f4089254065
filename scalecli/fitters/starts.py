"""Where to start a search: points spread over the parameters' ranges, never at published values.

Parameters in which a law is linear are not searched at all: at every point they are solved for (variable
projection), which leaves one or two exponents where five parameters were, and starts in the right valley.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np

from scalecli.fitters.law import Array, linear_parameters, names, parameters, with_values
from scalecli.fitters.objective import RowLoss
from scalecli.fitters.problem import Data, Indices, Mask, blocks, row_objective

POINTS = 1024
"""Points of the profile: 32 levels for each of two exponents, say."""

SMALLEST_SHARE = 1e-3
"""A linear parameter that the profile sets to 0 starts at this share of the prediction: at 0 its gradient is
flat."""

RIDGE = 1e-12


def starting_points(
    law: type[Any], data: Data, loss: RowLoss, pins: Mapping[str, float], count: int
) -> Array:
    """Raw parameters of `count` starts, shape (count, parameters).

    Each start is the best of its own share of the points, and each share covers the whole range: starts are
    good and still far apart.
    """
    order = names(law)
    linear = [name for name in linear_parameters(law) if name not in pins]
    searched = [name for name in order if name not in pins and name not in linear]
    raw = np.ones((POINTS if searched else 1, len(order)))
    raw[:, [order.index(name) for name in pins]] = list(pins.values())
    raw[:, [order.index(name) for name in searched]] = _spread(law, searched, len(raw))
    with np.errstate(all="ignore"):  # points where the law is undefined have an infinite objective
        if linear:
            _project(law, data, raw, [order.index(name) for name in linear])
        value = _profile(law, data, loss, raw)
    shares = np.array_split(np.arange(len(raw)), min(count, len(raw)))
    return raw[[share[np.argmin(value[share])] for share in shares]]


def _spread(law: type[Any], searched: list[str], points: int) -> Array:
    """Points over the start ranges, (points, searched): an additive recurrence by powers of the generalised
    golden ratio, any run of which covers the cube evenly (Roberts 2018, the R_d sequence)."""
    if not searched:
        return np.empty((points, 0))
    golden = 2.0
    for _ in range(60):  # the positive root of g^(d+1) = g + 1
        golden = float((1 + golden) ** (1 / (len(searched) + 1)))
    unit = (0.5 + np.arange(1, points + 1)[:, None] * golden ** -np.arange(1.0, len(searched) + 1)) % 1
    columns = []
    for name, place in zip(searched, unit.T, strict=True):
        param = parameters(law)[name]
        low, high = param.start or (param.low, param.high)
        columns.append(low * (high / low) ** place if param.log else low + (high - low) * place)
    return np.stack(columns, axis=1)


def _profile(law: type[Any], data: Data, loss: RowLoss, raw: Array) -> Array:
    """The objective at every point, (points,)."""
    value = np.empty(len(raw))
    targets = data.targets()
    for block in blocks(len(raw), data.rows):
        prediction = np.log(with_values(law, raw[block]).predict(data.x))
        shape = (len(raw[block]), data.rows)
        value[block] = row_objective(loss, np.broadcast_to(prediction, shape), targets)
    return value


def _project(law: type[Any], data: Data, raw: Array, linear: list[int]) -> None:
    """Set the linear parameters of every point to their solution by least squares of relative residuals."""
    at_zero = raw.copy()
    at_zero[:, linear] = 0.0
    root = np.sqrt(data.weights)
    gram = np.empty((len(raw), len(linear), len(linear)))
    right = np.empty((len(raw), len(linear)))
    for block in blocks(len(raw), data.rows):
        shape = (len(raw[block]), data.rows)
        rest = np.broadcast_to(with_values(law, at_zero[block]).predict(data.x), shape)
        slopes = np.broadcast_to(with_values(law, raw[block]).gradient(data.x), (*shape, raw.shape[1]))
        basis = slopes[:, :, linear] * (root / data.y)[:, None]
        gram[block] = basis.transpose(0, 2, 1) @ basis
        right[block] = (((1 - rest / data.y) * root)[:, None, :] @ basis)[:, 0, :]
    # with columns of norm 1 a solution is a share of the prediction
    unit = np.sqrt(np.einsum("pmm->pm", gram) / data.weights.sum())
    unit = np.where(unit > 0, unit, 1.0)
    gram = gram / (unit[:, :, None] * unit[:, None, :]) + RIDGE * data.weights.sum() * np.eye(len(linear))
    raw[:, linear] = _least_squares(gram, right / unit, _non_negative(law, linear)) / unit


def _non_negative(law: type[Any], linear: list[int]) -> list[int]:
    """Which of the linear parameters may not be negative, as positions in `linear`."""
    params = list(parameters(law).values())
    return [i for i, which in enumerate(linear) if params[which].log or params[which].low >= 0]


def _least_squares(gram: Array, right: Array, non_negative: list[int]) -> Array:
    """Minimise c' gram c / 2 - right' c, (points, m), with some c not negative.

    Parameters that never meet in a row, such as those of different arms, are solved apart.
    """
    found = np.empty_like(right)
    for part in _parts(gram):
        own = [place for place, which in enumerate(part) if which in non_negative]
        found[:, part] = _best_of_zeros(gram[:, part[:, None], part], right[:, part], own)
    return found


def _parts(gram: Array) -> Iterator[Indices]:
    """Sets of parameters that are connected by a product that is not 0."""
    meet: Mask = (np.abs(gram) > RIDGE).any(axis=0) | np.eye(gram.shape[1], dtype=bool)
    left = set(range(len(meet)))
    while left:
        part, before = {min(left)}, 0
        while len(part) > before:
            before = len(part)
            part = set(np.flatnonzero(meet[sorted(part)].any(axis=0)).tolist())
        left -= part
        yield np.array(sorted(part), dtype=np.intp)


def _best_of_zeros(gram: Array, right: Array, non_negative: list[int]) -> Array:
    """The same for one set of parameters: the best of all sets of zeros."""
    best = np.zeros_like(right)
    gain = np.full(len(right), -np.inf)
    broken: Mask = np.logical_not(np.isfinite(gram).all((1, 2)) & np.isfinite(right).all(1))
    gram = np.where(broken[:, None, None], np.eye(right.shape[1]), gram)
    right = np.where(broken[:, None], np.nan, right)
    for kept in _subsets(right.shape[1], non_negative):
        solved = np.linalg.solve(gram[:, kept[:, None], kept], right[:, kept, None])[:, :, 0]
        full = np.zeros_like(right)
        full[:, kept] = solved
        fall = (full * right).sum(1)
        better: Mask = np.asarray((fall > gain) & (full[:, non_negative] >= 0).all(1))
        best[better], gain[better] = full[better], fall[better]
    best[:, non_negative] = np.maximum(best[:, non_negative], SMALLEST_SHARE)
    best[broken] = np.nan
    return best


def _subsets(size: int, droppable: list[int]) -> Iterator[Indices]:
    """Every set of positions that keeps all but some of the droppable ones; nothing kept is left out."""
    for dropped_count in range(len(droppable) + 1):
        for dropped in combinations(droppable, dropped_count):
            kept = np.setdiff1d(np.arange(size), dropped)
            if kept.size:
                yield kept
