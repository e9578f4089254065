"""The best learning rate from complete runs at several rates. Pure arithmetic."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scalecli.errors import NotEnoughSignal
from scalecli.probes.columns import Row

VERTEX_POINTS = 5
"""Rates about the best one that the parabola is fitted to: further out the valley is no parabola."""
TOLERANCE = 0.005
"""Nats a token that a setting may cost and still count as good, when seeds show no larger noise."""


@dataclass(frozen=True, slots=True)
class RateRange:
    """`best` is the vertex; every rate in [low, high] costs at most `tolerance` nats more. `seed_std` is the
    standard deviation of one run over seeds, None with one seed. `largest_stable` is the largest rate none of
    whose runs
    diverged, `smallest_diverged` the smallest with one that did (None: there is none)."""

    best: float
    low: float
    high: float
    loss: float
    tolerance: float
    seed_std: float | None
    largest_stable: float
    smallest_diverged: float | None
    runs: int


def rate_range(runs: Sequence[Row], *, tolerance: float = TOLERANCE) -> RateRange:
    """The valley of the loss over ln(rate): a parabola through the best rates, means over seeds.

    The tolerance is raised to twice the standard error of a mean over seeds where that is larger.

    Raises:
        NotEnoughSignal: fewer than three rates have runs that did not diverge, or the best one is the first
        or last; carries the best rate there is.
    """
    finished: dict[float, list[float]] = defaultdict(list)
    diverged: set[float] = set()
    for run in runs:
        rate = float(run["learning_rate"] or 0.0)
        if run["status"] == "ok" and run["loss"] is not None:
            finished[rate].append(float(run["loss"]))
        elif run["status"] == "diverged":
            diverged.add(rate)
    rates = np.array(sorted(rate for rate in finished if rate not in diverged))
    if len(rates) < 3:
        raise NotEnoughSignal(
            f"{len(rates)} rates trained without diverging; a range needs 3",
            estimate=float(rates[0]) if len(rates) else math.nan,
            hint="try smaller rates",
        )
    means = np.array([np.mean(finished[rate]) for rate in rates])
    seed_std = _pooled_std([finished[rate] for rate in rates])
    lowest = int(means.argmin())
    if lowest in (0, len(rates) - 1):
        side = "smaller" if lowest == 0 else "larger"
        raise NotEnoughSignal(
            f"the best of {len(rates)} rates, {rates[lowest]:.3g}, is the {'first' if lowest == 0 else 'last'}",
            estimate=float(rates[lowest]),
            hint=f"add {side} rates",
        )
    vertex, curvature, bottom = _parabola(np.log(rates), means, lowest)
    per_rate = min(len(finished[rate]) for rate in rates)
    allowed = max(tolerance, 2 * seed_std / math.sqrt(per_rate)) if seed_std is not None else tolerance
    reach = math.sqrt(2 * allowed / curvature)
    return RateRange(
        best=math.exp(vertex),
        low=math.exp(vertex - reach),
        high=math.exp(vertex + reach),
        loss=bottom,
        tolerance=allowed,
        seed_std=seed_std,
        largest_stable=float(rates[-1])
        if not diverged
        else float(max(rates[rates < min(diverged)], default=rates[0])),
        smallest_diverged=min(diverged, default=None),
        runs=len(runs),
    )


def _parabola(x: np.ndarray, y: np.ndarray, lowest: int) -> tuple[float, float, float]:
    """Vertex, curvature and height of the parabola through the points about the lowest one.

    With noise the wider one may open downwards or have its vertex outside; the three points about the lowest
    always hold it.
    """
    for half in (VERTEX_POINTS // 2, 1):
        start, end = max(0, lowest - half), min(len(x), lowest + half + 1)
        a, b, c = np.polyfit(x[start:end] - x[lowest], y[start:end], 2)
        if a > 0 and x[start] <= x[lowest] - b / (2 * a) <= x[end - 1]:
            break
    return float(x[lowest] - b / (2 * a)), float(2 * a), float(c - b * b / (4 * a))


def _pooled_std(groups: Sequence[Sequence[float]]) -> float | None:
    """Standard deviation over seeds, pooled over rates; None when no rate has two."""
    freedom = sum(len(group) - 1 for group in groups)
    if not freedom:
        return None
    return math.sqrt(sum(float(np.var(group)) * len(group) for group in groups) / freedom)
