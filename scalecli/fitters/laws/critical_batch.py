"""Critical batch size: the steps that reach one target loss, over batch sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from scalecli.fitters.law import Array, Columns, Param


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticalBatch:
    """S(B) = S_min (1 + B_crit / B)  [steps to a target loss]; B: tokens a step.

    The same curve as (S / S_min - 1) (E / E_min - 1) = 1 with E = S B tokens and E_min = S_min B_crit. One
    fit is one target loss. Training at B = B_crit costs twice the steps and twice the tokens of the two
    limits. McCandlish et al. 2018, equations 2.11 and 2.12.
    """

    name: ClassVar[str] = "critical-batch"
    inputs: ClassVar[tuple[str, ...]] = ("batch_tokens",)
    output: ClassVar[str] = "steps"
    sources: ClassVar[tuple[str, ...]] = ("mccandlish2018",)
    linear: ClassVar[tuple[str, ...]] = ("S_min",)

    S_min: Annotated[float, Param(1e-3, 1e12, unit="steps", log=True)]
    B_crit: Annotated[float, Param(1e-3, 1e15, unit="tokens", log=True)]

    def predict(self, x: Columns) -> Array:
        return self.S_min * (1 + self.B_crit / x["batch_tokens"])

    def gradient(self, x: Columns) -> Array:
        by_s_min = 1 + self.B_crit / x["batch_tokens"]
        by_b_crit = self.S_min / x["batch_tokens"]
        return np.stack(np.broadcast_arrays(by_s_min, by_b_crit), axis=-1)

    def min_tokens(self) -> Array | float:
        """E_min = S_min B_crit: the tokens that the target costs at the smallest batches."""
        return self.S_min * self.B_crit

    def tokens(self, batch_tokens: Array | float) -> Array | float:
        """E(B) = S_min (B + B_crit): the tokens that the target costs at this batch size."""
        return self.S_min * (batch_tokens + self.B_crit)

    def batch_tokens_for_steps(self, steps: Array | float) -> Array | float:
        """B = B_crit / (S / S_min - 1); NaN where S <= S_min: no batch is large enough."""
        excess = np.asarray(steps / self.S_min - 1, dtype=float)
        return self.B_crit / np.where(excess > 0, excess, np.nan)

    def batch_within(self, extra_tokens: float) -> Array | float:
        """The largest batch [tokens] that costs at most this fraction of tokens above E_min."""
        return extra_tokens * self.B_crit

    def batch_at_overhead(self, overhead: float, from_batch: float) -> Array | float:
        """The batch whose steps exceed linear scaling from `from_batch` by `overhead` (Zhang et al.: 0.2).

        S(B) B = (1 + overhead) S(B0) B0 gives B = overhead B_crit + (1 + overhead) B0.
        """
        return overhead * self.B_crit + (1 + overhead) * from_batch
