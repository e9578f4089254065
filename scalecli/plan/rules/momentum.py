"""Momentum SGD at another batch, down to single sequences: constant half-life, constant weight of a sample."""

from __future__ import annotations

from scalecli.plan.rules.moved import Moved


def momentum(learning_rate: float, beta: float, factor: float) -> list[Moved]:
    """m' = m^k and lr' = lr k (1 - m') / (1 - m) for a batch k times as large.

    Each sample then moves the weights by as much and for as long as before. Kosson et al. 2020, equation 9.
    """
    moved = beta**factor
    past = (
        "batch ratios below 1 were measured; the noise of larger batches is another" if factor > 1 else None
    )
    rate = learning_rate * factor * (1 - moved) / (1 - beta)
    return [_moved("beta1", moved, past), _moved("learning_rate", rate, past)]


def _moved(quantity: str, value: float, warning: str | None) -> Moved:
    return Moved(
        quantity=quantity,
        value=value,
        rule="momentum of constant half-life in samples: m^k, lr ∝ k (1 - m^k)",
        source="kosson2020",
        range="SGD with momentum, from large batches down to one sequence",
        warning=warning,
    )
