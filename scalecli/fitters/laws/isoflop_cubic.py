"""Approach 2 with cubics, which follow the asymmetry of an isoFLOP curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scalecli.fitters.law import Array, Columns
from scalecli.fitters.size_line import ComputeOptimalSize, power_line
from scalecli.fitters.vertices import CUBIC_WINDOW, vertices


@dataclass(frozen=True, slots=True, kw_only=True)
class IsoFlopCubic(ComputeOptimalSize):
    """N*(C) = a C^b  [parameters]; C: FLOPs; a line through the minima of cubics of loss in log N.

    As `isoflop`, with a cubic for every budget: cures the bias from asymmetric curves, not that from a
    drifting grid. Czech et al. 2026, arXiv 2603.22339.
    """

    name: ClassVar[str] = "isoflop-cubic"
    sources: ClassVar[tuple[str, ...]] = ("hoffmann2022", "czech2026")

    @classmethod
    def estimate(cls, x: Columns, y: Array, weights: Array) -> Array:
        return power_line(*vertices(x["flops"], x["params"], y, weights, degree=3, window=CUBIC_WINDOW))
