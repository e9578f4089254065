"""Both joint forms fitted to one grid, and the recommendation: the geometric mean of their optima."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from scalecli.fitters.landscape.basin import Basin
from scalecli.fitters.landscape.exponentials import Exponentials, around
from scalecli.fitters.landscape.form import FittedForm, cost_of, fit_form, refit
from scalecli.fitters.landscape.grid import OFF, Grid, Optimum, place
from scalecli.fitters.landscape.power import fit_power_law
from scalecli.fitters.landscape.settings import Settings
from scalecli.fitters.landscape.vertex import outside
from scalecli.fitters.law import Array, values

CLOSE = 0.01
"""Runs this far above the best still pull at the first guess of the optimum [nats/token]."""

TRUST = 4
"""Weights fall with this power of a form's residuals. Noise is common to both forms, so that what differs is
misfit; on synthetic grids the fourth power was a little better than the second, and both than equal weights."""

NO_BATCH_BASIN = frozenset({"batch", "batch_params", "batch_tokens", "cross", "deep"})
NO_BATCH_TERMS = frozenset(
    {f"{axis}_coarse" for axis in ("level", "params", "tokens", "rate", "batch")}
    | {"batch_slow", "batch_hot"}
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one grid is fitted.

    `held` are basin parameters held at zero; `batch` says whether the batch's optimum is looked for.
    """

    held: frozenset[str] = frozenset()
    batch: bool = True


@dataclass(frozen=True, slots=True)
class JointFit:
    """Both forms. `basin_share` is the basin's weight in the recommendation, the other form has the rest."""

    recipe: Recipe
    grid: Grid
    basin: FittedForm[Basin]
    exponentials: FittedForm[Exponentials]
    basin_share: float

    def optimum(self, shares: Array | None = None) -> Optimum:
        """The weighted geometric mean of both; the basin's alone for draws in which the other form has none.

        `shares` (draws, 1) take the place of `basin_share`.
        """
        basin, other = self.basin.form.optimum(), self.exponentials.form.optimum()
        wanted = self.basin_share if shares is None else shares
        share = np.where(np.isnan(other.rate).any(axis=1, keepdims=True), 1.0, wanted)
        return Optimum(_mix(basin.rate, other.rate, share), _mix(basin.batch, other.batch, share))


def _mix(basin: Array, other: Array, share: Array) -> Array:
    return share * basin + np.where(share != 1, (1 - share) * other, 0.0)


def fit_joint(settings: Settings, recipe: Recipe) -> JointFit:
    """Both forms under unit row weights."""
    grid = Grid.of(settings)
    basin = fit_basin(settings, grid, recipe)
    other = fit_exponentials(settings, grid, recipe, basin.form)
    return JointFit(recipe, grid, basin, other, _share(basin, other, grid, settings))


def _share(
    basin: FittedForm[Basin], other: FittedForm[Exponentials], grid: Grid, settings: Settings
) -> float:
    """The basin's: one half where both forms fit alike, more where the other misfits more.

    A form with its optimum outside what was tried, on some axis in every setting, has no share if the other is inside.
    """
    placed = [_inside_somewhere(fitted.form.optimum(), grid, settings) for fitted in (basin, other)]
    if placed[0] != placed[1]:
        return float(placed[0])
    return other.noise**TRUST / (basin.noise**TRUST + other.noise**TRUST)


def _inside_somewhere(optimum: Optimum, grid: Grid, settings: Settings) -> bool:
    rate, batch = inside_grid(optimum, grid, settings)
    return bool(rate.any() and batch.any())


def inside_grid(
    optimum: Optimum, grid: Grid, settings: Settings
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether the first draw's optimum lies inside the tried rates, and batches, of each setting."""
    rate, batch = place(optimum, grid, settings.log_params, settings.log_tokens)
    rows = [settings.label == s for s in range(settings.count)]
    rate_out = [outside(rate[:1, s], settings.log_rate[rows[s]])[0] for s in range(settings.count)]
    batch_out = [outside(batch[:1, s], settings.log_batch[rows[s]])[0] for s in range(settings.count)]
    # an open batch (NaN) is inside, a missing optimum nowhere
    return ~np.array(rate_out) & np.isfinite(rate[0]), ~np.array(batch_out)


def redraw(point: JointFit, settings: Settings, weights: Array) -> JointFit:
    """Both forms under row weights (draws, rows)."""
    recipe, grid = point.recipe, point.grid
    basin = refit(Basin, settings, grid, point.basin, weights, _held_basin(recipe))
    terms = refit(Exponentials, settings, grid, point.exponentials, weights, _held_terms(recipe))
    return JointFit(recipe, grid, basin, terms, point.basin_share)


def fit_basin(settings: Settings, grid: Grid, recipe: Recipe) -> FittedForm[Basin]:
    leans = (0.0,) if "asymmetry" in recipe.held else (0.0, 1.0)
    starts = np.concatenate([values(_first_guess(settings, grid, recipe, lean)) for lean in leans])
    return fit_form(Basin, settings, grid, starts, _held_basin(recipe))


def evidence(settings: Settings, fitted: JointFit) -> float:
    """What the basin explains beyond a flat floor in each setting, in log likelihood for each of its parameters.

    Around one or below, the runs show no basin. The residuals are scaled up for the parameters that made them small.
    """
    names = {field.name for field in fields(Basin)}
    flat = dict.fromkeys(names, np.zeros((1, 1))) | dict.fromkeys(("steep", "deep"), np.full((1, 1), OFF))
    floor = cost_of(Basin(**flat), settings, fitted.grid, fitted.basin.noise)
    free = len(names - _held_basin(fitted.recipe))
    runs = int(np.count_nonzero(settings.weights()))
    spare = max(runs - free - settings.count, 1)
    return float(floor - fitted.basin.cost[0]) * spare / runs / free


def fit_variant(settings: Settings, grid: Grid, recipe: Recipe, start: Basin) -> FittedForm[Basin]:
    """As `fit_basin`, from the fit of another recipe."""
    zero = {name: np.zeros((1, 1)) for name in recipe.held}
    return fit_form(Basin, settings, grid, values(replace(start, **zero)), _held_basin(recipe))


def fit_exponentials(
    settings: Settings, grid: Grid, recipe: Recipe, basin: Basin
) -> FittedForm[Exponentials]:
    starts = [
        values(around(basin.optimum(), basin.curvature, reach, turn))
        for reach in (0.5, 1.0)
        for turn in ((0.0, 0.7, 1.4) if recipe.batch else (0.0,))
    ]
    return fit_form(Exponentials, settings, grid, np.concatenate(starts), _held_terms(recipe))


def _held_basin(recipe: Recipe) -> frozenset[str]:
    return recipe.held if recipe.batch else recipe.held | NO_BATCH_BASIN


def _held_terms(recipe: Recipe) -> frozenset[str]:
    return frozenset() if recipe.batch else NO_BATCH_TERMS


def _first_guess(settings: Settings, grid: Grid, recipe: Recipe, asymmetry: float) -> Basin:
    """Power laws through the middle of each setting's best runs, and a basin of ordinary width."""
    guess = {"steep": -2.0, "cross": 0.0, "deep": -2.0, "kappa": -2.0, "asymmetry": asymmetry}
    for axis, tried in (("rate", settings.log_rate), ("batch", settings.log_batch)):
        level, by_params, by_tokens = _through_best(settings, tried, grid, axis)
        guess |= {axis: level, f"{axis}_params": by_params, f"{axis}_tokens": by_tokens}
    if not recipe.batch:
        guess |= dict.fromkeys(NO_BATCH_BASIN, 0.0) | {"deep": OFF}
    guess |= dict.fromkeys(recipe.held, 0.0)
    return Basin(**{name: np.full((1, 1), value) for name, value in guess.items()})


def _through_best(settings: Settings, value: Array, grid: Grid, axis: str) -> Array:
    """Level at the grid's centre and exponents by params and tokens, (3,)."""
    near = np.exp(-np.abs(settings.height) / CLOSE)
    total = np.bincount(settings.label, near * value, settings.count)
    middle = total / np.bincount(settings.label, near, settings.count)
    law: Array = fit_power_law(settings, middle[None], np.ones((1, settings.count)))[0]
    law[0] += law[1] * grid.centre["params"] + law[2] * grid.centre["tokens"] - grid.centre[axis]
    return law
