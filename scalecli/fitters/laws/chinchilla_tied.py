"""Chinchilla with one exponent for parameters and tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from scalecli.fitters.inverse import column_for_term
from scalecli.fitters.law import Array, Columns, Param, Term


@dataclass(frozen=True, slots=True, kw_only=True)
class ChinchillaTied:
    """L(N, D) = E + A N^-alpha + B D^-alpha  [nats/token]; N: parameters, D: tokens.

    Parameters and tokens then grow alike with compute, at a fixed number of tokens per parameter. For runs
    too few to tell two exponents. Muennighoff et al. 2023, section 4, fit this form.
    """

    name: ClassVar[str] = "chinchilla-tied"
    inputs: ClassVar[tuple[str, ...]] = ("params", "tokens")
    output: ClassVar[str] = "loss"
    sources: ClassVar[tuple[str, ...]] = ("hoffmann2022", "muennighoff2023")
    terms: ClassVar[tuple[Term, ...]] = (
        Term("E"),
        Term("A", falls={"params": "alpha"}),
        Term("B", falls={"tokens": "alpha"}),
    )

    E: Annotated[float, Param(1e-6, 20.0, unit="nats/token", log=True)]
    A: Annotated[float, Param(1e-9, 1e15, unit="nats/token", log=True)]
    B: Annotated[float, Param(1e-9, 1e15, unit="nats/token", log=True)]
    alpha: Annotated[float, Param(0.0, 2.5, start=(0.02, 1.5))]

    def predict(self, x: Columns) -> Array:
        return self.E + self.A * x["params"] ** -self.alpha + self.B * x["tokens"] ** -self.alpha

    def gradient(self, x: Columns) -> Array:
        size, data = x["params"] ** -self.alpha, x["tokens"] ** -self.alpha
        by_alpha = -self.A * size * np.log(x["params"]) - self.B * data * np.log(x["tokens"])
        return np.stack([np.ones_like(size), size, data, by_alpha], axis=-1)

    def optimal_params(self, flops: Array | float) -> Array:
        """N* = (A / B)^(1 / 2 alpha) (C / 6)^(1/2); C = 6 N D."""
        return np.asarray((self.A / self.B) ** (0.5 / self.alpha) * np.sqrt(flops / 6))

    def optimal_tokens(self, flops: Array | float) -> Array:
        """D* = C / (6 N*)."""
        return np.asarray(flops / (6 * self.optimal_params(flops)))

    def params_for_loss(self, loss: Array | float, tokens: Array | float) -> Array:
        """N at which these tokens reach the loss; NaN where no size does."""
        return column_for_term(loss - self.E - self.B * tokens**-self.alpha, self.A, self.alpha)

    def tokens_for_loss(self, loss: Array | float, params: Array | float) -> Array:
        """D at which this size reaches the loss; NaN where it never does."""
        return column_for_term(loss - self.E - self.A * params**-self.alpha, self.B, self.alpha)
