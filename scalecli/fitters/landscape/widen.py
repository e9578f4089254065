"""Draws of an optimum's power laws, widened for how few settings they were drawn from, and for laws that bend."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from scalecli.fitters.landscape.settings import Settings
from scalecli.fitters.law import Array, values, with_values

EXPONENTS = 3
"""Each power law has a scale and two exponents, which take that many degrees of freedom from the settings."""

BEND = 0.006
"""Standard deviation of what an exponent changes by for each factor e of scale. Runs do not show it: a bend of this
size moves optima inside a grid by a per cent or two, and beyond it by ten. Set on synthetic landscapes, half of them
with optima that bend, and checked on others (docs/benchmarks.md)."""


def widen(law: type[Any], draws: Array, point: Array, settings: Settings, rng: np.random.Generator) -> Array:
    """Draws (draws, parameters) whose lr* and batch* scatter more about the point's (parameters,), in logs.

    A resample of S settings spreads too little, by sqrt(S / (S - 3)). And an exponent is measured at the middle of
    the settings: at their edge, from where a law is extrapolated, it may be another one.
    """
    spare = max(settings.count - EXPONENTS, EXPONENTS)
    factor = np.sqrt((spare + EXPONENTS) / spare)
    bundle, centre = with_values(law, draws), with_values(law, point)
    moved = {}
    for axis in ("lr", "batch"):
        scale = np.log(getattr(centre, f"{axis}_scale"))
        level = scale + factor * (np.log(getattr(bundle, f"{axis}_scale")) - scale)
        for name, size in (("params", settings.log_params), ("tokens", settings.log_tokens)):
            exponent = getattr(centre, f"{axis}_{name}")
            spread = factor * (getattr(bundle, f"{axis}_{name}") - exponent)
            bend = BEND * np.ptp(size) / 2 * rng.standard_normal((len(draws), 1))
            moved[f"{axis}_{name}"] = exponent + spread + bend
            level = level - bend * (size.min() + size.max()) / 2
        moved[f"{axis}_scale"] = np.exp(level)
    return values(replace(bundle, **moved))
