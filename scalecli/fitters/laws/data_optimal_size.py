"""The best model size for an amount of data, from losses of several sizes at each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scalecli.fitters.law import Array, Columns
from scalecli.fitters.size_line import SizeLine, power_line
from scalecli.fitters.vertices import PARABOLA_WINDOW, vertices


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOptimalSize(SizeLine):
    """N*(m) = a m^b  [parameters]; m: tokens (or samples) in the training set; the size that fits m best.

    Rows at equal `unique_tokens` and several sizes, trained until the validation loss stops falling; sizes too
    large for their data over-fit, so that the loss has a minimum. Hestness et al. 2017, section 3, find b in
    0.5 to 1. On data that are seen once there is no such minimum: use `isoflop`.
    """

    name: ClassVar[str] = "data-optimal-size"
    inputs: ClassVar[tuple[str, ...]] = ("unique_tokens",)
    required: ClassVar[tuple[str, ...]] = ("unique_tokens", "params")
    sources: ClassVar[tuple[str, ...]] = ("hestness2017",)

    @classmethod
    def estimate(cls, x: Columns, y: Array, weights: Array) -> Array:
        return power_line(
            *vertices(x["unique_tokens"], x["params"], y, weights, degree=2, window=PARABOLA_WINDOW)
        )
