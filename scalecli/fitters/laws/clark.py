"""Loss of routed language models over active parameters and the number of experts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from scalecli.fitters.experts import effective_experts, log_slopes
from scalecli.fitters.law import Array, Columns, Param

LN10 = np.log(10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clark:
    """log10 L = a log10 N + b log10 Ê + c log10 N log10 Ê + d  [nats/token]; N: active params, E: experts.

    1/Ê = 1/(E - 1 + 1/(1/E_start - 1/E_max)) + 1/E_max saturates few and many experts; E_start pinned to 1
    and E_max to its upper bound leave Ê = E. For E = 1 it is the dense power law. c > 0: routing helps
    large models less. Clark et al. 2022.
    """

    name: ClassVar[str] = "clark"
    inputs: ClassVar[tuple[str, ...]] = ("params_active", "num_experts")
    output: ClassVar[str] = "loss"
    sources: ClassVar[tuple[str, ...]] = ("clark2022",)

    a: Annotated[float, Param(-1.0, 0.5, start=(-0.2, 0.0))]
    b: Annotated[float, Param(-2.0, 1.0, start=(-0.3, 0.0))]
    c: Annotated[float, Param(-0.5, 0.5, start=(-0.02, 0.05))]
    d: Annotated[float, Param(-5.0, 10.0, start=(0.0, 2.5))]
    E_start: Annotated[float, Param(0.5, 100.0, unit="experts", log=True, start=(1.0, 8.0))]
    E_max: Annotated[float, Param(2.0, 1e18, unit="experts", log=True, start=(64.0, 4096.0))]

    def predict(self, x: Columns) -> Array:
        size, experts = np.log10(x["params_active"]), np.log10(self.effective_experts(x["num_experts"]))
        return np.asarray(10 ** (self.a * size + self.b * experts + self.c * size * experts + self.d))

    def gradient(self, x: Columns) -> Array:
        size, experts = np.log10(x["params_active"]), np.log10(self.effective_experts(x["num_experts"]))
        by_experts = (self.b + self.c * size) / LN10
        by_start, by_max = log_slopes(x["num_experts"], self.E_start, self.E_max)
        logs = [size, experts, size * experts, np.ones_like(size), by_experts * by_start, by_experts * by_max]
        loss = self.predict(x) * LN10
        return np.stack(np.broadcast_arrays(*(loss * slope for slope in logs)), axis=-1)

    def effective_experts(self, experts: Array | float) -> Array:
        """Ê: E_start for one expert, E_max for infinitely many."""
        return effective_experts(experts, self.E_start, self.E_max)

    def dense_equivalent(self, params: Array | float, experts: Array | float) -> Array | float:
        """Parameters of the dense model (E = 1) that reaches the same loss."""
        size, many = np.log10(params), np.log10(self.effective_experts(experts))
        one = np.log10(self.effective_experts(1.0))
        log_loss = self.a * size + self.b * many + self.c * size * many
        return np.asarray(10 ** ((log_loss - self.b * one) / (self.a + self.c * one)))
