"""Measured values that are no loss: those that rise with scale."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from scalecli.data.notes import Notice
from scalecli.fitters.checks.unread import ranks
from scalecli.fitters.domain import scale_of
from scalecli.fitters.law import Array, Columns, measured_column

FEWEST = 6
RISING = 0.5
"""Spearman correlation with scale from which on values rise; losses of runs fall."""


def rising_values(law: type[Any], x: Columns, y: Array) -> Iterator[Notice]:
    """A warning for a "loss" that rises with scale, and for a formula of a metric."""
    if str(law.output).startswith("metric_"):
        yield Notice(
            "W-METRIC",
            f"{law.output} is a score of a task: scores do not follow the loss (ghorbani2021) and saturate; fit the "
            "loss first, and the score over the loss",
        )
    if measured_column(law) != "loss" or len(y) < FEWEST:
        return
    scale = scale_of(law, x, np.zeros_like(y))
    if np.ptp(scale) > 0 and np.ptp(y) > 0 and np.corrcoef(ranks(scale), ranks(y))[0, 1] > RISING:
        yield Notice(
            "W-METRIC",
            "the loss rises with scale: is the column an accuracy or another score? Laws here are of losses",
        )
