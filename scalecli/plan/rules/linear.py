"""The linear rule: SGD's learning rate grows as the batch."""

from __future__ import annotations

from scalecli.data.catalogue import published_law
from scalecli.plan.rules.moved import Moved


def linear(learning_rate: float, factor: float, past_critical: bool) -> Moved:
    """lr' = factor lr for a batch `factor` times as large."""
    reach = published_law("goyal-linear").values["batch_ratio"]
    warning = None
    if past_critical:
        warning = "beyond the critical batch the rate stops growing: the rule diverges"
    elif not 1 / reach <= factor <= reach:
        warning = f"a batch ratio of {factor:.3g} is outside the {reach:g}× that were measured"
    return Moved(
        quantity="learning_rate",
        value=learning_rate * factor,
        rule="linear: lr ∝ batch",
        source="goyal2017",
        range=f"SGD, batch ratios up to {reach:g}, far below the critical batch",
        warning=warning,
    )
