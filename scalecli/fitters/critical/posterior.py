"""The hyperbola's two parameters from a handful of batches, with intervals that hold for so few.

A bootstrap of nine points is far too sure of itself (its 90 % intervals held the truth in 6 to 8 of 10 worlds). With
normal errors in log steps and flat priors in log S_min, log B_crit and log of the error, the posterior is exact up
to one dimension, which is read off a grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scalecli.errors import TooFewRuns
from scalecli.fitters.law import Array
from scalecli.fitters.laws.critical_batch import CriticalBatch

FEWEST = 3
GRID, MARGIN = 2000, 1e3
"""Points of the grid, and how far beyond the tried batches B_crit is looked for."""

EXACT = 1e-6
"""Steps are known to this relative precision at best: keeps noise-free tables finite."""

NEGLIGIBLE = 1e-8
"""Posterior below this share of its peak is left out of the finer grid."""


@dataclass(frozen=True, slots=True)
class Posterior:
    """The most likely law, and one whose fields are draws of shape (draws, 1)."""

    law: CriticalBatch
    draws: CriticalBatch


def hyperbola_posterior(batch_tokens: Array, steps: Array, draws: int, rng: np.random.Generator) -> Posterior:
    """From steps over batches, both of shape (batches,). Raises `TooFewRuns` under three different batches."""
    different = len(np.unique(batch_tokens))
    if different < FEWEST:
        raise TooFewRuns(
            f"only {different} batch size{'s reach' if different > 1 else ' reaches'} the target; a critical one needs "
            f"{FEWEST} at least",
            hint="add batch sizes, a factor of two apart",
        )
    ends = np.log([batch_tokens.min() / MARGIN, batch_tokens.max() * MARGIN])
    coarse = np.linspace(ends[0], ends[1], GRID)
    likely = np.flatnonzero(_density(coarse, batch_tokens, steps) > NEGLIGIBLE)
    low, high = max(likely[0] - 1, 0), min(likely[-1] + 1, GRID - 1)
    fine = np.linspace(coarse[low], coarse[high], GRID)
    density = _density(fine, batch_tokens, steps)
    best = fine[density.argmax()]
    level, _ = _residuals(np.array([best]), batch_tokens, steps)
    drawn = _draw(fine, density, draws, rng)
    levels, squares = _residuals(drawn, batch_tokens, steps)
    rows = len(steps)
    scatter = np.sqrt(squares / (rows * (rows - 1))) * rng.standard_t(rows - 1, draws)
    return Posterior(
        CriticalBatch(S_min=float(np.exp(level[0])), B_crit=float(np.exp(best))),
        CriticalBatch(S_min=np.exp(levels + scatter)[:, None], B_crit=np.exp(drawn)[:, None]),  # type: ignore[arg-type]
    )


def _residuals(log_critical: Array, batch_tokens: Array, steps: Array) -> tuple[Array, Array]:
    """Best log S_min and sum of squares at each B_crit, both of shape (points,)."""
    rest = np.log(steps) - np.log1p(np.exp(log_critical)[:, None] / batch_tokens)
    level = rest.mean(axis=1)
    return level, np.sum((rest - level[:, None]) ** 2, axis=1) + len(steps) * EXACT**2


def _density(log_critical: Array, batch_tokens: Array, steps: Array) -> Array:
    """Posterior of log B_crit with the others integrated out, over its peak, (points,)."""
    _, squares = _residuals(log_critical, batch_tokens, steps)
    return np.asarray((squares / squares.min()) ** (-(len(steps) - 1) / 2))


def _draw(points: Array, density: Array, draws: int, rng: np.random.Generator) -> Array:
    """Draws from a density on even points, linear between them, (draws,)."""
    share = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return np.interp(rng.uniform(0, share[-1], draws), share, points)
