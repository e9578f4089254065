"""Translation loss over the sizes of encoder and decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from scalecli.fitters.law import Array, Columns, Param, Term


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderDecoder:
    """L(N_e, N_d) = L_inf + alpha N_e^-p_e N_d^-p_d  [nats/token]; N_e, N_d: encoder, decoder parameters.

    The two sizes multiply: each is worth most where the other is large. Ghorbani et al. 2021,
    with the reference sizes of the paper taken into alpha.
    """

    name: ClassVar[str] = "encoder-decoder"
    inputs: ClassVar[tuple[str, ...]] = ("params_encoder", "params_decoder")
    output: ClassVar[str] = "loss"
    sources: ClassVar[tuple[str, ...]] = ("ghorbani2021",)
    terms: ClassVar[tuple[Term, ...]] = (
        Term("L_inf"),
        Term("alpha", falls={"params_encoder": "p_e", "params_decoder": "p_d"}),
    )

    L_inf: Annotated[float, Param(1e-9, 20.0, unit="nats/token", log=True)]
    alpha: Annotated[float, Param(1e-9, 1e20, unit="nats/token", log=True)]
    p_e: Annotated[float, Param(0.0, 2.5, start=(0.02, 1.5))]
    p_d: Annotated[float, Param(0.0, 2.5, start=(0.02, 1.5))]

    def predict(self, x: Columns) -> Array:
        return self.L_inf + self.alpha * x["params_encoder"] ** -self.p_e * x["params_decoder"] ** -self.p_d

    def gradient(self, x: Columns) -> Array:
        sizes = x["params_encoder"] ** -self.p_e * x["params_decoder"] ** -self.p_d
        by_e = -self.alpha * sizes * np.log(x["params_encoder"])
        by_d = -self.alpha * sizes * np.log(x["params_decoder"])
        return np.stack([np.ones_like(sizes), sizes, by_e, by_d], axis=-1)

    def optimal_split(self) -> Array | float:
        """The encoder's share of the parameters that is best at any total: p_e / (p_e + p_d)."""
        return self.p_e / (self.p_e + self.p_d)
