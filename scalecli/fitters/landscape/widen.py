"""Draws of an optimum's power laws, widened for what a resample of settings does not show."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from scalecli.fitters.landscape.basin import EXPONENT
from scalecli.fitters.landscape.settings import Settings
from scalecli.fitters.law import Array, values, with_values

EXPONENTS = 3
"""Each power law has a scale and two exponents, which take that many degrees of freedom from the settings."""

BEND = 0.005
"""Standard deviation of what an exponent changes by for each factor e of scale. Runs do not show it: a bend of this
size moves optima inside a grid by a per cent or two, and beyond it by ten. Set on synthetic landscapes, half of them
with optima that bend, and checked on others (docs/benchmarks.md)."""

UNVARIED = 0.05
"""Along a direction of scale in which settings differ by less than this, in logs, nothing is measured."""


def resample(settings: Settings, counts: Array, rng: np.random.Generator) -> Array:
    """How often each row is drawn, (draws, rows): as its setting in `counts`, or where settings are too few to be
    resampled (they leave nothing but the power laws' own parameters) the runs inside each."""
    if settings.count > EXPONENTS:
        return counts
    drawn = np.zeros_like(counts)
    for s in range(settings.count):
        rows = np.flatnonzero(settings.label == s)
        drawn[:, rows] = rng.multinomial(rows.size, np.full(rows.size, 1 / rows.size), size=len(counts))
    return drawn


def widen(law: type[Any], draws: Array, point: Array, settings: Settings, rng: np.random.Generator) -> Array:
    """Draws (draws, parameters) whose lr* and batch* scatter more about the point's (parameters,), in logs.

    A resample of S settings spreads too little, by sqrt(S / (S - 3)). And an exponent is measured at the middle of
    the settings: at their edge, from where a law is extrapolated, it may be another one. Along directions in which
    the settings do not differ it is anything that exponents are known to be.
    """
    spare = max(settings.count - EXPONENTS, EXPONENTS)
    factor = np.sqrt((spare + EXPONENTS) / spare)
    bundle, centre = with_values(law, draws), with_values(law, point)
    middle, directions, spread = _directions(settings)
    moved = {}
    for axis in ("lr", "batch"):
        scale = np.log(getattr(centre, f"{axis}_scale"))
        level = scale + factor * (np.log(getattr(bundle, f"{axis}_scale")) - scale)
        bend = (spread * rng.standard_normal((len(draws), 2))) @ directions
        for i, name in enumerate((f"{axis}_params", f"{axis}_tokens")):
            exponent = getattr(centre, name)
            moved[name] = exponent + factor * (getattr(bundle, name) - exponent) + bend[:, [i]]
        with np.errstate(over="ignore"):  # a draw of a scale beyond all numbers is lost, and counted as lost
            moved[f"{axis}_scale"] = np.exp(level - bend @ middle[:, None])
    return values(replace(bundle, **moved))


def _directions(settings: Settings) -> tuple[Array, Array, Array]:
    """Middle of the settings in log params and log tokens (2,), their principal directions (2, 2), and the standard
    deviation of what exponents along these may differ by from what was measured (2,)."""
    places = np.stack([settings.log_params, settings.log_tokens], axis=1)
    middle = (places.min(axis=0) + places.max(axis=0)) / 2
    _, directions = np.linalg.eigh(np.cov(places.T, bias=True))
    reach = np.ptp(places @ directions, axis=0)
    return middle, directions.T, np.where(reach > UNVARIED, BEND * reach / 2, EXPONENT.width)
