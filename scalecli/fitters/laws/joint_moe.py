"""Loss of mixtures of experts over active parameters, tokens and the number of experts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from scalecli.fitters.experts import effective_experts, log_slopes
from scalecli.fitters.law import Array, Columns, Param


@dataclass(frozen=True, slots=True, kw_only=True)
class JointMoe:
    """L = a Ê^delta N^(alpha + gamma ln Ê) + b Ê^omega D^(beta + zeta ln Ê) + c  [nats/token].

    N: active parameters, D: tokens, E: experts; 1/Ê = 1/(E - 1 + 1/(1/E_start - 1/E_max)) + 1/E_max. For a
    dense model (E = 1) Ê is E_start, and the law is Chinchilla's. Ludziejewski et al. 2025.
    """

    name: ClassVar[str] = "joint-moe"
    inputs: ClassVar[tuple[str, ...]] = ("params_active", "tokens", "num_experts")
    output: ClassVar[str] = "loss"
    sources: ClassVar[tuple[str, ...]] = ("ludziejewski2025",)
    linear: ClassVar[tuple[str, ...]] = ("a", "b", "c")

    a: Annotated[float, Param(1e-2, 1e6, log=True, start=(5.0, 500.0))]
    alpha: Annotated[float, Param(-1.0, 0.0, start=(-0.4, -0.1))]
    delta: Annotated[float, Param(-1.0, 1.0, start=(-0.3, 0.0))]
    gamma: Annotated[float, Param(-0.2, 0.2, start=(-0.02, 0.02))]
    b: Annotated[float, Param(1e-2, 1e6, log=True, start=(5.0, 500.0))]
    beta: Annotated[float, Param(-1.0, 0.0, start=(-0.4, -0.1))]
    omega: Annotated[float, Param(-1.0, 2.0, start=(0.0, 0.6))]
    zeta: Annotated[float, Param(-0.2, 0.2, start=(-0.04, 0.01))]
    E_start: Annotated[float, Param(0.5, 100.0, unit="experts", log=True, start=(1.0, 8.0))]
    E_max: Annotated[float, Param(2.0, 1e18, unit="experts", log=True, start=(64.0, 4096.0))]
    c: Annotated[float, Param(0.0, 20.0, unit="nats/token", start=(0.5, 2.0))]

    def predict(self, x: Columns) -> Array:
        by_size, by_tokens = self._terms(x)
        return np.asarray(self.a * by_size + self.b * by_tokens + self.c)

    def gradient(self, x: Columns) -> Array:
        many, size, tokens = self._logs(x)
        by_size, by_tokens = self._terms(x)
        first, second = self.a * by_size, self.b * by_tokens
        by_many = first * (self.delta + self.gamma * size) + second * (self.omega + self.zeta * tokens)
        by_start, by_max = log_slopes(x["num_experts"], self.E_start, self.E_max)
        slopes = (
            by_size, first * size, first * many, first * many * size,
            by_tokens, second * tokens, second * many, second * many * tokens,
            by_many * by_start, by_many * by_max, np.ones_like(first),
        )  # fmt: skip
        return np.stack(np.broadcast_arrays(*slopes), axis=-1)

    def effective_experts(self, experts: Array | float) -> Array:
        """Ê: E_start for one expert, E_max for infinitely many."""
        return effective_experts(experts, self.E_start, self.E_max)

    def _logs(self, x: Columns) -> tuple[Array, Array, Array]:
        return (
            np.log(self.effective_experts(x["num_experts"])),
            np.log(x["params_active"]),
            np.log(x["tokens"]),
        )

    def _terms(self, x: Columns) -> tuple[Array, Array]:
        """Those of size and of tokens, without their scales."""
        many, size, tokens = self._logs(x)
        by_size = np.exp(self.delta * many + (self.alpha + self.gamma * many) * size)
        by_tokens = np.exp(self.omega * many + (self.beta + self.zeta * many) * tokens)
        return by_size, by_tokens
