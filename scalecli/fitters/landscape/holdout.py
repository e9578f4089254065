"""How well a way of fitting extrapolates, judged inside the runs at hand: small settings fitted, large ones scored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scalecli.fitters.landscape.grid import Grid, Optimum, place
from scalecli.fitters.landscape.settings import Settings
from scalecli.fitters.landscape.surface import Surface, fit_surface
from scalecli.fitters.law import Array

FEWEST = 4
"""Settings a fit inside a split needs."""

WORST = 0.02
"""What a recommendation outside the tried range costs, and the most that any can [nats/token]."""


@dataclass(frozen=True, slots=True)
class Split:
    """Small settings to fit, and large ones, with a surface each, to score."""

    small: Settings
    grid: Grid
    log_params: Array
    log_tokens: Array
    log_batch: Array
    surfaces: list[Surface]

    def score(self, optimum: Optimum) -> float:
        """Mean nats above the best of the held-out settings, for one draw's optimum."""
        rate, batch = place(optimum, self.grid, self.log_params, self.log_tokens)
        batch = np.where(np.isnan(batch), self.log_batch, batch)
        excess = [s.excess(rate[:, i], batch[:, i])[0] for i, s in enumerate(self.surfaces)]
        return float(np.mean(np.minimum(np.nan_to_num(excess, nan=WORST), WORST)))


def splits(settings: Settings) -> list[Split]:
    """Hold out the largest models, the longest trainings, and the most compute; empty where too little is left."""
    parts = [_split(settings, held) for held in _held_out(settings) if _fittable(settings, ~held)]
    return [part for part in parts if part.surfaces]


def _held_out(settings: Settings) -> Iterator[NDArray[np.bool_]]:
    seen: list[NDArray[np.bool_]] = []
    n, t = settings.log_params, settings.log_tokens
    for size, share in ((n, 0.25), (t, 0.25), (n + t, 0.33)):
        held = size > np.quantile(size, 1 - share) - 1e-9
        if held.any() and not any((held == other).all() for other in seen):
            seen.append(held)
            yield held


def _fittable(settings: Settings, kept: NDArray[np.bool_]) -> bool:
    """Enough settings are left, at two sizes and two lengths where there were two."""
    if kept.sum() < FEWEST:
        return False
    return all(
        np.ptp(axis[kept]) > 0.3 or np.ptp(axis) == 0 for axis in (settings.log_params, settings.log_tokens)
    )


def _split(settings: Settings, held: NDArray[np.bool_]) -> Split:
    small = settings.select(~held[settings.label])
    large = [settings.select(settings.label == s) for s in np.flatnonzero(held)]
    judged = [(setting, surface) for setting in large if (surface := fit_surface(setting)) is not None]
    return Split(
        small=small,
        grid=Grid.of(small),
        log_params=np.array([setting.log_params[0] for setting, _ in judged]),
        log_tokens=np.array([setting.log_tokens[0] for setting, _ in judged]),
        log_batch=np.array([setting.log_batch.mean() for setting, _ in judged]),
        surfaces=[surface for _, surface in judged],
    )
