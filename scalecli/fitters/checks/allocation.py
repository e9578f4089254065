"""How the best size grows with compute, held against what theory and tuned runs say: about as fast as the data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from scalecli.data.notes import Notice
from scalecli.fitters.law import Array, scalar_of

REFERENCE_FLOPS = 1e21
"""Where the exponent of the optimal size is read off; it is the same everywhere for laws with a closed form."""

SOURCES = ("maloney2022", "porian2024")

USUAL = (0.4, 0.6)
"""Size and data grow alike, compute^0.5, in solvable models (Maloney et al. 2022); tuned language models were seen at
0.45 to 0.58 (Hoffmann et al. 2022; Bi et al. 2024; Porian et al. 2024)."""


def allocation_exponent(law: type[Any], raw: Array) -> Array:
    """Exponent of the optimal size over compute for raw parameters (m, parameters); NaN where there is none."""
    here = scalar_of(lambda one: one.optimal_params(REFERENCE_FLOPS), law, raw)
    tenfold = scalar_of(lambda one: one.optimal_params(10 * REFERENCE_FLOPS), law, raw)
    with np.errstate(all="ignore"):
        return np.asarray(np.log10(tenfold / here))


def allocation(law: type[Any], raw: Array, draws: Array, level: float) -> dict[str, float] | None:
    """The exponent at raw (parameters,), with its interval over draws (draws, parameters); None for laws without
    a best size, or where it has no end."""
    if not hasattr(law, "optimal_params"):
        return None
    value = float(allocation_exponent(law, raw[None])[0])
    drawn = allocation_exponent(law, draws)
    drawn = drawn[np.isfinite(drawn)]
    if not (drawn.size and np.isfinite(value)):
        return None
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return {"exponent": value, "low": float(low), "high": float(high)}


def notices(found: dict[str, float] | None) -> Iterator[Notice]:
    """A warning where the whole interval lies far from size and data growing alike."""
    if found is not None and (found["high"] < USUAL[0] or found["low"] > USUAL[1]):
        yield Notice(
            "W-ALLOCATION",
            f"the best size grows as compute^{found['exponent']:.2f} ({found['low']:.2f} to {found['high']:.2f}); "
            f"solvable models have 0.5, tuned runs 0.45 to 0.58 ({', '.join(SOURCES)}): small runs that are untuned, "
            "warmed up for too long or counted without their head move it",
        )
