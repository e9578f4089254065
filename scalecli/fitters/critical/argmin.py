"""The batch that reaches a target with the fewest samples: the critical batch of adversarial training.

Where two time scales compete (a GAN's two networks), small batches need more samples too, and the samples to the
target have a minimum inside. Sato and Iiduka 2022: K(B) = A B / (eps^2 B - C) has it at 2 C / eps^2.
"""

from __future__ import annotations

import numpy as np

from scalecli.fitters.law import Array


def fewest_samples(batch_tokens: Array, steps: Array) -> float | None:
    """Argmin over batches [tokens] of steps x batch, between the tried ones; None where it lies at an edge.

    The vertex of the parabola in logarithms through the lowest point and its neighbours: no form is assumed.
    Both arrays have shape (batches,), batches rising.
    """
    samples = batch_tokens * steps
    lowest = int(samples.argmin())
    if not 0 < lowest < len(samples) - 1:
        return None
    near = slice(lowest - 1, lowest + 2)
    curvature, slope, _ = np.polyfit(np.log(batch_tokens[near]), np.log(samples[near]), 2)
    return float(np.exp(-slope / (2 * curvature)))
