"""Critical batch size over the loss that has been reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from scalecli.fitters.law import Array, Columns, Param


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticalBatchLoss:
    """B_crit(L) = B_star L^(-1/alpha)  [tokens]; L: loss in nats/token, whatever the model's size.

    Rows are critical batch sizes measured at several target losses, or along a training. At B_crit training
    costs twice the tokens of the smallest batches. Kaplan et al. 2020, equation 5.3.
    """

    name: ClassVar[str] = "critical-batch-loss"
    inputs: ClassVar[tuple[str, ...]] = ("loss",)
    output: ClassVar[str] = "critical_batch_tokens"
    sources: ClassVar[tuple[str, ...]] = ("kaplan2020", "mccandlish2018")
    linear: ClassVar[tuple[str, ...]] = ("B_star",)

    B_star: Annotated[float, Param(1e-3, 1e30, unit="tokens", log=True)]
    alpha: Annotated[float, Param(0.01, 10.0, log=True, start=(0.05, 2.0))]

    def predict(self, x: Columns) -> Array:
        return self.B_star * x["loss"] ** (-1 / self.alpha)

    def gradient(self, x: Columns) -> Array:
        power = x["loss"] ** (-1 / self.alpha)
        return np.stack([power, self.B_star * power * np.log(x["loss"]) / self.alpha**2], axis=-1)

    def loss_for_critical_batch_tokens(self, critical_batch_tokens: Array | float) -> Array:
        """The loss at which this batch is critical, (B_star / B)^alpha: above it the batch is too large."""
        return np.asarray((self.B_star / critical_batch_tokens) ** self.alpha)
