"""Runs beyond the edge of a grid of learning rates and batches, where its best run was the outermost or none ended."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from scalecli.data.tables import RunTable
from scalecli.fitters.compare.curve import FLOPS_PER_PARAM_TOKEN
from scalecli.fitters.landscape.queries import INPUTS
from scalecli.fitters.landscape.runs import read_grid
from scalecli.fitters.landscape.survey import survey
from scalecli.fitters.law import Array, Columns

BEYOND = 2
"""Levels added on the missing side: one might be the new edge."""


def edge_runs(table: RunTable) -> list[dict[str, float]]:
    """For every setting whose best run is at an edge, runs further out in the steps of its own grid.

    Each is the setting's best run with one coordinate moved, with `flops` for its cost; cheapest first. Where all runs
    of a setting diverged, the one of the lowest rate takes the place of the best.
    Raises `DataError` for a table without batch sizes and learning rates.
    """
    x, y = read_grid(table.with_derived(INPUTS))
    runs = [
        run
        for report in survey(x, y)
        for axis, side in report.missing.items()
        for run in _further(x, y, report.params, report.tokens, axis, side)
    ]
    return sorted(runs, key=lambda run: run["flops"])


def _further(
    x: Columns, y: Array, params: float, tokens: float, axis: str, side: str
) -> Iterator[dict[str, float]]:
    here = np.isclose(x["params"], params, rtol=0.02) & np.isclose(x["tokens"], tokens, rtol=0.02)
    best = np.flatnonzero(here)[np.lexsort((x["learning_rate"][here], y[here]))[0]]
    tried = np.unique(x[axis][here])
    step = tried[1] / tried[0] if side == "below" else tried[-1] / tried[-2]
    for level in range(1, BEYOND + 1):
        run = {name: float(x[name][best]) for name in INPUTS}
        run[axis] *= float(step ** (-level if side == "below" else level))
        yield run | {"flops": FLOPS_PER_PARAM_TOKEN * run["params"] * run["tokens"]}
