"""The designs that everybody knows, cut to the same budget: isoFLOP curves and a ladder."""

from __future__ import annotations

import numpy as np

from scalecli.fitters.compare.curve import FLOPS_PER_PARAM_TOKEN
from scalecli.fitters.design.candidates import Candidates, runs_of_a_setting, settings_at
from scalecli.fitters.domain import SIZES
from scalecli.fitters.fit import Fit
from scalecli.fitters.law import Array

ISO_BUDGETS = np.array([1.0, 1 / 4, 1 / 16])
ISO_SIZES = np.array([1 / 4, 1 / 2, 1.0, 2.0, 4.0])
"""Sizes on each curve, in multiples of its optimum: wide enough to bracket it, narrow enough for a parabola."""

LADDER_SIZES = np.array([1.0, 1 / 2, 1 / 4, 1 / 8])
LADDER_RATIOS = np.array([5.0, 20.0, 80.0])
"""Tokens per parameter at every rung: a factor of four apart, around Hoffmann et al.'s 20."""


PLAIN = {*SIZES, "tokens", "flops", "batch_tokens", "learning_rate"}


def usual_plans(fit: Fit, budget: float) -> dict[str, Candidates]:
    """Both plans, for laws of size and data; a landscape gets its grid at every place."""
    if not set(fit.law.inputs) <= PLAIN or not {*SIZES} & set(fit.law.inputs):
        return {}
    each = budget / runs_of_a_setting(fit)
    return {"isoflop": isoflop_plan(fit, each), "ladder": ladder_plan(fit, each)}


def isoflop_plan(fit: Fit, budget: float) -> Candidates:
    """Three budgets a factor of four apart, five sizes around the optimum of each."""
    each = budget / (len(ISO_SIZES) * ISO_BUDGETS.sum()) * ISO_BUDGETS
    best = (
        np.broadcast_to(fit.law.optimal_params(each), each.shape)
        if hasattr(fit.law, "optimal_params")
        else np.sqrt(each / (FLOPS_PER_PARAM_TOKEN * LADDER_RATIOS[1]))
    )
    size = (best[:, None] * ISO_SIZES).ravel()
    return _runs(fit, size, np.repeat(each, len(ISO_SIZES)) / (FLOPS_PER_PARAM_TOKEN * size))


def ladder_plan(fit: Fit, budget: float) -> Candidates:
    """Four sizes a factor of two apart, each at three ratios of tokens to parameters."""
    shape = (LADDER_SIZES[:, None] ** 2 * LADDER_RATIOS).sum()
    largest = np.sqrt(budget / (FLOPS_PER_PARAM_TOKEN * shape))
    size = np.repeat(largest * LADDER_SIZES, len(LADDER_RATIOS))
    return _runs(fit, size, size * np.tile(LADDER_RATIOS, len(LADDER_SIZES)))


def _runs(fit: Fit, size: Array, tokens: Array) -> Candidates:
    sizes = {name: size for name in fit.law.inputs if name in SIZES}
    return settings_at(fit, {**sizes, "tokens": tokens})
