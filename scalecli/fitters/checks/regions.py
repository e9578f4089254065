"""The regions of a learning curve: too little data to do better than guessing, the power law, the irreducible error.

Hestness et al. 2017, section 2. Runs of the first region lie on a level below what the power law would have there,
and pull its exponent down; those of the last are on the law's plateau.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.stats import f as f_distribution

from scalecli.data.notes import Notice
from scalecli.fitters.checks.plateau import Plateau
from scalecli.fitters.domain import GROWING
from scalecli.fitters.estimate import Estimate
from scalecli.fitters.law import Array, PowerSum, measured_column, with_values

SOURCE = "hestness2017"

FEWEST_LEVELS = 5
"""Levels that stay with the power law, wherever the curve is cut."""

LEVEL_PARAMETERS = 2
"""A flat part adds its height and its end."""

CHANCE = 1e-3
"""How rarely runs without a flat part may seem to have one; the best of several cuts is taken, so it is a small one."""


def regions(fitted: Estimate, flat: list[Plateau]) -> dict[str, Any] | None:
    """Where each region of the curve lies; None for laws over more than one column, or of something that grows.

    `flat` are the runs on the law's plateau: {column, best_guess: {runs, up_to, level} | None, irreducible_runs}.
    """
    law = fitted.law
    if not isinstance(law, PowerSum) or law.output != measured_column(law):
        return None
    if len(law.inputs) != 1 or law.inputs[0] not in GROWING:
        return None
    column = law.inputs[0]
    return {
        "column": column,
        "best_guess": _best_guess(fitted, fitted.data.x[column]),
        "irreducible_runs": next((one.runs for one in flat if one.axis == column), 0),
    }


def notices(found: dict[str, Any] | None) -> Iterator[Notice]:
    if found is not None and (guess := found["best_guess"]) is not None:
        column, end = found["column"], guess["up_to"]
        yield Notice(
            "W-SMALL-DATA",
            f"the {guess['runs']} runs up to {column} = {end:.3g} lie on a level of {guess['level']:.4g}, below the "
            f"law of the others: too little to do better than guess ({SOURCE}). Leave them out (--where '{column} > "
            f"{end:.6g}'), or fit broken-power:{column}",
        )


def _best_guess(fitted: Estimate, size: Array) -> dict[str, float] | None:
    """The flat part at the small end, if the runs are told better with one by far."""
    levels = np.unique(size)
    ends = levels[: max(min(len(levels) - FEWEST_LEVELS, len(levels) // 2), 0)]
    free = len(size) - fitted.raw.size - LEVEL_PARAMETERS
    if not len(ends) or free < 1:
        return None
    small = size <= ends[:, None]
    log_y, weights = np.log(fitted.data.y), fitted.data.weights
    law = with_values(fitted.law, fitted.reweighted((~small).astype(float)))
    height = (small * weights * log_y).sum(axis=1) / (small * weights).sum(axis=1)
    extended = np.log(law.predict(fitted.data.x))
    off = log_y - np.where(small, height[:, None], extended)
    left = (weights * off**2).sum(axis=1)
    gain = (weights * fitted.residuals() ** 2).sum() - left
    best = int(np.nanargmax(gain))
    statistic = gain[best] / LEVEL_PARAMETERS / (left[best] / free)
    lower = (log_y - extended[best])[small[best]].mean() < 0
    if not lower or statistic < f_distribution.isf(CHANCE, LEVEL_PARAMETERS, free):
        return None
    return {
        "runs": int(small[best].sum()),
        "up_to": float(ends[best]),
        "level": float(np.exp(height[best])),
    }
