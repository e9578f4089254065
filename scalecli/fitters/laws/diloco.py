"""Loss over model size and the number of replicas that train apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from scalecli.fitters.law import Array, Columns, Param, Term


@dataclass(frozen=True, slots=True, kw_only=True)
class DiLoCo:
    """L(N, M) = A N^-alpha M^beta  [nats/token]; N: parameters, M: replicas that average now and then.

    For runs of one number of tokens per parameter. beta is what training apart costs; the same product for
    the best batch and inner rate is a formula (`batch_tokens = A*params**a*replicas**b`). Charles et al.
    2025, section 6.
    """

    name: ClassVar[str] = "diloco"
    inputs: ClassVar[tuple[str, ...]] = ("params", "replicas")
    output: ClassVar[str] = "loss"
    sources: ClassVar[tuple[str, ...]] = ("charles2025",)
    terms: ClassVar[tuple[Term, ...]] = (Term("A", falls={"params": "alpha"}, rises={"replicas": "beta"}),)

    A: Annotated[float, Param(1e-9, 1e15, unit="nats/token", log=True)]
    alpha: Annotated[float, Param(0.0, 2.5, start=(0.02, 1.5))]
    beta: Annotated[float, Param(-1.0, 1.0, start=(0.0, 0.1))]

    def predict(self, x: Columns) -> Array:
        return self.A * x["params"] ** -self.alpha * x["replicas"] ** self.beta

    def gradient(self, x: Columns) -> Array:
        product = x["params"] ** -self.alpha * x["replicas"] ** self.beta
        loss = self.A * product
        return np.stack([product, -loss * np.log(x["params"]), loss * np.log(x["replicas"])], axis=-1)
