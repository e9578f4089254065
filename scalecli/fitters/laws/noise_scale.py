"""Gradient noise scale over the loss that has been reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from scalecli.fitters.law import Array, Columns, Param


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseScale:
    """B_simple(L) = B_star L^(-1/alpha)  [tokens]; L: loss in nats/token; B_simple = tr(Sigma) / |G|^2.

    The form of `critical-batch-loss`, for the noise scale along a training: the two are comparable point by
    point, and only their measured ratio says how far the noise scale predicts a critical batch size.
    McCandlish et al. 2018, section 2.2 and figure 13; Kaplan et al. 2020, equation 5.3.
    """

    name: ClassVar[str] = "noise-scale"
    inputs: ClassVar[tuple[str, ...]] = ("loss",)
    output: ClassVar[str] = "noise_scale_tokens"
    sources: ClassVar[tuple[str, ...]] = ("mccandlish2018", "kaplan2020")
    linear: ClassVar[tuple[str, ...]] = ("B_star",)

    B_star: Annotated[float, Param(1e-3, 1e30, unit="tokens", log=True)]
    alpha: Annotated[float, Param(0.01, 10.0, log=True, start=(0.05, 2.0))]

    def predict(self, x: Columns) -> Array:
        return self.B_star * x["loss"] ** (-1 / self.alpha)

    def gradient(self, x: Columns) -> Array:
        power = x["loss"] ** (-1 / self.alpha)
        return np.stack([power, self.B_star * power * np.log(x["loss"]) / self.alpha**2], axis=-1)
