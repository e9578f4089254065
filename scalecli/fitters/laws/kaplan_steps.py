"""Kaplan's loss over model size and optimizer steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from scalecli.fitters.inverse import column_for_term
from scalecli.fitters.law import Array, Columns, Param, Term


@dataclass(frozen=True, slots=True, kw_only=True)
class KaplanSteps:
    """L(N, S) = A N^-alpha + B S^-beta  [nats/token]; N: parameters, S: steps at large batches.

    The paper writes (N_c / N)^alpha + (S_c / S)^beta, so A = N_c^alpha and B = S_c^beta, with N without
    embeddings and S = S_min, the steps at batches far above the critical one, to which runs at a batch B
    are corrected by S_min = S / (1 + B_crit / B). Kaplan et al. 2020, equation 5.6.
    """

    name: ClassVar[str] = "kaplan-steps"
    inputs: ClassVar[tuple[str, ...]] = ("params", "steps")
    output: ClassVar[str] = "loss"
    sources: ClassVar[tuple[str, ...]] = ("kaplan2020",)
    terms: ClassVar[tuple[Term, ...]] = (
        Term("A", falls={"params": "alpha"}),
        Term("B", falls={"steps": "beta"}),
    )

    A: Annotated[float, Param(1e-9, 1e15, unit="nats/token", log=True)]
    B: Annotated[float, Param(1e-9, 1e15, unit="nats/token", log=True)]
    alpha: Annotated[float, Param(0.0, 2.5, start=(0.02, 0.5))]
    beta: Annotated[float, Param(0.0, 2.5, start=(0.1, 1.5))]

    def predict(self, x: Columns) -> Array:
        return self.A * x["params"] ** -self.alpha + self.B * x["steps"] ** -self.beta

    def gradient(self, x: Columns) -> Array:
        size, time = x["params"] ** -self.alpha, x["steps"] ** -self.beta
        by_alpha, by_beta = -self.A * size * np.log(x["params"]), -self.B * time * np.log(x["steps"])
        return np.stack([size, time, by_alpha, by_beta], axis=-1)

    def steps_for_loss(self, loss: Array | float, params: Array | float) -> Array:
        """S at which this size reaches the loss; NaN where it never does."""
        return column_for_term(loss - self.A * params**-self.alpha, self.B, self.beta)
