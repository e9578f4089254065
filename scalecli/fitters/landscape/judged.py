"""A recommendation judged by the runs of a setting that it did not see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scalecli.fitters.landscape.settings import Settings
from scalecli.fitters.landscape.surface import fit_surface

Ask = Callable[[float, float], tuple[float, float]]
"""Params, tokens -> batch [tokens], learning rate; NaN where there is no answer."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What was recommended for one setting, and the loss it costs there as a fraction of the least.

    `excess` is infinite for a recommendation outside the tried batches and rates: nothing measured speaks for it.
    """

    params: float
    tokens: float
    batch_tokens: float
    learning_rate: float
    excess: float


def judge(settings: Settings, ask: Ask) -> list[Judged]:
    """Every setting that has runs enough for a surface through them, which judges what `ask` recommends for it."""
    found = []
    for s in range(settings.count):
        surface = fit_surface(settings.select(settings.label == s))
        if surface is None:
            continue
        place = float(np.exp(settings.log_params[s])), float(np.exp(settings.log_tokens[s]))
        batch, rate = ask(*place)
        off = surface.excess(np.log([rate]), np.log([batch]))[0] / surface.lowest
        found.append(Judged(*place, batch, rate, float(off)))
    return found
