"""Is a ladder of proxies itself efficient? Shapes that lose to cheaper ones bend every law that is fitted to them.

Tay et al. 2021 (Scale Efficiently) find common rungs off the Pareto front, and deep, narrow ones on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scalecli.data.notes import Notice
from scalecli.data.tables import RunTable
from scalecli.errors import DataError, TooFewRuns
from scalecli.fitters.law import Array
from scalecli.fitters.problem import Mask

SOURCE = "tay2021"

SHAPE = ("params", "width", "depth")
"""Columns that tell one rung from another; those that the table has."""

FEWEST_RUNGS = 3

OFF_FRONT = 0.003
"""A rung whose best run is further above the front than 0.3 % in loss is inefficient; seeds differ by about that."""


@dataclass(frozen=True, slots=True)
class Rung:
    """A shape, how many of its runs are efficient, how far its nearest run lies above the front (log loss), and the
    shape that beats it there for less."""

    shape: dict[str, float]
    runs: int
    efficient: int
    excess: float
    beaten_by: dict[str, float] | None

    def document(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "runs": self.runs,
            "efficient_runs": self.efficient,
            "excess": self.excess,
            "beaten_by": self.beaten_by,
        }


def ladder_check(table: RunTable, along: str) -> dict[str, Any]:
    """The document of `scalecli validate --ladder`: every rung against the Pareto front of loss over a cost.

    `along` is the cost: flops, params, device_hours. Raises `DataError` for a table without it, `TooFewRuns` for
    fewer than three rungs.
    """
    table = table.with_derived([along])
    cost, loss = table.columns([along])[along], table.columns(["loss"])["loss"]
    if (cost <= 0).any() or (loss <= 0).any():
        raise DataError(f"{along} and loss are positive in every row of a ladder")
    shapes = _shapes(table)
    rungs, label = np.unique(np.stack(list(shapes.values()), axis=1), axis=0, return_inverse=True)
    if len(rungs) < FEWEST_RUNGS:
        raise TooFewRuns(
            f"{len(rungs)} shapes ({', '.join(shapes)}) in {table.source}; a ladder has {FEWEST_RUNGS} at least",
            hint="--map params=THEIR_NAME, width=..., depth=...",
        )
    front = _front(cost, loss)
    found = [
        _rung(dict(zip(shapes, rung, strict=True)), label == i, cost, loss, front, shapes)
        for i, rung in enumerate(rungs)
    ]
    return {
        "schema": "scalecli/ladder-check/1",
        "along": along,
        "source": SOURCE,
        "rungs": [rung.document() for rung in found],
        "warnings": [{"code": n.code, "message": n.message} for n in _notices(found, along)],
    }


def _shapes(table: RunTable) -> dict[str, Array]:
    known = {name: values for name in SHAPE if (values := table.positive(name)) is not None}
    if not known:
        raise DataError(
            f"nothing in {table.source} tells one rung from another ({', '.join(SHAPE)})",
            hint="--map params=...",
        )
    return known


def _front(cost: Array, loss: Array) -> Mask:
    """The runs that no run of the same cost or less beats, (rows,)."""
    order = np.lexsort((loss, cost))
    best = np.minimum.accumulate(loss[order])
    front = np.zeros(len(loss), dtype=bool)
    front[order] = np.concatenate([[True], best[1:] < best[:-1]])
    return front


def _rung(
    shape: dict[str, float], own: Mask, cost: Array, loss: Array, front: Mask, shapes: dict[str, Array]
) -> Rung:
    order = np.flatnonzero(front)[np.argsort(cost[front])]
    place = np.searchsorted(cost[order], cost[own], side="right") - 1
    rival = order[place]  # the best run of at most the same cost
    above = np.log(loss[own] / loss[rival])
    nearest = int(np.argmin(above))
    beaten = above[nearest] > 0
    return Rung(
        shape={name: float(value) for name, value in shape.items()},
        runs=int(own.sum()),
        efficient=int(front[own].sum()),
        excess=float(above[nearest]),
        beaten_by={name: float(values[rival[nearest]]) for name, values in shapes.items()}
        if beaten
        else None,
    )


def _notices(rungs: list[Rung], along: str) -> list[Notice]:
    off = [rung for rung in rungs if rung.excess > OFF_FRONT]
    if not off:
        return []
    said = "; ".join(f"{_said(rung.shape)} (by {rung.excess:.1%})" for rung in off[:3])
    better = (
        f"another shape may do better ({SOURCE}: deep and narrow ones)"
        if {"width", "depth"} & off[0].shape.keys()
        else "they were trained for too long or too short, or their shape (--map width=..., depth=...) is a bad one"
    )
    return [
        Notice(
            "W-LADDER",
            f"{len(off)} of {len(rungs)} rungs lose to others at the same {along} or less: {said}. A law over the "
            f"ladder bends with them; {better}",
        )
    ]


def _said(shape: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in shape.items())
