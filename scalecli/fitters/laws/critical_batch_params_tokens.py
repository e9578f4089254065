"""Critical batch size over model size and tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from scalecli.fitters.law import Array, Columns, Param, Term


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticalBatchParamsTokens:
    """B_crit(N, D) = c N^a D^b  [tokens]; N: parameters, D: tokens trained on.

    Says how much of the growth is due to the model and how much to the data; needs runs in which the two
    vary apart. Zhang et al. 2024 (there one exponent at a time, the other quantity held fixed).
    """

    name: ClassVar[str] = "critical-batch-params-tokens"
    inputs: ClassVar[tuple[str, ...]] = ("params", "tokens")
    output: ClassVar[str] = "critical_batch_tokens"
    sources: ClassVar[tuple[str, ...]] = ("zhang2024cbs",)
    terms: ClassVar[tuple[Term, ...]] = (Term("c", rises={"params": "a", "tokens": "b"}),)

    c: Annotated[float, Param(1e-20, 1e20, unit="tokens", log=True)]
    a: Annotated[float, Param(-2.0, 2.0, start=(-0.5, 1.0))]
    b: Annotated[float, Param(-1.0, 3.0, start=(0.0, 1.5))]

    def predict(self, x: Columns) -> Array:
        return self.c * x["params"] ** self.a * x["tokens"] ** self.b

    def gradient(self, x: Columns) -> Array:
        power = x["params"] ** self.a * x["tokens"] ** self.b
        by_a, by_b = self.c * power * np.log(x["params"]), self.c * power * np.log(x["tokens"])
        return np.stack([power, by_a, by_b], axis=-1)
