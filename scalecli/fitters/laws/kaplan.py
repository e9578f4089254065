"""Kaplan: loss over parameters and tokens, coupled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from scalecli.fitters.law import Array, Columns, Param


@dataclass(frozen=True, slots=True, kw_only=True)
class Kaplan:
    """L(N, D) = ((N_c / N)^(alpha_N / alpha_D) + D_c / D)^alpha_D  [nats/token]; N: parameters, D: tokens.

    The paper counts N without embeddings. There is no floor: the form holds until the entropy of text is
    near. Kaplan et al. 2020, equation 1.5.
    """

    name: ClassVar[str] = "kaplan"
    inputs: ClassVar[tuple[str, ...]] = ("params", "tokens")
    output: ClassVar[str] = "loss"
    sources: ClassVar[tuple[str, ...]] = ("kaplan2020",)

    N_c: Annotated[float, Param(1e-3, 1e60, unit="parameters", log=True, start=(1e8, 1e20))]
    D_c: Annotated[float, Param(1e-3, 1e60, unit="tokens", log=True, start=(1e8, 1e20))]
    alpha_N: Annotated[float, Param(1e-3, 2.5, start=(0.02, 0.5))]
    alpha_D: Annotated[float, Param(1e-3, 2.5, start=(0.02, 0.5))]

    def predict(self, x: Columns) -> Array:
        size, data = self._terms(x)
        return (size + data) ** self.alpha_D

    def gradient(self, x: Columns) -> Array:
        size, data = self._terms(x)
        total = size + data
        loss = total**self.alpha_D
        slope = self.alpha_D * loss / total
        log_ratio = np.log(self.N_c / x["params"])
        ratio = self.alpha_N / self.alpha_D
        by_alpha_d = loss * np.log(total) - slope * size * log_ratio * ratio / self.alpha_D
        return np.stack(
            [
                slope * size * ratio / self.N_c,
                slope * data / self.D_c,
                slope * size * log_ratio / self.alpha_D,
                by_alpha_d,
            ],
            axis=-1,
        )

    def optimal_params(self, flops: Array | float) -> Array:
        """N* = (r N_c^r C / (6 D_c))^(1 / (1 + r)) with r = alpha_N / alpha_D; C = 6 N D.

        The least loss for runs to the end of their tokens; not the paper's own allocation, which stops runs
        early.
        """
        ratio = self.alpha_N / self.alpha_D
        return np.asarray((ratio * self.N_c**ratio * flops / (6 * self.D_c)) ** (1 / (1 + ratio)))

    def optimal_tokens(self, flops: Array | float) -> Array:
        """D* = C / (6 N*)."""
        return np.asarray(flops / (6 * self.optimal_params(flops)))

    def tokens_for_loss(self, loss: Array | float, params: Array | float) -> Array:
        """D at which this size reaches the loss; NaN where it never does."""
        size = (self.N_c / params) ** (self.alpha_N / self.alpha_D)
        rest = np.asarray(loss ** (1 / self.alpha_D) - size, dtype=float)
        return np.asarray(self.D_c / np.where(rest > 0, rest, np.nan))

    def _terms(self, x: Columns) -> tuple[Array, Array]:
        ratio = self.alpha_N / self.alpha_D
        return np.asarray((self.N_c / x["params"]) ** ratio), np.asarray(self.D_c / x["tokens"])
