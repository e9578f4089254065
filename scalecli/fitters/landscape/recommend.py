"""From a grid to the parameters of the landscape law, for many row weightings."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from scalecli.errors import NotIdentified
from scalecli.fitters.landscape.edges import no_optimum, one_sided
from scalecli.fitters.landscape.grid import Grid, Optimum
from scalecli.fitters.landscape.holdout import Split, splits
from scalecli.fitters.landscape.joint import (
    JointFit,
    Recipe,
    evidence,
    fit_basin,
    fit_joint,
    fit_variant,
    inside_grid,
    redraw,
)
from scalecli.fitters.landscape.power import used_batch
from scalecli.fitters.landscape.settings import Settings
from scalecli.fitters.landscape.tuned_loss import fit_tuned_loss
from scalecli.fitters.landscape.vertex import levels
from scalecli.fitters.law import Array

VARIANTS = tuple(
    frozenset(held) for held in ((), ("asymmetry",), ("batch_params",), ("asymmetry", "batch_params"))
)
"""Basin parameters held at zero; the first is the default."""

DECISIVE, MATERIAL = 0.5, 3e-4
"""A variant replaces the default where its score is below this fraction of it, and by more than so many nats a token
(0.01 % of a loss of 3): smaller differences are noise."""

REMEMBERED = 4
"""Grids whose fit is kept."""

LEAST_SHARE = 1e-3
"""A beta distribution needs both shares to be positive."""


def choose_recipe(settings: Settings) -> Recipe:
    """The variant that extrapolates best inside these settings, the default where none does so clearly."""
    default = Recipe(batch=_batch_varied(settings))
    recipes = [replace(default, held=held) for held in VARIANTS]
    parts = splits(settings)
    if not parts:
        return default
    scores = np.mean([_scores(recipes, part) for part in parts], axis=0)
    decided = scores.min() < min(DECISIVE * scores[0], scores[0] - MATERIAL)
    return recipes[int(np.argmin(scores))] if decided else default


def _scores(recipes: list[Recipe], part: Split) -> list[float]:
    """Extrapolation score of the basin by each recipe, the first of which starts the others."""
    first = fit_basin(part.small, part.grid, recipes[0])
    others = [fit_variant(part.small, part.grid, recipe, first.form) for recipe in recipes[1:]]
    return [part.score(fitted.form.optimum()) for fitted in (first, *others)]


def _batch_varied(settings: Settings) -> bool:
    return any(levels(settings.log_batch[settings.label == s]) > 1 for s in range(settings.count))


def estimate_landscape(settings: Settings, weights: Array) -> Array:
    """Tuned loss (5), lr* (3), batch* (3), curvature (3), saturation, asymmetry: (draws, 16).

    Raises `NoOptimum` where no setting has its best learning rate inside what was tried.
    """
    point = fit_point(settings)
    drawn = point if len(weights) == 1 and np.ptp(weights) == 0 else redraw(point, settings, weights)
    return _parameters(drawn, drawn.optimum(), settings, weights)


def draw_landscape(
    settings: Settings, weights: Array, counts: Array, rng: np.random.Generator
) -> tuple[Array, Array]:
    """The point (16,) and its bootstrap draws (draws, 16): `counts` (draws, rows): how often each setting was drawn.

    The forms' shares vary from draw to draw, so that their disagreement is part of every interval: by a beta
    distribution around the point's, which is uniform where both forms fit alike.
    """
    point = fit_point(settings)
    drawn = redraw(point, settings, weights * counts)
    share = np.clip(point.basin_share, LEAST_SHARE, 1 - LEAST_SHARE)
    shares = rng.beta(2 * share, 2 * (1 - share), (len(counts), 1))
    draws = _parameters(drawn, drawn.optimum(shares), settings, weights * counts)
    return _parameters(point, point.optimum(), settings, weights[None])[0], draws


def _parameters(drawn: JointFit, optimum: Optimum, settings: Settings, weights: Array) -> Array:
    rate = _raw(optimum.rate, drawn.grid, "rate")
    batch = used_batch(settings, len(weights))
    if drawn.recipe.batch:
        batch = _raw(optimum.batch, drawn.grid, "batch")
    rate[:, 0], batch[:, 0] = np.exp(rate[:, 0]), np.exp(batch[:, 0])
    basin = drawn.basin.form
    shape = np.concatenate([basin.curvature, np.exp(basin.kappa), basin.asymmetry], axis=1)
    return np.concatenate([_tuned_loss(drawn, settings, weights), rate, batch, shape], axis=1)


@lru_cache(maxsize=REMEMBERED)
def fit_point(settings: Settings) -> JointFit:
    """Both forms by the best recipe; without the batch where its optimum lies outside every setting's batches.

    Remembered, for the point estimate, its draws and the checks of a fit all start from it.
    """
    recipe = choose_recipe(settings)
    fitted = fit_joint(settings, recipe)
    if evidence(settings, fitted) < 1:
        raise NotIdentified(
            f"in {settings.loss.size} runs the loss does not depend on learning rate and batch by more than its noise "
            f"({fitted.basin.noise:.2g} nats/token)",
            hint="spread the learning rates wider (a factor of 2 between neighbours), or train more seeds",
        )
    rate_inside, batch_inside = inside_grid(fitted.optimum(), fitted.grid, settings)
    if recipe.batch and not batch_inside.any():
        recipe = replace(recipe, batch=False)
        fitted = fit_joint(settings, recipe)
        rate_inside, _ = inside_grid(fitted.optimum(), fitted.grid, settings)
    if one_sided(settings) or not rate_inside.any():
        raise no_optimum(settings)
    return fitted


def _raw(law: Array, grid: Grid, axis: str) -> Array:
    """From centred to raw logs: log scale and exponents, (draws, 3)."""
    raw = law.copy()
    raw[:, 0] += grid.centre[axis] - law[:, 1] * grid.centre["params"] - law[:, 2] * grid.centre["tokens"]
    return raw


def _tuned_loss(drawn: JointFit, settings: Settings, weights: Array) -> Array:
    """Through each setting's floor: its runs, less their height in the basin, averaged near the best."""
    near = weights * settings.weights()
    labels = np.eye(settings.count)[settings.label]
    share = near @ labels
    height = drawn.basin.form.height(drawn.grid)[0]
    floor = (near * (settings.loss - height)) @ labels / np.where(share > 0, share, np.nan)
    return fit_tuned_loss(settings, floor, share)
