"""How often intervals of the largest curvature's two parts hold the truth, and how often no trend is taken for one.

    python benchmarks/curvature.py

Synthetic largest eigenvalues lambda (1 + B_2 / B) with lambda 400 and B_2 250 tokens at four batches, log-normal
scatter and three or eight repeats; 1,000 seeded worlds a row.
"""

from __future__ import annotations

import numpy as np

from scalecli.errors import NotEnoughSignal
from scalecli.probes.curvature.estimate import spike

BATCHES = (128.0, 512.0, 2048.0, 8192.0)
FULL, DOUBLED, WORLDS = 400.0, 250.0, 1000


def covered(repeats: int, scatter: float) -> tuple[float, float, int]:
    """Shares of 90 % intervals that hold lambda and B_2, and how many worlds were refused."""
    batch = np.repeat(BATCHES, repeats)
    held, refused = np.zeros(2), 0
    for seed in range(WORLDS):
        noise = np.exp(np.random.default_rng(seed).normal(0, scatter, len(batch)))
        try:
            found = spike(batch, FULL * (1 + DOUBLED / batch) * noise)
        except NotEnoughSignal:
            refused += 1
            continue
        held += [
            found.full_low <= FULL <= found.full_high,
            found.doubled_low <= DOUBLED <= found.doubled_high,
        ]
    share = held / max(1, WORLDS - refused)
    return float(share[0]), float(share[1]), refused


def false_trends(repeats: int, scatter: float) -> float:
    """The share of worlds without a trend in which one is found."""
    batch = np.repeat(BATCHES, repeats)
    found = 0
    for seed in range(WORLDS):
        try:
            spike(batch, FULL * np.exp(np.random.default_rng(seed).normal(0, scatter, len(batch))))
        except NotEnoughSignal:
            continue
        found += 1
    return found / WORLDS


def main() -> None:
    print("repeats   scatter   lambda held   B_2 held   refused   false trends")
    for repeats in (3, 8):
        for scatter in (0.1, 0.2, 0.4):
            full, doubled, refused = covered(repeats, scatter)
            wrong = false_trends(repeats, scatter)
            print(
                f"{repeats:>7} {scatter:>9.0%} {full:>13.1%} {doubled:>10.1%} {refused / WORLDS:>9.1%} {wrong:>14.1%}"
            )


if __name__ == "__main__":
    main()
