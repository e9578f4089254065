"""On which side of a grid runs are missing: where the best run is the outermost."""

from __future__ import annotations

import numpy as np

from scalecli.errors import NoOptimum
from scalecli.fitters.landscape.settings import Settings
from scalecli.fitters.landscape.vertex import levels
from scalecli.fitters.law import Array

OUTERMOST = {"below": "lowest", "above": "highest"}


def missing_side(log_tried: Array, loss: Array) -> str:
    """ "below" or "above" where the best level of an axis is the outermost, unless runs diverged (their loss is not
    finite) beyond it; else nothing."""
    finished = np.isfinite(loss)
    value, level = np.unique(np.round(log_tried, 6), return_inverse=True)
    if value.size < 2:
        return ""
    best = level[finished][np.argmin(loss[finished])]
    return {0: "below", value.size - 1: "above"}.get(int(best), "")


def rate_sides(settings: Settings) -> list[str]:
    """The missing side of the learning rate in every setting that was trained at several."""
    rows = [settings.label == s for s in range(settings.count)]
    return [
        missing_side(settings.log_rate[of], settings.loss[of])
        for of in rows
        if levels(settings.log_rate[of]) > 1
    ]


def one_sided(settings: Settings) -> bool:
    """Whether the best run has the outermost learning rate in every setting, and on the same side in all."""
    sides = set(rate_sides(settings))
    return len(sides) == 1 and "" not in sides


def no_optimum(settings: Settings) -> NoOptimum:
    """The error for a grid whose best learning rates all lie outside what was tried, with the side in numbers."""
    sides = rate_sides(settings)
    counted = [f"the {name} in {sides.count(side)}" for side, name in OUTERMOST.items() if side in sides]
    edge = f": the best run has {' and '.join(counted)}" if counted else ""
    return NoOptimum(
        f"in none of the {settings.count} (params, tokens) settings the best learning rate lies inside what was "
        f"tried{edge}",
        hint="scalecli design --runs RUNS --spec next.toml proposes runs beyond the edge",
    )
