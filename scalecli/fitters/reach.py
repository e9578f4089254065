"""How far above the runs a law was fitted to it has been checked, axis by axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scalecli.fitters.domain import SIZES
from scalecli.fitters.law import Array, Columns
from scalecli.fitters.problem import Mask

TOKENS_PER_PARAM = "tokens_per_param"


@dataclass(frozen=True, slots=True)
class Reach:
    """Smallest and largest value among the runs, and the largest ratio of a held-out value to those it was
    predicted from (1: no hold-out went beyond)."""

    low: float
    high: float
    validated: float

    def beyond(self, value: float) -> float:
        """How many times `value` lies outside the runs; 1 inside."""
        return max(1.0, value / self.high, self.low / value)


def axes_of(columns: Mapping[str, Array]) -> dict[str, Array]:
    """The axes of scale among these columns: sizes, tokens, and tokens per parameter."""
    axes = {name: columns[name] for name in (*SIZES, "tokens") if name in columns}
    size = next((name for name in SIZES if name in columns), None)
    if size is not None and "tokens" in columns:
        axes[TOKENS_PER_PARAM] = columns["tokens"] / columns[size]
    return axes


def reach_of(x: Columns, heldout: Sequence[Mask]) -> dict[str, Reach]:
    """From the runs and, for each hold-out, which of them it left out, (rows,)."""
    return {
        name: Reach(
            float(axis.min()), float(axis.max()), max((_ratio(axis, held) for held in heldout), default=1.0)
        )
        for name, axis in axes_of(x).items()
        if (axis > 0).all()
    }


def _ratio(axis: Array, held: Mask) -> float:
    up = axis[held].max() / axis[~held].max()
    down = axis[~held].min() / axis[held].min()
    return float(np.max([1.0, up, down]))
