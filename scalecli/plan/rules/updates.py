"""Whether a run has updates enough: a batch can be too large for its tokens."""

from __future__ import annotations

import math

from scalecli.plan.rules.moved import Moved

SETTLING = 10.0
"""Updates, in memories 1/(1 - beta2) of the second moment, below which Adam spends much of a run warming up."""


def same_updates(steps: float, batch_tokens: float, tokens: float) -> Moved:
    """The tokens that give a run at this batch as many updates as the setting had. Hoffer et al. 2017, section 5."""
    now = tokens / batch_tokens
    return Moved(
        quantity="tokens",
        value=steps * batch_tokens,
        rule="as many updates as before, not as many epochs",
        source="hoffer2017",
        range="image classification with SGD",
        warning=f"{now:.3g} updates instead of {steps:.3g}" if now < steps else None,
    )


def least_updates(beta2: float | None) -> float:
    """Fewer updates than this are too few for the second moment to settle; 0 where there is none."""
    return 0.0 if beta2 is None else SETTLING / (1 - beta2)


def largest_batch(tokens: float, beta2: float | None) -> float:
    """The batch [tokens] that leaves a run just as many updates; infinite without a second moment."""
    least = least_updates(beta2)
    return tokens / least if least else math.inf
