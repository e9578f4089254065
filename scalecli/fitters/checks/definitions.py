"""How much a fit hangs on what N and C are taken to mean.

Papers count parameters with and without embeddings, and FLOPs as 6 N D or exactly; allocation exponents differ for
that reason alone (Porian et al. 2024, 2406.19146, section 3; Pearce and Song 2024, 2406.12907).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from scalecli.data.notes import Notice
from scalecli.data.tables import RunTable
from scalecli.fitters.checks.allocation import allocation, allocation_exponent
from scalecli.fitters.domain import SIZES
from scalecli.fitters.estimate import Estimate
from scalecli.fitters.fit import Fit
from scalecli.fitters.law import names, required_columns, values

FLOP_COUNTS = ("flops", "flops_exact")
SAME = 0.01
"""Columns that agree to 1 % in every row are one definition."""


def other_definitions(table: RunTable, law: type[Any]) -> Iterator[tuple[str, RunTable]]:
    """The table under every other count that it holds of a column that the law reads, with the count's name."""
    for read in required_columns(law):
        for counts in (SIZES, FLOP_COUNTS):
            for other in counts if read in counts else ():
                values = table.positive(other)
                if values is not None and not np.allclose(values, table.frame[read], rtol=SAME):
                    yield f"{read} = {other}", replace(table, frame=table.frame.assign(**{read: values}))
        frozen = table.positive("params_frozen") if read == "params" else None
        if frozen is not None:
            whole = table.frame["params"] + frozen
            yield "params = params + params_frozen", replace(table, frame=table.frame.assign(params=whole))
        if read == "flops":
            size, tokens = table.positive("params"), table.positive("tokens")
            if size is not None and tokens is not None:
                counted = 6 * size * tokens
                if not np.allclose(counted, table.frame["flops"], rtol=SAME):
                    yield "flops = 6 params tokens", replace(table, frame=table.frame.assign(flops=counted))


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
    found = allocation(type(fit.law), values(fit.law), fit.draws, fit.interval)
    if found is None:
        return
    for entry in reports:
        exponent = entry["allocation_exponent"]
        if exponent is not None and not found["low"] <= exponent <= found["high"]:
            yield Notice(
                "W-DEFINITION",
                f"with {entry['definition']} the best size grows as compute^{exponent:.3f}, outside the interval "
                f"{found['low']:.3f} to {found['high']:.3f} of this fit: say which count is meant",
            )
