"""Power law with a floor: loss over one column."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar

import numpy as np

from scalecli.fitters.inverse import column_for_term
from scalecli.fitters.law import Array, Columns, Param, Term


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerFloor:
    """L(x) = E + A x^-alpha  [nats/token]; x: parameters, or the column that `power-floor:COLUMN` names.

    E is what no growth of x alone can go below. Hestness et al. 2017, section 2.
    """

    name: ClassVar[str] = "power-floor"
    inputs: ClassVar[tuple[str, ...]] = ("params",)
    output: ClassVar[str] = "loss"
    sources: ClassVar[tuple[str, ...]] = ("hestness2017",)
    terms: ClassVar[tuple[Term, ...]] = (Term("E"), Term("A", falls={"params": "alpha"}))

    E: Annotated[float, Param(1e-6, 20.0, unit="nats/token", log=True)]
    A: Annotated[float, Param(1e-9, 1e15, unit="nats/token", log=True)]
    alpha: Annotated[float, Param(0.0, 2.5, start=(0.02, 1.5))]

    @staticmethod
    @cache
    def over(column: str) -> type[Any]:
        """The same law over another column: tokens, flops, steps."""
        return type(
            "PowerFloor",
            (PowerFloor,),
            {
                "__slots__": (),
                "__doc__": PowerFloor.__doc__,
                "name": f"power-floor:{column}",
                "inputs": (column,),
                "terms": (Term("E"), Term("A", falls={column: "alpha"})),
            },
        )

    def predict(self, x: Columns) -> Array:
        return self.E + self.A * x[self.inputs[0]] ** -self.alpha

    def gradient(self, x: Columns) -> Array:
        column = x[self.inputs[0]]
        by_scale = column**-self.alpha
        return np.stack([np.ones_like(by_scale), by_scale, -self.A * by_scale * np.log(column)], axis=-1)

    def input_for_loss(self, loss: Array | float) -> Array:
        """x at which the loss is reached; NaN at and below the floor."""
        return column_for_term(loss - self.E, self.A, self.alpha)
