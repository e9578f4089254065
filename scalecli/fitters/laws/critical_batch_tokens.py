"""Critical batch size over the tokens trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from scalecli.fitters.law import Array, Columns, Param, Term


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticalBatchTokens:
    """B_crit(D) = c D^b  [tokens]; D: tokens trained on.

    Measured critical sizes grow with the data and hardly with the model (Zhang et al. 2024);
    each definition of "critical" has its own c, so rows of one fit share one. With the model's size:
    `critical-batch-params-tokens`.
    """

    name: ClassVar[str] = "critical-batch-tokens"
    inputs: ClassVar[tuple[str, ...]] = ("tokens",)
    output: ClassVar[str] = "critical_batch_tokens"
    sources: ClassVar[tuple[str, ...]] = ("zhang2024cbs",)
    terms: ClassVar[tuple[Term, ...]] = (Term("c", rises={"tokens": "b"}),)

    c: Annotated[float, Param(1e-20, 1e20, unit="tokens", log=True)]
    b: Annotated[float, Param(-1.0, 3.0, start=(0.0, 1.5))]

    def predict(self, x: Columns) -> Array:
        return self.c * x["tokens"] ** self.b

    def gradient(self, x: Columns) -> Array:
        data = x["tokens"] ** self.b
        return np.stack([data, self.c * data * np.log(x["tokens"])], axis=-1)
