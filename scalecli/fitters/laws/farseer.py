"""Loss over model size and tokens, with exponents that depend on the size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from scalecli.fitters.law import Array, Columns, Param


@dataclass(frozen=True, slots=True, kw_only=True)
class Farseer:
    """L(N, D) = E e^(a3 N^gamma) + B e^(a2 N^beta) D^-(c e^(a1 N^alpha))  [nats/token]; D: tokens.

    N: parameters. At each size a power law in D, whose floor, scale and exponent are stretched exponentials
    in N. The paper writes E = e^b3, B = e^b2, c = e^b1. Nine parameters: needs a dense grid of sizes and
    tokens. Li et al. 2025, arXiv 2506.10972, equation 7.
    """

    name: ClassVar[str] = "farseer"
    inputs: ClassVar[tuple[str, ...]] = ("params", "tokens")
    output: ClassVar[str] = "loss"
    sources: ClassVar[tuple[str, ...]] = ("farseer2025",)
    linear: ClassVar[tuple[str, ...]] = ("E", "B")

    E: Annotated[float, Param(1e-6, 1e3, unit="nats/token", log=True)]
    B: Annotated[float, Param(1e-9, 1e12, unit="nats/token", log=True)]
    c: Annotated[float, Param(1e-3, 1e2, log=True, start=(0.1, 3.0))]
    a1: Annotated[float, Param(-10.0, 10.0, start=(-0.5, 0.2))]
    alpha: Annotated[float, Param(0.01, 0.5, start=(0.05, 0.2))]
    a2: Annotated[float, Param(-200.0, 200.0, start=(0.0, 100.0))]
    beta: Annotated[float, Param(-0.5, -0.01, start=(-0.2, -0.05))]
    a3: Annotated[float, Param(-10.0, 10.0, start=(-0.2, 0.0))]
    gamma: Annotated[float, Param(0.01, 0.5, start=(0.05, 0.25))]

    def predict(self, x: Columns) -> Array:
        floor, scale, _, data = self._parts(x)
        return np.asarray(self.E * floor + self.B * scale * data)

    def gradient(self, x: Columns) -> Array:
        floor, scale, exponent, data = self._parts(x)
        log_params = np.log(x["params"])
        term = self.B * scale * data
        by_exponent = -term * exponent * np.log(x["tokens"])
        first, second = x["params"] ** self.alpha, x["params"] ** self.beta
        third = x["params"] ** self.gamma
        slopes = [
            floor,
            scale * data,
            by_exponent / self.c,
            by_exponent * first,
            by_exponent * self.a1 * first * log_params,
            term * second,
            term * self.a2 * second * log_params,
            self.E * floor * third,
            self.E * floor * self.a3 * third * log_params,
        ]
        return np.stack(np.broadcast_arrays(*slopes), axis=-1)

    def _parts(self, x: Columns) -> tuple[Array, Array, Array, Array]:
        """e^(a3 N^gamma), e^(a2 N^beta), the exponent of D, and D to minus that exponent."""
        params = x["params"]
        floor, scale = np.exp(self.a3 * params**self.gamma), np.exp(self.a2 * params**self.beta)
        exponent = self.c * np.exp(self.a1 * params**self.alpha)
        return floor, scale, exponent, x["tokens"] ** -exponent
