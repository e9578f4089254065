"""The range of the runs behind a fit, and how far from it a question lies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scalecli.fitters.law import Array, Columns, required_columns

SIZES = ("params", "params_non_embedding", "params_active")
GROWING = (*SIZES, "tokens", "steps", "step", "unique_tokens", "width", "depth")
"""Columns whose product is the scale of a run where its FLOPs are not known."""

Domain = Mapping[str, tuple[float, float]]
"""Column -> smallest and largest value among the runs."""


def with_compute(x: Columns) -> dict[str, Array]:
    """The columns, and `flops` = 6 params tokens where both are there and FLOPs are not."""
    columns = dict(x)
    size = next((name for name in SIZES if name in x), None)
    if "flops" not in x and size and "tokens" in x:
        columns["flops"] = 6 * x[size] * x["tokens"]
    return columns


def domain_of(law: type[Any], x: Columns) -> dict[str, tuple[float, float]]:
    """The range of the columns that the law reads, and of the compute that they imply."""
    read = {name: x[name] for name in dict.fromkeys((*law.inputs, *required_columns(law))) if name in x}
    return {name: (float(column.min()), float(column.max())) for name, column in with_compute(read).items()}


def extrapolation(domain: Domain, x: Columns) -> Array:
    """How far each row of `x` lies outside the domain, shape (rows,): 0 inside, else decades beyond its edge.

    The largest over columns, compute included: a large model on many tokens is far away even where runs of
    that size (on few tokens) and of that many tokens (at a small size) exist. For a column whose range
    touches 0 the unit is the width of the range, not the decade.
    """
    columns = {name: np.atleast_1d(column) for name, column in with_compute(x).items() if name in domain}
    rows = max((len(column) for column in columns.values()), default=1)
    distance = np.zeros(rows)
    for name, column in columns.items():
        low, high = domain[name]
        if low > 0 and (column > 0).all():
            beyond = np.maximum(np.log10(column / high), np.log10(low / column))
        else:
            width = high - low or 1.0
            beyond = np.maximum(column - high, low - column) / width
        distance = np.maximum(distance, beyond)
    return distance


def scale_of(law: type[Any], x: Columns, log_prediction: Array) -> Array:
    """By what rows are ordered from small to large, (rows,): log FLOPs, else the log of sizes, else falling
    loss."""
    columns = with_compute(x)
    if "flops" in columns:
        return np.asarray(np.log(columns["flops"]))
    growing = [np.log(x[name]) for name in GROWING if name in law.inputs and (x[name] > 0).all()]
    return np.sum(growing, axis=0) if growing else -log_prediction
