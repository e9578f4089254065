"""Loss over compute and the ratio of tokens to parameters: over-trained models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from scalecli.fitters.law import Array, Columns, Param, Term


@dataclass(frozen=True, slots=True, kw_only=True)
class Gadre:
    """L(C, M) = E + (a M^eta + b M^-eta) C^-eta  [nats/token]; C: FLOPs, M = tokens / params.

    Over-training (larger M) shifts the line of loss against compute and leaves its slope. With C = 6 N D
    this is Chinchilla with both exponents 2 eta. Gadre et al. 2024, equation 4.
    """

    name: ClassVar[str] = "gadre"
    inputs: ClassVar[tuple[str, ...]] = ("flops", "params", "tokens")
    output: ClassVar[str] = "loss"
    sources: ClassVar[tuple[str, ...]] = ("gadre2024",)
    terms: ClassVar[tuple[Term, ...]] = (
        Term("E"),
        Term("a", falls={"flops": "eta", "params": "eta"}, rises={"tokens": "eta"}),
        Term("b", falls={"flops": "eta", "tokens": "eta"}, rises={"params": "eta"}),
    )

    E: Annotated[float, Param(1e-6, 20.0, unit="nats/token", log=True)]
    a: Annotated[float, Param(1e-9, 1e15, unit="nats/token", log=True)]
    b: Annotated[float, Param(1e-9, 1e15, unit="nats/token", log=True)]
    eta: Annotated[float, Param(0.0, 1.25, start=(0.01, 0.75))]

    def predict(self, x: Columns) -> Array:
        ratio, power = x["tokens"] / x["params"], x["flops"] ** -self.eta
        return self.E + (self.a * ratio**self.eta + self.b * ratio**-self.eta) * power

    def gradient(self, x: Columns) -> Array:
        ratio, power = x["tokens"] / x["params"], x["flops"] ** -self.eta
        by_a, by_b = ratio**self.eta * power, ratio**-self.eta * power
        log_ratio, log_flops = np.log(ratio), np.log(x["flops"])
        by_eta = self.a * by_a * (log_ratio - log_flops) - self.b * by_b * (log_ratio + log_flops)
        return np.stack([np.ones_like(by_a), by_a, by_b, by_eta], axis=-1)

    def optimal_ratio(self) -> Array | float:
        """Tokens per parameter of least loss at any compute: M^(2 eta) = b / a."""
        return np.asarray((self.b / self.a) ** (1 / (2 * self.eta)))
