"""Power law: loss over one column."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar

import numpy as np

from scalecli.fitters.inverse import column_for_term
from scalecli.fitters.law import Array, Columns, Param, Term


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """L(x) = A x^-alpha  [nats/token]; x: parameters, or the column that `power:COLUMN` names.

    With A = x_c^alpha this is (x_c / x)^alpha of Kaplan et al. 2020, equations 1.1 to 1.3, and Clark et al.
    2022, equation 1.
    """

    name: ClassVar[str] = "power"
    inputs: ClassVar[tuple[str, ...]] = ("params",)
    output: ClassVar[str] = "loss"
    sources: ClassVar[tuple[str, ...]] = ("kaplan2020", "clark2022")
    terms: ClassVar[tuple[Term, ...]] = (Term("A", falls={"params": "alpha"}),)

    A: Annotated[float, Param(1e-9, 1e15, unit="nats/token", log=True)]
    alpha: Annotated[float, Param(0.0, 2.5, start=(0.02, 1.5))]

    @staticmethod
    @cache
    def over(column: str) -> type[Any]:
        """The same law over another column: tokens, flops, steps."""
        return type(
            "Power",
            (Power,),
            {
                "__slots__": (),
                "__doc__": Power.__doc__,
                "name": f"power:{column}",
                "inputs": (column,),
                "terms": (Term("A", falls={column: "alpha"}),),
            },
        )

    def predict(self, x: Columns) -> Array:
        return self.A * x[self.inputs[0]] ** -self.alpha

    def gradient(self, x: Columns) -> Array:
        column = x[self.inputs[0]]
        by_scale = column**-self.alpha
        return np.stack([by_scale, -self.A * by_scale * np.log(column)], axis=-1)

    def input_for_loss(self, loss: Array | float) -> Array:
        """x at which the loss is reached; 1 is reached at x_c = A^(1 / alpha)."""
        return column_for_term(loss, self.A, self.alpha)
