"""How good the noise scale is for each example spent: eight micro-batches against single examples.

    python benchmarks/noise.py

Synthetic Gaussian gradients with a known B_simple of 256 sequences; 300 repeats; the centre 90 % of estimate over
truth, and how often the 90 % interval covers the truth where one exists.
"""

from __future__ import annotations

import numpy as np

from scalecli.errors import NotEnoughSignal
from scalecli.probes.noise.estimate import SquaredNorms, noise_scale

TRUE_SCALE, SIZE, REPEATS, BATCH = 256.0, 64, 300, 64


def rows(parts: int, steps: int, rng: np.random.Generator) -> list[SquaredNorms]:
    micro = BATCH // parts
    mean = np.full(SIZE, SIZE**-0.5)
    spread = np.sqrt(TRUE_SCALE / SIZE / micro)
    norms = []
    for _ in range(steps):
        gradients = mean + rng.normal(0, spread, (parts, SIZE))
        small, big = (gradients**2).sum(1).mean(), (gradients.mean(0) ** 2).sum()
        norms.append(
            SquaredNorms(small=float(small), big=float(big), small_examples=micro, big_examples=BATCH)
        )
    return norms


def main() -> None:
    rng = np.random.default_rng(0)
    print("examples / B_simple   micro-batches   centre 90 %   covered   without an interval")
    for multiple in (8, 32, 128):
        steps = int(multiple * TRUE_SCALE / BATCH)
        for parts in (8, BATCH):
            estimates, covered, refused = [], 0, 0
            for _ in range(REPEATS):
                try:
                    found = noise_scale(rows(parts, steps, rng))
                except NotEnoughSignal as error:
                    estimates.append(error.estimate)
                    refused += 1
                    continue
                estimates.append(found.value)
                covered += found.low <= TRUE_SCALE <= found.high
            low, high = np.quantile(np.array(estimates) / TRUE_SCALE, [0.05, 0.95])
            share = covered / (REPEATS - refused) if refused < REPEATS else float("nan")
            print(f"{multiple:>19} {parts:>15} {low:>10.2f}-{high:.2f} {share:>9.0%} {refused:>12}")


if __name__ == "__main__":
    main()
