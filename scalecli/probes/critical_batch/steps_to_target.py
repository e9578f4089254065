"""Steps that reach a target loss, over batch sizes: which runs to train, and what their curves say. No torch.

The rows fit the law `critical-batch`. Rates are tuned at each batch and readings depend on no horizon
(constant rate, averaged weights), as in Zhang et al. 2024 (2410.21676, section 2): a schedule tuned for one
batch decides the result.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from scalecli.data.corpus import Corpus
from scalecli.errors import NotEnoughSignal, ProbeError
from scalecli.probes.columns import Row
from scalecli.probes.config import ProbeConfig
from scalecli.probes.foreign import Shape
from scalecli.probes.ladder import RATE_FACTORS, Recipe, default_learning_rate

READINGS = 40
AVERAGE = 9.0
"""Exponent of a power average: over about the last tenth of the training so far."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Held-out loss along one run; `steps` rise."""

    config: ProbeConfig
    steps: npt.NDArray[np.float64]
    loss: npt.NDArray[np.float64]


def design(
    corpus: Corpus,
    data: str,
    shape: Shape,
    *,
    batch_tokens: Sequence[float],
    tokens: float,
    learning_rates: Sequence[float] | None = None,
    seeds: int = 1,
    recipe: Recipe | None = None,
) -> list[ProbeConfig]:
    """Every batch with several rates, each on the same number of tokens, read READINGS times."""
    recipe = recipe or Recipe()
    configs = []
    for batch in batch_tokens:
        rate = default_learning_rate(shape.params, batch)
        for each in learning_rates or [rate * factor for factor in RATE_FACTORS]:
            for seed in range(seeds):
                config = replace(recipe, schedule="constant").config(
                    shape, corpus, data, tokens=tokens, batch_tokens=batch, learning_rate=each, seed=seed
                )
                every = max(1, config.steps // READINGS)
                reading = replace(config.evaluation, every=every, averager="power", amount=AVERAGE)
                configs.append(replace(config, evaluation=reading))
    return list(dict.fromkeys(configs))


def reachable_target(curves: Sequence[Curve]) -> float:
    """The lowest loss that every batch size reached at its best rate.

    Raises:
        ProbeError: there are no curves.
    """
    if not curves:
        raise ProbeError("no run has a curve", hint="train the runs of the design first")
    best: dict[int, float] = defaultdict(lambda: math.inf)
    for curve in curves:
        batch = curve.config.batch_tokens
        best[batch] = min(best[batch], float(curve.loss.min(initial=math.inf)))
    return max(best.values())


def crossing(curve: Curve, target: float) -> float | None:
    """The step at which the curve first reaches the target: linear in the logarithm of the step between
    readings.

    None if it never does. A curve that begins below the target crosses at its first reading or before: also
    None.
    """
    below = np.flatnonzero(curve.loss <= target)
    if not len(below) or below[0] == 0:
        return None
    after = below[0]
    before = after - 1
    share = (curve.loss[before] - target) / (curve.loss[before] - curve.loss[after])
    low, high = np.log(curve.steps[before]), np.log(curve.steps[after])
    return float(np.exp(low + share * (high - low)))


def rows(curves: Sequence[Curve], target: float) -> list[Row]:
    """One row a batch size: the fewest steps to the target over the rates, the mean over seeds.

    Raises:
        NotEnoughSignal: fewer than three batch sizes reach the target; carries how many did.
    """
    by_setting: dict[tuple[int, float], list[float | None]] = defaultdict(list)
    for curve in curves:
        by_setting[curve.config.batch_tokens, curve.config.learning_rate].append(crossing(curve, target))
    best: dict[int, tuple[float, float, float]] = {}
    for (batch, rate), crossings in by_setting.items():
        reached = [step for step in crossings if step is not None]
        if len(reached) == len(crossings):
            mean = float(np.mean(reached))
            spread = float(np.std(reached, ddof=1) / math.sqrt(len(reached))) if len(reached) > 1 else 0.0
            best[batch] = min(best.get(batch, (math.inf, 0.0, 0.0)), (mean, spread, rate))
    if len(best) < 3:
        raise NotEnoughSignal(
            f"{len(best)} batch sizes reach a loss of {target:.4f}; a critical batch size needs 3 at least",
            estimate=float(len(best)),
            hint="raise the target, or train longer",
        )
    return [
        {
            "batch_tokens": batch,
            "steps": steps,
            "metric_steps_std": spread,
            "tokens": batch * steps,
            "learning_rate": rate,
            "loss": target,
            "params": curves[0].config.shape.params,
            "group": curves[0].config.group,
        }
        for batch, (steps, spread, rate) in sorted(best.items())
    ]


def curves_of(
    configs: Sequence[ProbeConfig], readings: Mapping[str, Sequence[tuple[int, float]]]
) -> list[Curve]:
    """Curves from stored readings (step, loss) by run id; runs without readings are left out."""
    curves = []
    for config in configs:
        points = sorted(readings.get(config.run_id, ()))
        if points:
            steps, loss = np.array(points, dtype=float).T
            curves.append(Curve(config, steps, loss))
    return curves
