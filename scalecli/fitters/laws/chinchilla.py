"""Chinchilla: loss over parameters and tokens, additive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from scalecli.fitters.inverse import column_for_term
from scalecli.fitters.law import Array, Columns, Param, Term


@dataclass(frozen=True, slots=True, kw_only=True)
class Chinchilla:
    """L(N, D) = E + A N^-alpha + B D^-beta  [nats/token]; N: parameters, D: tokens.

    Which N (total, non-embedding) is the run table's choice. Hoffmann et al. 2022, equation 2.
    """

    name: ClassVar[str] = "chinchilla"
    inputs: ClassVar[tuple[str, ...]] = ("params", "tokens")
    output: ClassVar[str] = "loss"
    sources: ClassVar[tuple[str, ...]] = ("hoffmann2022", "besiroglu2024")
    terms: ClassVar[tuple[Term, ...]] = (
        Term("E"),
        Term("A", falls={"params": "alpha"}),
        Term("B", falls={"tokens": "beta"}),
    )

    E: Annotated[float, Param(1e-6, 20.0, unit="nats/token", log=True)]
    A: Annotated[float, Param(1e-9, 1e15, unit="nats/token", log=True)]
    B: Annotated[float, Param(1e-9, 1e15, unit="nats/token", log=True)]
    alpha: Annotated[float, Param(0.0, 2.5, start=(0.02, 1.5))]
    beta: Annotated[float, Param(0.0, 2.5, start=(0.02, 1.5))]

    def predict(self, x: Columns) -> Array:
        return self.E + self.A * x["params"] ** -self.alpha + self.B * x["tokens"] ** -self.beta

    def gradient(self, x: Columns) -> Array:
        size, data = x["params"] ** -self.alpha, x["tokens"] ** -self.beta
        one = np.ones_like(size)
        by_alpha, by_beta = -self.A * size * np.log(x["params"]), -self.B * data * np.log(x["tokens"])
        return np.stack([one, size, data, by_alpha, by_beta], axis=-1)

    def optimal_params(self, flops: Array | float) -> Array:
        """N* = G (C/6)^(beta/(alpha+beta)) with G = (alpha A / beta B)^(1/(alpha+beta)); C = 6 N D."""
        total = self.alpha + self.beta
        balance = (self.alpha * self.A / (self.beta * self.B)) ** (1 / total)
        return np.asarray(balance * (flops / 6) ** (self.beta / total))

    def optimal_tokens(self, flops: Array | float) -> Array:
        """D* = C / (6 N*)."""
        return np.asarray(flops / (6 * self.optimal_params(flops)))

    def params_for_loss(self, loss: Array | float, tokens: Array | float) -> Array:
        """N at which these tokens reach the loss; NaN where no size does."""
        return column_for_term(loss - self.E - self.B * tokens**-self.beta, self.A, self.alpha)

    def tokens_for_loss(self, loss: Array | float, params: Array | float) -> Array:
        """D at which this size reaches the loss; NaN where it never does."""
        return column_for_term(loss - self.E - self.A * params**-self.alpha, self.B, self.beta)
