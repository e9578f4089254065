"""A ladder of runs on a surface of the Chinchilla form, with the structure of real ones."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np

from scalecli.fitters.law import Array
from scalecli.fitters.laws.chinchilla import Chinchilla

SIZES = np.geomspace(1e7, 1e9, 12)
RATIOS = np.array([5.0, 20.0, 80.0, 320.0])


@dataclass(frozen=True, slots=True, kw_only=True)
class ChinchillaLadder:
    """L(N, D) = E + A N^-alpha + B D^-beta over twelve sizes at four tokens per parameter."""

    name: ClassVar[str] = "chinchilla"
    source: ClassVar[str] = "hoffmann2022"
    measured: ClassVar[str] = "loss"
    group: ClassVar[str | None] = "params"

    E: float = 1.8
    A: float = 480.0
    B: float = 2100.0
    alpha: float = 0.35
    beta: float = 0.37

    def columns(self) -> dict[str, Array]:
        size, ratio = (axis.ravel() for axis in np.meshgrid(np.round(SIZES), RATIOS))
        x = {"params": size, "tokens": size * ratio}
        law = Chinchilla(E=self.E, A=self.A, B=self.B, alpha=self.alpha, beta=self.beta)
        return {**x, "loss": law.predict(x)}

    def truth(self) -> dict[str, float]:
        return {f"{field.name} of chinchilla": getattr(self, field.name) for field in fields(self)}
