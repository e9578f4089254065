"""How often intervals of a critical batch hold the truth, for tables of a few batches.

    python benchmarks/critical_batch.py

Steps S_min (1 + B_crit / B) with log-normal noise at batches spread over a factor of 256 about B_crit; 1,000 worlds a
row for the posterior of `scalecli critical-batch`, 60 for the bootstrap of `scalecli fit --law critical-batch`.
"""

from __future__ import annotations

import numpy as np

from scalecli.fitters.critical.hyperbola import critical_at
from scalecli.fitters.critical.steps import StepsToTarget
from scalecli.fitters.estimate import Method, estimate
from scalecli.fitters.law import Array
from scalecli.fitters.laws.critical_batch import CriticalBatch
from scalecli.fitters.objective import LossName, row_loss
from scalecli.fitters.problem import Data
from scalecli.fitters.resample import Clusters

TRUTH = CriticalBatch(S_min=1e3, B_crit=4e4)
WORLDS, BOOTSTRAP_WORLDS = 1000, 60


def world(rows: int, noise: float, seed: int) -> tuple[Array, Array]:
    """(batches, steps)"""
    batches = np.geomspace(2**11, 2**19, rows)
    scatter = np.exp(noise * np.random.default_rng(seed).normal(size=rows))
    return batches, TRUTH.predict({"batch_tokens": batches}) * scatter


def posterior_coverage(rows: int, noise: float) -> tuple[float, float, int]:
    """Shares of 90 % intervals that hold B_crit and S_min, and how many worlds were not identified."""
    held, unidentified = np.zeros(2), 0
    for seed in range(WORLDS):
        found = critical_at(StepsToTarget(3.0, *world(rows, noise, seed), None), draws=1000)
        if found.B_crit is None or found.S_min is None:
            unidentified += 1
            continue
        for index, (interval, truth) in enumerate(((found.B_crit, TRUTH.B_crit), (found.S_min, TRUTH.S_min))):
            assert interval.low is not None
            assert interval.high is not None
            held[index] += interval.low <= truth <= interval.high
    share = held / max(1, WORLDS - unidentified)
    return float(share[0]), float(share[1]), unidentified


def bootstrap_coverage(rows: int, noise: float) -> float:
    """The share of 90 % intervals for B_crit from resampled residuals, with the default Huber loss."""
    held = 0
    for seed in range(BOOTSTRAP_WORLDS):
        batches, steps = world(rows, noise, seed)
        data = Data({"batch_tokens": batches}, steps, np.ones(rows))
        method = Method(row_loss(LossName.huber, 1e-3), {})
        fitted = estimate(CriticalBatch, data, Clusters.of(None, rows), method)
        low, high = np.quantile(fitted.draws(200, np.random.default_rng(0))[:, 1], [0.05, 0.95])
        held += low <= TRUTH.B_crit <= high
    return held / BOOTSTRAP_WORLDS


def main() -> None:
    print(f"{'batches':>8} {'noise':>6} {'B_crit':>7} {'S_min':>7} {'unidentified':>13} {'bootstrap':>10}")
    for rows, noise in ((5, 0.05), (9, 0.05), (9, 0.2)):
        critical, steps, unidentified = posterior_coverage(rows, noise)
        other = bootstrap_coverage(rows, noise)
        print(f"{rows:8d} {noise:6.2f} {critical:7.1%} {steps:7.1%} {unidentified:13d} {other:10.1%}")


if __name__ == "__main__":
    main()
