"""The surge rule: Adam's learning rate rises with the batch up to the noise scale of its grid, then falls."""

from __future__ import annotations

from scalecli.fitters.fit import Fit
from scalecli.plan.rules.moved import Moved


def surge(learning_rate: float, from_batch: float, to_batch: float, fit: Fit) -> Moved:
    """lr' = lr f(B') / f(B), f the fitted `surge` law; only the place of its peak matters.

    The peak is fitted from a grid of learning rates over batches, never taken from a gradient noise scale.
    """
    found = fit.query(lambda law: learning_rate * law.relative_rate(to_batch) / law.relative_rate(from_batch))
    low, high = fit.domain["batch_tokens"]
    outside = not (low <= from_batch <= high and low <= to_batch <= high)
    return Moved(
        quantity="learning_rate",
        value=found.value,
        low=found.low,
        high=found.high,
        rule=f"surge: peaks at a batch of {fit.law.B_noise:.3g} tokens",
        source="li2024surge",
        range=f"Adam; the grid's batches, {low:.3g} to {high:.3g} tokens",
        warning="a batch outside the grid" if outside else None,
    )
