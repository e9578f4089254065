"""Loss over model size and tokens, with exponents that depend on the size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from scalecli.fitters.law import Array, Columns, Param

REFERENCE_PARAMS = 1e9
"""The size at which E, B and c hold. Any would do: it only keeps the nine parameters apart in a fit."""

NEARLY_ZERO = 1e-6
"""Exponents closer to 0 than this are taken to first order there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Farseer:
    """L(N, D) = E e^(-p s(N, gamma)) + B e^(-q s(N, beta)) D^-x, x = c e^(-r s(N, alpha))  [nats/token].

    N: parameters, D: tokens; s(N, e) = ((N / 1e9)^e - 1) / e, which is ln(N / 1e9) for e = 0. At each size
    a power law in D, whose floor, scale and exponent bend with the size. The paper writes e^(a3 N^gamma +
    b3) for the floor, and so on: a3 = -p / (gamma 1e9^gamma), b3 = ln E + p / gamma. Nine parameters: needs
    a dense grid of sizes and tokens. Li et al. 2025, arXiv 2506.10972.
    """

    name: ClassVar[str] = "farseer"
    inputs: ClassVar[tuple[str, ...]] = ("params", "tokens")
    output: ClassVar[str] = "loss"
    sources: ClassVar[tuple[str, ...]] = ("farseer2025",)
    linear: ClassVar[tuple[str, ...]] = ("E", "B")

    E: Annotated[float, Param(1e-6, 20.0, unit="nats/token", log=True)]
    B: Annotated[float, Param(1e-9, 1e12, unit="nats/token", log=True)]
    c: Annotated[float, Param(1e-3, 2.5, log=True, start=(0.1, 1.0))]
    p: Annotated[float, Param(-1.0, 2.0, start=(0.0, 0.5))]
    q: Annotated[float, Param(-5.0, 10.0, start=(-0.5, 2.5))]
    r: Annotated[float, Param(-1.0, 1.0, start=(-0.1, 0.4))]
    gamma: Annotated[float, Param(-1.0, 1.0, start=(-0.3, 0.3))]
    beta: Annotated[float, Param(-1.0, 1.0, start=(-0.3, 0.3))]
    alpha: Annotated[float, Param(-1.0, 1.0, start=(-0.3, 0.3))]

    def predict(self, x: Columns) -> Array:
        log_size = np.log(x["params"] / REFERENCE_PARAMS)
        exponent = self.c * np.exp(-self.r * _stretched(log_size, self.alpha)[0])
        floor = self.E * np.exp(-self.p * _stretched(log_size, self.gamma)[0])
        data = np.exp(-self.q * _stretched(log_size, self.beta)[0] - exponent * np.log(x["tokens"]))
        return np.asarray(floor + self.B * data)

    def gradient(self, x: Columns) -> Array:
        log_size, log_tokens = np.log(x["params"] / REFERENCE_PARAMS), np.log(x["tokens"])
        by_floor, floor_bend = _stretched(log_size, self.gamma)
        by_scale, scale_bend = _stretched(log_size, self.beta)
        by_exponent, exponent_bend = _stretched(log_size, self.alpha)
        exponent = self.c * np.exp(-self.r * by_exponent)
        floor, data = np.exp(-self.p * by_floor), np.exp(-self.q * by_scale - exponent * log_tokens)
        floored, scaled = self.E * floor, self.B * data
        bent = scaled * log_tokens * exponent
        slopes = [
            floor,
            data,
            -bent / self.c,
            -floored * by_floor,
            -scaled * by_scale,
            bent * by_exponent,
            -self.p * floored * floor_bend,
            -self.q * scaled * scale_bend,
            self.r * bent * exponent_bend,
        ]
        return np.stack(np.broadcast_arrays(*slopes), axis=-1)


def _stretched(log_size: Array, exponent: Array | float) -> tuple[Array, Array]:
    """s = (e^(exponent l) - 1) / exponent, and its derivative by the exponent."""
    small = np.abs(exponent) < NEARLY_ZERO
    divisor = np.where(small, 1.0, exponent)
    grown = np.expm1(exponent * log_size)
    stretched = np.where(small, log_size + exponent * log_size**2 / 2, grown / divisor)
    return stretched, np.where(small, log_size**2 / 2, (log_size * (grown + 1) - stretched) / divisor)
