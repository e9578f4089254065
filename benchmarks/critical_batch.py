"""How often intervals of a critical batch hold the truth, for tables of a few batches.

    python benchmarks/critical_batch.py tables      steps with log-normal noise about the hyperbola
    python benchmarks/critical_batch.py trainings   SGD on problems whose critical batch is known in closed form

Tables: S_min (1 + B_crit / B) at batches spread over a factor of 256 about B_crit; 1,000 worlds a row for the posterior
of `scalecli critical-batch`, 60 for the bootstrap of `scalecli fit --law critical-batch`.

Trainings, 200 of each, one run of SGD at a tenth of its best rate at each of nine batches: a quadratic |w|^2 / 2 whose
gradients have covariance noise / dimension, so that the noise scale at the loss L is noise / 2 L; and linear regression
without label noise on Gaussian inputs of dimension d, whose critical batch is d + 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

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
TRAININGS = 200


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


RATE = 0.1
"""Share of the best rate that trainings use: a step then takes x = (2 RATE - RATE^2) / (1 + B_crit / B) of the loss,
and with ln(1 - x) = -x - x^2 / 2 steps follow the hyperbola whose S_min is smaller by 1 - RATE + RATE^2 / 2."""

SMALLER = 1 - RATE + RATE**2 / 2


@dataclass(frozen=True)
class Quadratic:
    """From one loss to another at a noise scale known at every step."""

    dimension: int = 100
    noise: float = 4000.0
    start: float = 8.0
    end: float = 1.0

    @property
    def critical(self) -> float:
        """dS = -dL / 2 L (1 + B(L) / B) integrates to the hyperbola."""
        mean = self.noise / 2 * (1 / self.end - 1 / self.start) / np.log(self.start / self.end)
        return mean / SMALLER

    def losses(self, batch: float, random: np.random.Generator) -> Iterator[float]:
        weight = np.full(self.dimension, np.sqrt(2 * self.start / self.dimension))
        scatter = np.sqrt(self.noise / self.dimension / batch)
        while True:
            loss = 0.5 * float(weight @ weight)
            yield loss
            rate = RATE / (1 + self.noise / (2 * loss) / batch)
            weight = weight - rate * (weight + scatter * random.normal(size=self.dimension))


@dataclass(frozen=True)
class Regression:
    """E|w|^2 falls by 1 - 2 r + r^2 (1 + (d + 1) / B) a step."""

    dimension: int = 60
    end: float = 0.05

    @property
    def critical(self) -> float:
        return (self.dimension + 1) / SMALLER

    def losses(self, batch: float, random: np.random.Generator) -> Iterator[float]:
        weight = np.full(self.dimension, 1 / np.sqrt(self.dimension))
        rate = RATE / (1 + (self.dimension + 1) / batch)
        while True:
            yield float(weight @ weight)
            inputs = random.normal(size=(int(batch), self.dimension))
            weight = weight - rate * inputs.T @ (inputs @ weight) / int(batch)


def steps_to(end: float, losses: Iterator[float]) -> float:
    """When the loss first reaches `end`, between steps on a line in its logarithm."""
    for step, (before, after) in enumerate(pairwise(losses)):
        if after <= end:
            return step + float(np.log(before / end) / np.log(before / after))
    raise AssertionError("losses go on without end")


def training_coverage(problem: Quadratic | Regression) -> tuple[float, float, int]:
    """The share of 90 % intervals that hold B_crit, the mean of estimate over truth, and worlds not identified."""
    batches = np.round(problem.critical * np.geomspace(1 / 16, 16, 9))
    held, ratios = 0, []
    for seed in range(TRAININGS):
        random = np.random.default_rng(seed)
        steps = np.array([steps_to(problem.end, problem.losses(batch, random)) for batch in batches])
        found = critical_at(StepsToTarget(1.0, batches, steps, None), draws=1000).B_crit
        if found is None or found.low is None or found.high is None:
            continue
        held += found.low <= problem.critical <= found.high
        ratios.append(found.value / problem.critical)
    return held / len(ratios), float(np.mean(ratios)), TRAININGS - len(ratios)


def show_trainings() -> None:
    print(f"{'problem':>12} {'true':>8} {'B_crit':>7} {'mean / true':>12} {'unidentified':>13}")
    for problem in (Quadratic(), Regression()):
        share, ratio, unidentified = training_coverage(problem)
        name = type(problem).__name__.lower()
        print(f"{name:>12} {problem.critical:8.0f} {share:7.1%} {ratio:12.3f} {unidentified:13d}")


def show_tables() -> None:
    print(f"{'batches':>8} {'noise':>6} {'B_crit':>7} {'S_min':>7} {'unidentified':>13} {'bootstrap':>10}")
    for rows, noise in ((5, 0.05), (9, 0.05), (9, 0.2)):
        critical, steps, unidentified = posterior_coverage(rows, noise)
        other = bootstrap_coverage(rows, noise)
        print(f"{rows:8d} {noise:6.2f} {critical:7.1%} {steps:7.1%} {unidentified:13d} {other:10.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", nargs="?", choices=("tables", "trainings"), help="[both]")
    mode = parser.parse_args().mode
    if mode != "trainings":
        show_tables()
    if mode != "tables":
        show_trainings()


if __name__ == "__main__":
    main()
