"""Batches that would follow the gradient noise along a training, by two rules. Pure arithmetic.

The norm test grows the batch where the variance of its gradient is more than eta^2 of its square:
B' = Var / (eta^2 |g_B|^2) (lau2024, equation 5), and never shrinks it. Where B' = B, that is
(1 / eta^2 - 1) B_simple: at eta^2 = 1/2 the test holds the batch at the noise scale itself. The other rule is the
noise scale as it is measured, which may fall.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scalecli.errors import ProbeError
from scalecli.probes.noise.estimate import SquaredNorms

ETA = math.sqrt(0.5)


@dataclass(frozen=True, slots=True)
class Stage:
    """From `tokens` on: batches in sequences; the noise scale's is None where |G|^2 is not resolved."""

    tokens: float
    step: int
    norm_test: int
    noise_scale: float | None


def stages(
    stretches: Sequence[tuple[float, int, Sequence[SquaredNorms]]],
    noise_scales: Sequence[float | None],
    *,
    eta: float = ETA,
) -> list[Stage]:
    """One for each stretch (tokens seen, step, norms); `noise_scales` [sequences] are those of the stretches.

    Raises:
        ProbeError: eta lies outside (0, 1).
    """
    if not 0 < eta < 1:
        raise ProbeError(f"the norm test's eta is {eta:g}; it lies between 0 and 1", hint="give --eta 0.7")
    batch = stretches[0][2][0].big_examples
    found = []
    for (tokens, step, norms), scale in zip(stretches, noise_scales, strict=True):
        batch = max(batch, norm_test(norms, eta=eta))
        found.append(Stage(tokens=tokens, step=step, norm_test=batch, noise_scale=scale))
    return found


def norm_test(norms: Sequence[SquaredNorms], *, eta: float) -> int:
    """The next batch [sequences], from means over the steps of a stretch."""
    variance = sum(each.noise() for each in norms) / len(norms)
    square = sum(each.big for each in norms) / len(norms)
    return max(1, math.ceil(variance / (eta**2 * square)))
