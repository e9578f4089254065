"""Which parts of the runs to leave out, to see how much of a fit's answer rests on them.

Published optima of one law over one set of runs move by factors with the checkpoints, shapes and learning rates that
are fitted (McLeish et al. 2025, Gemstones, section 4): the spread over such choices belongs to the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalecli.data.tables import RunTable
from scalecli.fitters.checks.repeats import trainings_of
from scalecli.fitters.checks.unread import AXES, IGNORED
from scalecli.fitters.law import required_columns

Labels = NDArray[Any]

MOST_LEVELS = 8
"""A column of more levels is cut into three parts."""

PARTS = ("low", "middle", "high")

LEAST_SHARE = 0.5
"""Leaving out more of the runs than this is no check of a fit but another one."""


def subsets_of(table: RunTable, law: type[Any]) -> dict[str, Labels]:
    """Column -> the part of each row, (rows,), for every setting that varies, shapes and shares of training too.

    Columns that the law reads are left to the hold-outs by scale.
    """
    read = {"params", "tokens", "flops", *required_columns(law)}
    return {
        name: labels for name, labels in _columns(table) if name not in read and len(np.unique(labels)) > 1
    }


def _columns(table: RunTable) -> Iterator[tuple[str, Labels]]:
    for name in map(str, table.frame.columns):
        values = table.frame[name]
        if name not in IGNORED and values.dtype == object and not values.isna().any():
            texts = values.to_numpy().astype(str)
            if len(np.unique(texts)) <= MOST_LEVELS:
                yield name, texts
    for name, numbers in _numbers(table):
        yield name, _parts(numbers)


def _numbers(table: RunTable) -> Iterator[tuple[str, NDArray[np.float64]]]:
    for name in AXES:
        if (numbers := table.positive(name)) is not None:
            yield name, numbers
    width, depth = table.positive("width"), table.positive("depth")
    if width is not None and depth is not None:
        yield "width / depth", width / depth
    tokens, training = table.positive("tokens"), trainings_of(table)
    if tokens is not None and training is not None:
        longest = table.frame.assign(_tokens=tokens).groupby(training)["_tokens"].transform("max")
        yield "share of training", tokens / longest.to_numpy(dtype=float)


def _parts(numbers: NDArray[np.float64]) -> Labels:
    """The values themselves where they are few, else the third that each lies in."""
    levels = np.unique(numbers)
    if len(levels) <= MOST_LEVELS:
        return np.array([f"{value:.6g}" for value in numbers])
    edges = np.quantile(numbers, [1 / 3, 2 / 3])
    return np.array(PARTS)[np.searchsorted(edges, numbers, side="right")]


def left_out(subsets: Mapping[str, Labels]) -> list[tuple[str, str, NDArray[np.bool_]]]:
    """(column, part, rows without that part) of every choice that leaves at least half of the runs."""
    return [
        (name, str(part), labels != part)
        for name, labels in subsets.items()
        for part in np.unique(labels)
        if (labels != part).mean() >= LEAST_SHARE
    ]
