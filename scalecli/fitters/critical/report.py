"""Critical batches at several targets as one document, and as rows that the laws over loss and tokens are fitted to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from scalecli.data.tables import RunTable
from scalecli.errors import DataError
from scalecli.fitters.critical.definitions import HYPERBOLA
from scalecli.fitters.critical.hyperbola import CriticalAt, critical_at
from scalecli.fitters.critical.steps import steps_to_targets
from scalecli.fitters.fit import Fit, Interval


def critical_batches(
    table: RunTable, *, noise: Fit | None = None, interval: float = 0.9, seed: int = 0
) -> dict[str, Any]:
    """The document of `scalecli critical-batch`.

    The gradient noise scale at each target is that of the law `noise`, or of the column noise_scale_tokens. Raises
    `DataError` as `steps_to_targets` does, and for a `noise` that is no law over the loss.
    """
    measured, notices = steps_to_targets(table)
    found = [critical_at(each, interval=interval, seed=seed) for each in measured]
    scale = _noise_of_rows(table) if noise is None else _noise_of_law(noise, interval)
    return {
        "schema": "scalecli/critical-batch/1",
        "interval": interval,
        "targets": [_target(each, scale(each.params, each.target)) for each in found],
        "rows": law_rows(found),
        "warnings": [{"code": notice.code, "message": notice.message} for notice in notices],
    }


def law_rows(found: Sequence[CriticalAt]) -> list[dict[str, Any]]:
    """Rows of `critical-batch-loss`, `-tokens` and `-params-tokens`: one for each identified size and target.

    `tokens` are what the target costs at batches far below the critical one; `params` where the table says it.
    """
    return [
        {
            **({} if each.params is None else {"params": each.params}),
            "loss": each.target,
            "tokens": each.E_min.value,
            "critical_batch_tokens": each.B_crit.value,
            "definition": HYPERBOLA,
        }
        for each in found
        if each.B_crit is not None and each.E_min is not None
    ]


def _target(found: CriticalAt, noise: Interval | None) -> dict[str, Any]:
    ratio = None if noise is None or found.B_crit is None else noise.value / found.B_crit.value
    return {
        "params": found.params,
        "loss": found.target,
        "batches": found.batches,
        "status": "identified" if found.identified else "not identified",
        "reason": found.reason,
        "S_min": _ends(found.S_min),
        "E_min": _ends(found.E_min),
        "critical": found.figures(),
        "noise_scale_tokens": _ends(noise),
        "noise_scale_over_critical": ratio,
    }


def _ends(found: Interval | None) -> dict[str, Any] | None:
    return None if found is None else {"value": found.value, "low": found.low, "high": found.high}


NoiseAt = Callable[[float | None, float], Interval | None]
"""Params (None where not known) and loss -> the gradient noise scale there [tokens]."""


def _noise_of_rows(table: RunTable) -> NoiseAt:
    """The median over the rows of each size and target, without an interval."""
    if "noise_scale_tokens" not in table.frame:
        return lambda params, loss: None
    optional = ["params"] if "params" in table.frame else []
    columns = table.columns(["loss", "noise_scale_tokens", *optional])

    def at(params: float | None, loss: float) -> Interval:
        rows = columns["loss"] == loss
        if params is not None:
            rows &= columns["params"] == params
        return Interval(float(np.median(columns["noise_scale_tokens"][rows])), None, None)

    return at


def _noise_of_law(fit: Fit, interval: float) -> NoiseAt:
    if fit.law.inputs != ("loss",) or fit.law.output != "noise_scale_tokens":
        raise DataError(
            f"{fit.law.name} is no law of the gradient noise scale over the loss",
            hint="scalecli fit NOISE_ROWS --law noise-scale",
        )

    def at(params: float | None, loss: float) -> Interval:
        return fit.query(lambda law: law.predict({"loss": np.array([loss])}), interval)

    return at
