"""Published run tables, as frames, and fits without draws and checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from scalecli.fitters.law import Array, Columns, with_values
from scalecli.fitters.objective import LossName, row_loss
from scalecli.fitters.problem import Data
from scalecli.fitters.solver import solve

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="session")
def table() -> Callable[[str], pd.DataFrame]:
    """`table("repeated_data/runs.csv")` is that table of tests/data."""
    return lambda name: pd.read_csv(DATA / name)


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
