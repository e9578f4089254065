"""Generalisation error over the size of the training set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from scalecli.fitters.inverse import column_for_term
from scalecli.fitters.law import Array, Columns, Param, Term


@dataclass(frozen=True, slots=True, kw_only=True)
class Hestness:
    """error(m) = gamma + alpha m^-beta  [nats/token]; m: tokens (or samples) in the training set.

    One model family, tuned and large enough at every m; gamma is the error that no data removes. The error
    may be any other that falls with data. Hestness et al. 2017, section 2.
    """

    name: ClassVar[str] = "hestness"
    inputs: ClassVar[tuple[str, ...]] = ("tokens",)
    output: ClassVar[str] = "loss"
    sources: ClassVar[tuple[str, ...]] = ("hestness2017",)
    terms: ClassVar[tuple[Term, ...]] = (Term("gamma"), Term("alpha", falls={"tokens": "beta"}))

    gamma: Annotated[float, Param(1e-9, 100.0, unit="nats/token", log=True)]
    alpha: Annotated[float, Param(1e-9, 1e15, unit="nats/token", log=True)]
    beta: Annotated[float, Param(0.0, 2.5, start=(0.02, 1.5))]

    def predict(self, x: Columns) -> Array:
        return self.gamma + self.alpha * x["tokens"] ** -self.beta

    def gradient(self, x: Columns) -> Array:
        data = x["tokens"] ** -self.beta
        return np.stack([np.ones_like(data), data, -self.alpha * data * np.log(x["tokens"])], axis=-1)

    def tokens_for_loss(self, loss: Array | float) -> Array:
        """m = (alpha / (error - gamma))^(1/beta); NaN at or below the floor."""
        return column_for_term(loss - self.gamma, self.alpha, self.beta)
