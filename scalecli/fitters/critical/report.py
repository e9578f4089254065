"""Critical batches at several targets as one document, and as rows that the laws over loss and tokens are fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from scalecli.data.tables import RunTable
from scalecli.fitters.critical.definitions import HYPERBOLA
from scalecli.fitters.critical.hyperbola import CriticalAt, critical_at
from scalecli.fitters.critical.steps import steps_to_targets
from scalecli.fitters.fit import Interval


def critical_batches(table: RunTable, *, interval: float = 0.9, seed: int = 0) -> dict[str, Any]:
    """The document of `scalecli critical-batch`. Raises `DataError` as `steps_to_targets` does."""
    measured, notices = steps_to_targets(table)
    found = [critical_at(each, interval=interval, seed=seed) for each in measured]
    noise = _noise_by_target(table)
    return {
        "schema": "scalecli/critical-batch/1",
        "interval": interval,
        "targets": [_target(each, noise.get(each.target)) for each in found],
        "rows": law_rows(table, found),
        "warnings": [{"code": notice.code, "message": notice.message} for notice in notices],
    }


def law_rows(table: RunTable, found: Sequence[CriticalAt]) -> list[dict[str, Any]]:
    """Rows of `critical-batch-loss`, `-tokens` and `-params-tokens`: one for each identified target.

    `tokens` are what the target costs at batches far below the critical one; `params` only where the table has one.
    """
    sizes = set(table.columns(["params"])["params"]) if "params" in table.frame else set()
    size = {"params": sizes.pop()} if len(sizes) == 1 else {}
    return [
        {
            **size,
            "loss": each.target,
            "tokens": each.E_min.value,
            "critical_batch_tokens": each.B_crit.value,
            "definition": HYPERBOLA,
        }
        for each in found
        if each.B_crit is not None and each.E_min is not None
    ]


def _target(found: CriticalAt, noise: float | None) -> dict[str, Any]:
    ratio = None if noise is None or found.B_crit is None else noise / found.B_crit.value
    return {
        "loss": found.target,
        "batches": found.batches,
        "status": "identified" if found.identified else "not identified",
        "reason": found.reason,
        "S_min": _ends(found.S_min),
        "E_min": _ends(found.E_min),
        "critical": found.figures(),
        "noise_scale_over_critical": ratio,
    }


def _ends(found: Interval | None) -> dict[str, Any] | None:
    return None if found is None else {"value": found.value, "low": found.low, "high": found.high}


def _noise_by_target(table: RunTable) -> dict[float, float]:
    """The gradient noise scale where a target was reached, as the median over its rows."""
    if "noise_scale_tokens" not in table.frame:
        return {}
    columns = table.columns(["loss", "noise_scale_tokens"])
    return {
        float(target): float(np.median(columns["noise_scale_tokens"][columns["loss"] == target]))
        for target in np.unique(columns["loss"])
    }
