"""Draws of an optimum's power laws, widened for how few settings they were drawn from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from scalecli.fitters.law import Array, values, with_values

EXPONENTS = 3
"""Each power law has a scale and two exponents, which take that many degrees of freedom from the settings."""


def widen(law: type[Any], draws: Array, point: Array, settings: int) -> Array:
    """Draws (draws, parameters) with lr* and batch* moved away from the point (parameters,), in logs.

    A resample of few settings spreads too little: by sqrt(S / (S - 3)), and by the ratio of the standard
    deviations of Student's t with S - 3 degrees of freedom and the normal. Scale and exponents move by one
    factor, and so does the optimum at any (params, tokens).
    """
    spare = max(settings - EXPONENTS, EXPONENTS)
    factor = np.sqrt((spare + EXPONENTS) / spare) * np.sqrt(spare / (spare - 2))
    bundle, centre = with_values(law, draws), with_values(law, point)
    moved = {}
    for axis in ("lr", "batch"):
        scale, middle = getattr(bundle, f"{axis}_scale"), getattr(centre, f"{axis}_scale")
        moved[f"{axis}_scale"] = middle * (scale / middle) ** factor
        for name in (f"{axis}_params", f"{axis}_tokens"):
            moved[name] = getattr(centre, name) + factor * (getattr(bundle, name) - getattr(centre, name))
    return values(replace(bundle, **moved))
