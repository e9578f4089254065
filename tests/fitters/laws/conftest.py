"""Fits without draws and checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from scalecli.fitters.law import Array, Columns, with_values
from scalecli.fitters.objective import LossName, row_loss
from scalecli.fitters.problem import Data
from scalecli.fitters.solver import solve


@pytest.fixture(scope="session")
def point() -> Callable[..., Any]:
    """`point(law, x, y, loss, pins)` is the law at its point estimate."""

    def estimate(
        law: type[Any],
        x: Columns,
        y: Array,
        loss: str = "least-squares",
        pins: Mapping[str, float] | None = None,
    ) -> Any:
        data = Data(x, y, np.ones(len(y)))
        return with_values(law, solve(law, data, row_loss(LossName(loss), 1e-3), pins or {}).raw)

    return estimate
