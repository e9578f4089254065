"""A power law that bends once, from one slope to another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar

import numpy as np

from scalecli.fitters.law import Array, Columns, Param


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenPower:
    """L(x) = a + b x^-c0 (1 + (x/d)^(1/f))^(-c1 f)  [nats/token]; x: tokens, or `broken-power:COLUMN`.

    The slope is c0 well below the break d and c0 + c1 well above it; f is how wide the bend is, in ln x.
    Needs runs on both sides of the bend. Caballero et al. 2022, equation 1, with one break.
    """

    name: ClassVar[str] = "broken-power"
    inputs: ClassVar[tuple[str, ...]] = ("tokens",)
    output: ClassVar[str] = "loss"
    sources: ClassVar[tuple[str, ...]] = ("caballero2022",)
    linear: ClassVar[tuple[str, ...]] = ("a", "b")

    a: Annotated[float, Param(1e-9, 100.0, unit="nats/token", log=True)]
    b: Annotated[float, Param(1e-9, 1e15, unit="nats/token", log=True)]
    c0: Annotated[float, Param(-0.5, 2.5, start=(0.02, 1.0))]
    c1: Annotated[float, Param(-2.0, 2.5, start=(-0.3, 1.0))]
    d: Annotated[float, Param(1.0, 1e18, log=True, start=(1e5, 1e12))]
    f: Annotated[float, Param(0.05, 5.0, log=True, start=(0.05, 2.0))]

    @staticmethod
    @cache
    def over(column: str) -> type[Any]:
        """The same law over another column: params, flops, steps."""
        own = {"__slots__": (), "__doc__": BrokenPower.__doc__}
        return type(
            "BrokenPower", (BrokenPower,), {**own, "name": f"broken-power:{column}", "inputs": (column,)}
        )

    def predict(self, x: Columns) -> Array:
        column = x[self.inputs[0]]
        return np.asarray(self.a + self.b * self._shape(column, self._bend(column)))

    def gradient(self, x: Columns) -> Array:
        column = x[self.inputs[0]]
        rise, bend = self._rise(column), self._bend(column)
        shape, beyond = self._shape(column, bend), np.exp(rise - bend)
        by_log = [
            -np.log(column),
            -self.f * bend,
            self.c1 * beyond / self.d,
            -self.c1 * (bend - rise * beyond),
        ]
        sloped = self.b * shape
        slopes = [sloped * slope for slope in by_log]
        return np.stack(np.broadcast_arrays(np.ones_like(shape), shape, *slopes), axis=-1)

    def _rise(self, column: Array) -> Array:
        return np.asarray((np.log(column) - np.log(self.d)) / self.f)

    def _bend(self, column: Array) -> Array:
        """ln(1 + (x/d)^(1/f)), also where the power overflows."""
        rise = self._rise(column)
        return np.asarray(np.maximum(rise, 0.0) + np.log(1 + np.exp(-np.abs(rise))))

    def _shape(self, column: Array, bend: Array) -> Array:
        return np.asarray(np.exp(-self.c0 * np.log(column) - self.c1 * self.f * bend))
