"""How fast runs trained, so that compute can be told in device-hours.

Budgets on one's own devices are hours, and small models use a device worse than large ones: at equal FLOPs they take
longer. So the rate is kept by model size, and beyond the sizes that were trained it stays what it was at the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from scalecli.data.tables import RunTable
from scalecli.errors import DataError
from scalecli.fitters.domain import SIZES
from scalecli.fitters.law import Array

HOUR = 3600.0
AXIS = "device_hours"

MOST_LEVELS = 30
"""Sizes whose rates are kept; of more, evenly spread ones."""


@dataclass(frozen=True)
class Speed:
    """FLOP/s of one device at several model sizes, both of shape (sizes,), sizes rising."""

    params: Array
    flops_per_second: Array

    @classmethod
    def constant(cls, flops_per_second: float) -> Self:
        return cls(np.ones(1), np.array([flops_per_second]))

    @classmethod
    def of_runs(cls, table: RunTable) -> Self | None:
        """The median rate of every size; None for tables that do not say size, compute and time, or absurd ones."""
        table = table.with_derived(["flops", AXIS])
        size = next((found for name in SIZES if (found := table.positive(name)) is not None), None)
        flops, hours = table.positive("flops"), table.positive(AXIS)
        if size is None or flops is None or hours is None:
            return None
        levels = np.unique(size)
        levels = levels[np.linspace(0, len(levels) - 1, min(len(levels), MOST_LEVELS)).astype(np.intp)]
        with np.errstate(all="ignore"):
            rate = flops / (HOUR * hours)
        if not (np.isfinite(rate) & (rate > 0)).all():
            return None
        return cls(levels, np.array([np.median(rate[size == level]) for level in levels]))

    @classmethod
    def of_provenance(cls, provenance: Mapping[str, Any]) -> Self | None:
        """The speed that a fit recorded. Raises `DataError` where that is damaged."""
        said = provenance.get("speed")
        if said is None:
            return None
        try:
            found = cls(
                np.array(said["params"], dtype=float), np.array(said["flops_per_second"], dtype=float)
            )
        except (TypeError, KeyError, ValueError) as error:
            raise DataError(
                "the fit's provenance has a speed that is none", hint="fit again with --out"
            ) from error
        sound = (
            found.params.shape == found.flops_per_second.shape
            and found.params.ndim == 1
            and len(found.params)
        )
        if not sound or not (found.flops_per_second > 0).all():
            raise DataError("the fit's provenance has a speed that is none", hint="fit again with --out")
        return found

    def document(self) -> dict[str, list[float]]:
        return {"params": self.params.tolist(), "flops_per_second": self.flops_per_second.tolist()}

    def hours(self, flops: Array | float, params: Array | float) -> Array:
        """Device-hours for this compute at these sizes."""
        log_rate = np.interp(np.log(params), np.log(self.params), np.log(self.flops_per_second))
        return np.asarray(flops / (HOUR * np.exp(log_rate)))

    @property
    def largest(self) -> float:
        """The rate [FLOP/s] at the largest size."""
        return float(self.flops_per_second[-1])
