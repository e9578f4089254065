"""What a wrong batch or learning rate costs, in compute."""

from __future__ import annotations

from typing import Any

import numpy as np

STEP = 1e-4
"""Relative change of params and tokens for the slope: small against any law's bend, large against rounding."""


def excess_compute(excess: float, loss_law: Any, params: float, tokens: float) -> float:
    """The fraction of compute that `excess` nats per token are worth: excess / |dL / d ln C|.

    C = 6 N D grows at fixed tokens per parameter; `loss_law` is any law of loss over params and tokens.
    """
    ends = np.exp(np.array([-STEP, STEP]) / 2)
    loss = loss_law.predict({"params": params * ends, "tokens": tokens * ends})
    return float(excess / abs((loss[1] - loss[0]) / (2 * STEP)))
