"""Loss over model size, steps and batch size, each with a term of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from scalecli.fitters.inverse import column_for_term
from scalecli.fitters.law import Array, Columns, Param, Term


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreeTerm:
    """L(N, S, b) = E + A N^-alpha + B S^-beta + C b^-gamma  [nats/token]; N: parameters, S: steps, b: batch.

    b in tokens. D = S b is split into steps and batch, so that runs at batches that are not optimal count,
    and the best batch at fixed D follows. The split is that of Schaipp 2026 (arXiv 2607.01487), known here from its
    abstract and restatements; that the three are added as powers is our reading of them.
    """

    name: ClassVar[str] = "three-term"
    inputs: ClassVar[tuple[str, ...]] = ("params", "steps", "batch_tokens")
    output: ClassVar[str] = "loss"
    sources: ClassVar[tuple[str, ...]] = ("schaipp2026",)
    terms: ClassVar[tuple[Term, ...]] = (
        Term("E"),
        Term("A", falls={"params": "alpha"}),
        Term("B", falls={"steps": "beta"}),
        Term("C", falls={"batch_tokens": "gamma"}),
    )

    E: Annotated[float, Param(1e-6, 20.0, unit="nats/token", log=True)]
    A: Annotated[float, Param(1e-9, 1e15, unit="nats/token", log=True)]
    B: Annotated[float, Param(1e-9, 1e15, unit="nats/token", log=True)]
    C: Annotated[float, Param(1e-9, 1e15, unit="nats/token", log=True)]
    alpha: Annotated[float, Param(0.0, 2.5, start=(0.02, 1.5))]
    beta: Annotated[float, Param(0.0, 2.5, start=(0.02, 1.5))]
    gamma: Annotated[float, Param(0.0, 2.5, start=(0.02, 1.5))]

    def predict(self, x: Columns) -> Array:
        by_size = self.E + self.A * x["params"] ** -self.alpha
        return by_size + self.B * x["steps"] ** -self.beta + self.C * x["batch_tokens"] ** -self.gamma

    def gradient(self, x: Columns) -> Array:
        size, time = x["params"] ** -self.alpha, x["steps"] ** -self.beta
        batch = x["batch_tokens"] ** -self.gamma
        by_alpha, by_beta = -self.A * size * np.log(x["params"]), -self.B * time * np.log(x["steps"])
        by_gamma = -self.C * batch * np.log(x["batch_tokens"])
        return np.stack([np.ones_like(size), size, time, batch, by_alpha, by_beta, by_gamma], axis=-1)

    def steps_for_loss(
        self, loss: Array | float, params: Array | float, batch_tokens: Array | float
    ) -> Array:
        """S at which this size and batch reach the loss; NaN where they never do."""
        rest = self.E + self.A * params**-self.alpha + self.C * batch_tokens**-self.gamma
        return column_for_term(loss - rest, self.B, self.beta)

    def optimal_batch(self, tokens: Array | float) -> Array | float:
        """The batch [tokens] of least loss at fixed D: b^(beta+gamma) = gamma C D^beta / (beta B)."""
        balance = self.gamma * self.C * tokens**self.beta / (self.beta * self.B)
        return np.asarray(balance ** (1 / (self.beta + self.gamma)))

    def optimal_steps(self, tokens: Array | float) -> Array | float:
        """S = D / b at the best batch."""
        return tokens / self.optimal_batch(tokens)
