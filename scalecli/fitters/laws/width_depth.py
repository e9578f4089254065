"""Loss over width, depth, size and tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from scalecli.fitters.law import Array, Columns, Param, Term


@dataclass(frozen=True, slots=True, kw_only=True)
class WidthDepth:
    """L(w, d, p, T) = E + A w^-alpha + B d^-beta + C p^-gamma + G T^-zeta  [nats/token].

    w: width, d: layers, p: parameters, T: tokens. Tells shape from size: needs models of equal size and
    several shapes. McLeish et al. 2025 (Gemstones), the fit with four terms.
    """

    name: ClassVar[str] = "width-depth"
    inputs: ClassVar[tuple[str, ...]] = ("width", "depth", "params", "tokens")
    output: ClassVar[str] = "loss"
    sources: ClassVar[tuple[str, ...]] = ("mcleish2025",)
    terms: ClassVar[tuple[Term, ...]] = (
        Term("E"),
        Term("A", falls={"width": "alpha"}),
        Term("B", falls={"depth": "beta"}),
        Term("C", falls={"params": "gamma"}),
        Term("G", falls={"tokens": "zeta"}),
    )

    E: Annotated[float, Param(1e-6, 20.0, unit="nats/token", log=True)]
    A: Annotated[float, Param(1e-9, 1e15, unit="nats/token", log=True)]
    B: Annotated[float, Param(1e-9, 1e15, unit="nats/token", log=True)]
    C: Annotated[float, Param(1e-9, 1e15, unit="nats/token", log=True)]
    G: Annotated[float, Param(1e-9, 1e15, unit="nats/token", log=True)]
    alpha: Annotated[float, Param(0.0, 2.5, start=(0.02, 1.5))]
    beta: Annotated[float, Param(0.0, 2.5, start=(0.02, 1.5))]
    gamma: Annotated[float, Param(0.0, 2.5, start=(0.02, 1.5))]
    zeta: Annotated[float, Param(0.0, 2.5, start=(0.02, 1.5))]

    def predict(self, x: Columns) -> Array:
        shape = self.A * x["width"] ** -self.alpha + self.B * x["depth"] ** -self.beta
        return self.E + shape + self.C * x["params"] ** -self.gamma + self.G * x["tokens"] ** -self.zeta

    def gradient(self, x: Columns) -> Array:
        width, depth = x["width"] ** -self.alpha, x["depth"] ** -self.beta
        size, data = x["params"] ** -self.gamma, x["tokens"] ** -self.zeta
        slopes = [
            -self.A * width * np.log(x["width"]),
            -self.B * depth * np.log(x["depth"]),
            -self.C * size * np.log(x["params"]),
            -self.G * data * np.log(x["tokens"]),
        ]
        return np.stack([np.ones_like(width), width, depth, size, data, *slopes], axis=-1)
