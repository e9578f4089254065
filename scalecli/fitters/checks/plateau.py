"""Runs on a plateau: those whose loss one of the law's axes can hardly lower any more.

A loss that size, data and steps lower by themselves is flat in each of them where another one is short (Bahri et
al. 2021; Maloney et al. 2022): runs there say little of that axis's exponent, and nothing is gained by going on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from scalecli.data.notes import Notice
from scalecli.fitters.domain import GROWING, SIZES
from scalecli.fitters.law import Array, Columns, EstimatedLaw, measured_column

SOURCES = ("bahri2021", "maloney2022")

ENDLESS = 1e6
"""So many times as much of an axis leaves nothing of its term, whatever the exponent."""

MANY = 0.25
"""A share of the runs from which on a plateau is worth a warning."""

ROBUST = 1.4826
"""Standard deviation over median absolute deviation, for normal errors."""


@dataclass(frozen=True, slots=True)
class Plateau:
    """How many of the runs an axis can lower by less than their scatter (relative) even if it were endless."""

    axis: str
    runs: int
    of: int
    scatter: float

    def document(self) -> dict[str, Any]:
        return asdict(self)


def plateaus(law: Any, x: Columns, residual: Array) -> list[Plateau]:
    """One entry for each growing axis of a law of the loss; `residual` (rows,) is log measured over predicted."""
    kind = type(law)
    if measured_column(kind) != "loss" or isinstance(kind, EstimatedLaw) or kind.output != "loss":
        return []
    scatter = ROBUST * float(np.median(np.abs(residual - np.median(residual))))
    here = law.predict(x)
    found = []
    for axis in (name for name in GROWING if name in kind.inputs):
        with np.errstate(all="ignore"):
            gain = np.log(here / law.predict(_grown(x, axis)))
        found.append(Plateau(axis, int((gain < scatter).sum()), len(residual), scatter))
    return found


def notices(found: list[Plateau]) -> Iterator[Notice]:
    for plateau in found:
        if plateau.scatter > 0 and plateau.runs > MANY * plateau.of:
            yield Notice(
                "W-PLATEAU",
                f"{plateau.runs} of {plateau.of} runs lie on the plateau of {plateau.axis}: by the law, endless "
                f"{plateau.axis} would lower their loss by less than they scatter, {plateau.scatter:.2%} "
                f"({', '.join(SOURCES)})",
            )


def _grown(x: Columns, axis: str) -> dict[str, Array]:
    """The columns with the axis grown, and compute with it."""
    grown = dict(x) | {axis: x[axis] * ENDLESS}
    if "flops" in x and axis in (*SIZES, "tokens"):
        grown["flops"] = x["flops"] * ENDLESS
    return grown
