"""Gradient flow on features with a power-law spectrum: size and time have exponents of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from scalecli.fitters.law import Array

SIZES = np.geomspace(3e6, 1e10, 10)
TIMES = np.geomspace(30, 1e9, 16)

FAR = 100.0
"""A run is limited by one of the two where the other reaches this many times further."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicalModel:
    """L(N, t) = integral of k^-a e^(-2 t k^-b) over k < N, plus that of k^-a over k > N.

    A linear model learns the first N eigenfunctions of a kernel with eigenvalues k^-b; the target has the power k^-a on
    each. Time alone lowers the loss as t^-((a-1)/b), size alone as N^-(a-1), which is why compute is not split evenly:
    Bordelon et al. 2024 (there N random projections, with the same exponents while a - 1 < 2 b). Where both matter
    the two do not simply add, so that `limited_by` says where one exponent can be read off.
    """

    name: ClassVar[str] = "dynamical-model"
    source: ClassVar[str] = "bordelon2024"
    measured: ClassVar[str] = "loss"
    group: ClassVar[str | None] = None

    a: float = 1.2
    b: float = 0.6

    def columns(self) -> dict[str, NDArray[Any]]:
        size, time = (axis.ravel() for axis in np.meshgrid(np.round(SIZES), np.round(TIMES)))
        reached = time / size**self.b
        limit = np.where(reached > FAR, "size", np.where(reached < 1 / FAR, "time", "both"))
        return {"params": size, "steps": time, "loss": self.loss(size, time), "limited_by": limit}

    def truth(self) -> dict[str, float]:
        return {
            "alpha of power:params where limited_by == 'size'": self.a - 1,
            "alpha of power:steps where limited_by == 'time'": (self.a - 1) / self.b,
        }

    def loss(self, size: Array, time: Array) -> Array:
        """At sizes and times of shape (rows,), with sums over k as integrals from 1/2 on."""
        from scipy.special import gamma, gammainc

        power = (self.a - 1) / self.b
        first, last = 2 * time * 0.5**-self.b, 2 * time * (size + 0.5) ** -self.b
        left = gamma(power) * (gammainc(power, first) - gammainc(power, last))
        learning = (2 * time) ** -power * left / self.b
        return np.asarray(learning + (size + 0.5) ** (1 - self.a) / (self.a - 1))
