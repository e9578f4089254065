"""Decays whose memory is kept constant in tokens: the second moment of Adam, and averages of weights."""

from __future__ import annotations

import math

from scalecli.plan.rules.moved import Moved


def beta2_half_life(beta2: float, factor: float) -> Moved:
    """beta2' = beta2^k for a batch k times as large: the same half-life in tokens. Marek et al. 2025, section 4."""
    return _kept("beta2", beta2, factor, "beta2 of constant half-life in tokens; beta1 stays", "marek2025")


def ema_half_life(ema_decay: float, factor: float) -> Moved:
    """rho' = rho^k for a batch k times as large. Busbridge et al. 2023, definition 1.2."""
    return _kept(
        "ema_decay",
        ema_decay,
        factor,
        "average of weights with constant half-life in tokens",
        "busbridge2023",
    )


def _kept(quantity: str, decay: float, factor: float, rule: str, source: str) -> Moved:
    moved = decay**factor
    # A half-life under a step: the average is the last value, and the rule says nothing about how noisy that is.
    short = moved <= 0.5
    warning = (
        f"the half-life would be {math.log(0.5) / math.log(moved):.2g} steps" if short and moved > 0 else None
    )
    return Moved(
        quantity=quantity, value=moved, rule=rule, source=source,
        range="half-lives of more than a step", warning=warning,
    )  # fmt: skip
