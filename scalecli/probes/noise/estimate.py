"""The gradient noise scale from squared norms of gradients. Pure arithmetic.

B_simple = tr(Sigma) / |G|^2 (McCandlish et al. 2018, 1812.06162, equation 2.9), with both parts unbiased
(appendix A.1): gradients over b examples have E|g_b|^2 = |G|^2 + tr(Sigma) / b, so two sizes of b give both
unknowns. An example is a sequence: tokens of one sequence are not independent.

It says where more examples in a batch stop to pay for plain gradient descent near the present weights. It is
not the critical batch size of a training with Adam, which has been measured to lie elsewhere by an order of
magnitude and more (Merrill et al. 2025, 2505.23971): measure both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scalecli.errors import NotEnoughSignal, ProbeError

Array = npt.NDArray[np.float64]
BOOTSTRAP_DRAWS = 1000
EXAMPLES_PER_SCALE = 32
"""Examples, as a multiple of B_simple, after which 90 % of estimates lie within 15 % (docs/benchmarks.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SquaredNorms:
    """Squared gradient norms at one step: of micro-batches (their mean), and of the whole batch."""

    small: float
    big: float
    small_examples: int
    big_examples: int

    def __post_init__(self) -> None:
        if not 0 < self.small_examples < self.big_examples:
            raise ProbeError(
                f"a noise scale needs two batch sizes, not {self.small_examples} and {self.big_examples} examples",
                hint="use a batch of at least 2 sequences",
            )

    def signal(self) -> float:
        """|G|^2, unbiased: it may be negative where noise is large."""
        small, big = self.small_examples, self.big_examples
        return (big * self.big - small * self.small) / (big - small)

    def noise(self) -> float:
        """tr(Sigma), unbiased."""
        return (self.small - self.big) / (1 / self.small_examples - 1 / self.big_examples)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseScale:
    """B_simple in sequences, with its interval and the examples (sequences) it rests on.

    `signal` is |G|^2 and `noise` tr(Sigma), the means over `steps` steps.
    """

    value: float
    low: float
    high: float
    interval: float
    examples: int
    steps: int
    signal: float
    noise: float

    def tokens(self, sequence_length: int) -> tuple[float, float, float]:
        """Value, low and high as tokens."""
        return self.value * sequence_length, self.low * sequence_length, self.high * sequence_length


def noise_scale(rows: Sequence[SquaredNorms], *, interval: float = 0.9, seed: int = 0) -> NoiseScale:
    """The ratio of means over the steps, with a bootstrap interval over steps.

    Raises:
        NotEnoughSignal: the interval of |G|^2 reaches zero, so that no upper limit exists; carries the
        estimate. ProbeError: there are fewer than two steps.
    """
    if len(rows) < 2:
        raise ProbeError(f"{len(rows)} steps give no interval", hint="measure over more steps (--steps)")
    signal = np.array([row.signal() for row in rows])
    noise = np.array([row.noise() for row in rows])
    examples = sum(row.big_examples for row in rows)
    estimate = float(noise.mean() / signal.mean())
    low, high, least_signal = _bootstrap(signal, noise, interval, seed)
    if signal.mean() <= 0 or least_signal <= 0:
        raise NotEnoughSignal(
            f"{examples} sequences do not resolve the gradient: |G|^2 is {signal.mean():.3g} and its interval reaches "
            f"{least_signal:.3g}; noise over signal is {estimate:.3g} sequences, without an upper limit",
            estimate=estimate,
            hint=f"measure over {_more(estimate, examples)} times the steps, or with a larger batch",
        )
    return NoiseScale(
        value=estimate,
        low=low,
        high=high,
        interval=interval,
        examples=examples,
        steps=len(rows),
        signal=float(signal.mean()),
        noise=float(noise.mean()),
    )


def _bootstrap(signal: Array, noise: Array, interval: float, seed: int) -> tuple[float, float, float]:
    """Low and high of the ratio, and low of the signal.

    The ratio's limits are those of noise - ratio · signal = 0 (Fieller 1954), with the quantile of the
    studentised statistic from resampled steps: a percentile of resampled ratios is too short where the signal
    is weak.
    """
    rng = np.random.default_rng(seed)
    count = len(signal)
    ratio = noise.mean() / signal.mean()
    draws = rng.integers(0, count, (BOOTSTRAP_DRAWS, count))
    contrast = noise - ratio * signal
    drawn = contrast[draws]
    spread = drawn.std(axis=1, ddof=1) / math.sqrt(count)
    with np.errstate(divide="ignore", invalid="ignore"):
        studentised = (drawn.mean(axis=1) - contrast.mean()) / spread
    quantile = float(np.quantile(np.abs(studentised[np.isfinite(studentised)]), interval))
    covariance = np.cov(noise, signal) / count
    least_signal = float(signal.mean() - quantile * math.sqrt(covariance[1, 1]))
    a = signal.mean() ** 2 - quantile**2 * covariance[1, 1]
    b = signal.mean() * noise.mean() - quantile**2 * covariance[0, 1]
    c = noise.mean() ** 2 - quantile**2 * covariance[0, 0]
    root = math.sqrt(max(0.0, b * b - a * c))
    return ((b - root) / a, (b + root) / a, least_signal) if a > 0 else (-math.inf, math.inf, least_signal)


def _more(estimate: float, examples: int) -> int:
    """How many times as many steps would give 15 %, if the estimate is near; at least twice."""
    wanted = EXAMPLES_PER_SCALE * abs(estimate) / examples if math.isfinite(estimate) else 4
    return max(2, min(1000, math.ceil(wanted)))
