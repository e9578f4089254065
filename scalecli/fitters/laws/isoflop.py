"""Approach 2: the best size at a FLOP budget, from the vertices of isoFLOP curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scalecli.fitters.law import Array, Columns
from scalecli.fitters.size_line import ComputeOptimalSize, power_line
from scalecli.fitters.vertices import PARABOLA_WINDOW, vertices


@dataclass(frozen=True, slots=True, kw_only=True)
class IsoFlop(ComputeOptimalSize):
    """N*(C) = a C^b  [parameters]; C: FLOPs; a line through the minima of parabolas of loss in log N.

    Rows at equal FLOPs and several sizes, of each the best run; a budget whose minimum is not bracketed by
    its sizes does not count. Biased where the grid drifts off the minimum from budget to budget: compare
    with `isoflop-cubic` and `chinchilla`. Hoffmann et al. 2022, section 3.2 (approach 2).
    """

    name: ClassVar[str] = "isoflop"
    sources: ClassVar[tuple[str, ...]] = ("hoffmann2022", "porian2024")

    @classmethod
    def estimate(cls, x: Columns, y: Array, weights: Array) -> Array:
        return power_line(*vertices(x["flops"], x["params"], y, weights, degree=2, window=PARABOLA_WINDOW))
