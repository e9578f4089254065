"""How much a fit hangs on what N and C are taken to mean.

Papers count parameters with and without embeddings, and FLOPs as 6 N D or exactly; allocation exponents differ for
that reason alone (Porian et al. 2024, 2406.19146, section 3; Pearce and Song 2024, 2406.12907).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalecli.data.tables import RunTable
from scalecli.errors import ScalecliError
from scalecli.fitters.domain import SIZES
from scalecli.fitters.estimate import Estimate
from scalecli.fitters.fit import Fit
from scalecli.fitters.identify import Notice
from scalecli.fitters.law import names, required_columns, scalar_of

FLOP_COUNTS = ("flops", "flops_exact")
SAME = 0.01
"""Columns that agree to 1 % in every row are one definition."""

REFERENCE_FLOPS = 1e21
"""Where the exponent of the optimal size is read off; it is the same everywhere for laws with a closed form."""


def other_definitions(table: RunTable, law: type[Any]) -> Iterator[tuple[str, RunTable]]:
    """The table under every other count that it holds of a column that the law reads, with the count's name."""
    for read in required_columns(law):
        for counts in (SIZES, FLOP_COUNTS):
            for other in counts if read in counts else ():
                values = _finite(table, other)
                if values is not None and not np.allclose(values, table.frame[read], rtol=SAME):
                    yield f"{read} = {other}", replace(table, frame=table.frame.assign(**{read: values}))
        if read == "flops":
            size, tokens = _finite(table, "params"), _finite(table, "tokens")
            if size is not None and tokens is not None:
                counted = 6 * size * tokens
                if not np.allclose(counted, table.frame["flops"], rtol=SAME):
                    yield "flops = 6 params tokens", replace(table, frame=table.frame.assign(flops=counted))


def _finite(table: RunTable, name: str) -> NDArray[np.float64] | None:
    """The column, if every row has a positive number in it."""
    if name not in table.frame.columns:
        return None
    try:
        values = table.columns([name])[name]
    except ScalecliError:
        return None
    return values if bool((np.isfinite(values) & (values > 0)).all()) else None


def allocation_exponent(law: type[Any], raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Exponent of the optimal size over compute for raw parameters (m, parameters); NaN where there is none."""
    here = scalar_of(lambda one: one.optimal_params(REFERENCE_FLOPS), law, raw)
    tenfold = scalar_of(lambda one: one.optimal_params(10 * REFERENCE_FLOPS), law, raw)
    with np.errstate(all="ignore"):
        return np.asarray(np.log10(tenfold / here))


def report(fit: Fit, label: str, other: Estimate) -> dict[str, Any]:
    """What the fit would have been under another definition."""
    law = type(fit.law)
    exponent = allocation_exponent(law, other.raw[None])[0] if hasattr(law, "optimal_params") else np.nan
    return {
        "definition": label,
        "parameters": dict(zip(names(law), other.raw.tolist(), strict=True)),
        "allocation_exponent": float(exponent) if np.isfinite(exponent) else None,
    }


def notices(fit: Fit, reports: list[dict[str, Any]]) -> Iterator[Notice]:
    """A warning for every definition that moves the exponent of the optimal size out of its interval."""
    law = type(fit.law)
    if not (len(fit.draws) and hasattr(law, "optimal_params")):
        return
    drawn = allocation_exponent(law, fit.draws)
    drawn = drawn[np.isfinite(drawn)]
    if not drawn.size:
        return
    tail = (1 - fit.interval) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    for entry in reports:
        exponent = entry["allocation_exponent"]
        if exponent is not None and not low <= exponent <= high:
            yield Notice(
                "W-DEFINITION",
                f"with {entry['definition']} the best size grows as compute^{exponent:.3f}, outside the interval "
                f"{low:.3f} to {high:.3f} of this fit: say which count is meant",
            )
