"""Approaches 1, 2 and 3 side by side: the best model size at a compute, from the same runs.

Approach 1 follows the lower envelope of the curves, approach 2 the minima at equal FLOPs (with parabolas
and with cubics), approach 3 a law of the loss. They rest on different assumptions, so that their spread is
a check that no interval of one of them contains. Hoffmann et al. 2022, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from scalecli.data.notes import Notice
from scalecli.errors import FitError
from scalecli.fitters.domain import with_compute
from scalecli.fitters.estimate import MOST_WORK, Estimate, Method, estimate
from scalecli.fitters.law import Array, required_columns, scalar_of
from scalecli.fitters.laws.chinchilla import Chinchilla
from scalecli.fitters.laws.envelope import Envelope
from scalecli.fitters.laws.isoflop import IsoFlop
from scalecli.fitters.laws.isoflop_cubic import IsoFlopCubic
from scalecli.fitters.problem import Data
from scalecli.fitters.resample import Clusters

PROCEDURES = (Envelope, IsoFlop, IsoFlopCubic)

SCALES = {"params", "tokens", "flops"}
"""Laws of other columns too have no one best size at a compute."""

DRAWS = 200
"""Enough for the ends of an interval that is compared, not reported to three digits."""

FEWEST_DRAWS = 20
"""Large tables get no fewer than these."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The best size [parameters] by one approach at a compute, with its interval, and its exponent of compute."""

    law: str
    exponent: float
    params: float
    low: float
    high: float


def side_by_side(fitted: Estimate, draws: Array, flops: float, level: float) -> list[Answer]:
    """What every approach that has an answer says at `flops`; [] for laws of other quantities.

    The fitted law, with its own draws (draws, parameters), stands for approach 3, or Chinchilla where it is a
    procedure itself.
    """
    x = with_compute(fitted.data.x)
    if not {"flops", "params"} <= x.keys() <= SCALES or not hasattr(fitted.law, "optimal_params"):
        return []
    x.setdefault("tokens", x["flops"] / (6 * x["params"]))
    others: list[type[Any]] = [law for law in PROCEDURES if law is not fitted.law]
    if fitted.law in PROCEDURES:
        others.append(Chinchilla)
    answers = [_answer(fitted.law, fitted.raw, draws, flops, level)]
    for law in others:
        answers += _estimated(law, x, fitted, flops, level)
    known = [answer for answer in answers if np.isfinite(answer.params)]
    return sorted(known, key=lambda answer: answer.params)


def disagreement(answers: list[Answer], flops: float) -> str:
    """How far the answers, smallest first, lie apart, in words."""
    least, most = answers[0], answers[-1]
    return (
        f"the best size at {flops:.2g} FLOPs is {least.params:.3g} parameters by {least.law} and "
        f"{most.params:.3g} by {most.law}, a factor {most.params / least.params:.3g}"
    )


def notices(answers: list[Answer], flops: float) -> Iterator[Notice]:
    """A warning where the intervals of two approaches have no size in common."""
    apart = [
        (one, other)
        for one, other in combinations(answers, 2)
        if one.high < other.low or other.high < one.low
    ]
    if apart:
        pairs = ", ".join(f"{one.law} and {other.law}" for one, other in apart)
        yield Notice(
            "W-APPROACHES-DISAGREE", f"{disagreement(answers, flops)}; beyond their intervals: {pairs}"
        )


def _estimated(
    law: type[Any], x: dict[str, Array], fitted: Estimate, flops: float, level: float
) -> list[Answer]:
    """The answer of an approach from the same rows; [] where it has none."""
    columns = {name: x[name] for name in required_columns(law)}
    data = Data(columns, fitted.data.y, fitted.data.weights)
    clusters = Clusters.of(None if law in PROCEDURES else x["params"], data.rows)
    try:
        found = estimate(law, data, clusters, Method(fitted.method.loss, {}))
    except FitError:
        return []
    count = int(np.clip(MOST_WORK / data.rows, FEWEST_DRAWS, DRAWS))
    return [_answer(law, found.raw, found.draws(count, np.random.default_rng(0)), flops, level)]


def _answer(law: type[Any], raw: Array, draws: Array, flops: float, level: float) -> Answer:
    best = float(scalar_of(lambda law: law.optimal_params(flops), law, raw[None])[0])
    tenfold = float(scalar_of(lambda law: law.optimal_params(10 * flops), law, raw[None])[0])
    if not (best > 0 and tenfold > 0):  # an exponent at zero: the allocation has no optimum
        return Answer(str(law.name), *[math.nan] * 4)
    drawn = scalar_of(lambda law: law.optimal_params(flops), law, draws)
    drawn = drawn[np.isfinite(drawn)]
    tail = (1 - level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail]) if drawn.size else (np.nan, np.nan)
    return Answer(str(law.name), float(np.log10(tenfold / best)), best, float(low), float(high))
