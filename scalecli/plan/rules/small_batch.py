"""How Adam's best learning rate grew with the batch where it was measured: far slower than the square root."""

from __future__ import annotations

import math

from scalecli.data.catalogue import published_law
from scalecli.plan.rules.moved import Moved


def small_batch(learning_rate: float, factor: float, batch_tokens: float) -> Moved:
    """lr' = lr factor^p with p from the measured growth over its batch ratio (3 over 1024: p = 0.16)."""
    record = published_law("marek-learning-rate")
    power = math.log(record.values["factor"]) / math.log(record.values["batch_ratio"])
    low, high = record.valid["batch_tokens"]
    outside = not low <= batch_tokens <= high
    return Moved(
        quantity="learning_rate",
        value=learning_rate * factor**power,
        rule=f"measured: lr ∝ batch^{power:.2f}",
        source=record.source,
        range=f"batches of {low:g} to {high:g} tokens; {record.setup}",
        warning=f"{batch_tokens:.3g} tokens are outside the measured batches" if outside else None,
    )
