"""What the joint forms share: priors read from their fields, and the fit of one form to many row weightings."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, get_type_hints

import numpy as np

from scalecli.fitters.landscape.descent import ROUGHLY, Prior, Problem, minimise
from scalecli.fitters.landscape.grid import Grid, Optimum
from scalecli.fitters.landscape.regression import scale
from scalecli.fitters.landscape.settings import Settings
from scalecli.fitters.law import Array, names, values, with_values

FIRST_NOISE = 5e-3
"""Standard deviation of residuals assumed before the first fit has told it [nats/token]."""


@dataclass(frozen=True, slots=True)
class Normal:
    """A normal prior on a form's parameter: it matters only where the runs determine nothing."""

    mean: float
    width: float


class Form(Protocol):
    """A landscape in centred logs: a frozen dataclass whose fields are parameters annotated with `Normal`.

    Fields hold arrays (draws, 1), as in a bundle of a law.
    """

    def height(self, grid: Grid) -> tuple[Array, Array]:
        """Nats above a floor of each setting (draws, rows), and derivatives in field order (draws, fields, rows)."""
        ...

    def optimum(self) -> Optimum: ...


F = TypeVar("F", bound=Form)


@dataclass(frozen=True, slots=True)
class FittedForm(Generic[F]):
    """Parameters (draws, fields) of a form, the objective (draws,), and the residuals' standard deviation."""

    form: F
    theta: Array
    cost: Array
    noise: float


def fit_form(form: type[F], settings: Settings, grid: Grid, starts: Array, held: Set[str]) -> FittedForm[F]:
    """The best of several starts (starts, fields), with `held` fields fixed where the start has them; one draw.

    The scale of the residuals is taken from a first fit.
    """
    weights = np.tile(_row_weights(settings), (len(starts), 1))
    first = _problem(form, settings, grid, held, FIRST_NOISE)
    theta, cost = minimise(first, settings.loss, starts, weights, ROUGHLY)
    best = theta[[np.argmin(cost)]]
    noise = _residual_noise(form, settings, grid, best)
    theta, cost = minimise(_problem(form, settings, grid, held, noise), settings.loss, best, weights[:1])
    return FittedForm(with_values(form, theta), theta, cost, noise)


def refit(
    form: type[F], settings: Settings, grid: Grid, point: FittedForm[F], weights: Array, held: Set[str]
) -> FittedForm[F]:
    """The form under row weights (draws, rows), each draw started from the point fit."""
    problem = _problem(form, settings, grid, held, point.noise)
    start = np.tile(point.theta, (len(weights), 1))
    theta, cost = minimise(problem, settings.loss, start, weights * _row_weights(settings), ROUGHLY)
    return FittedForm(with_values(form, theta), theta, cost, point.noise)


def cost_of(form: Form, settings: Settings, grid: Grid, noise: float) -> float:
    """The objective at this form (one draw), with each setting's best floor."""
    theta = values(form)
    problem = _problem(type(form), settings, grid, frozenset(names(type(form))), noise)
    return float(minimise(problem, settings.loss, theta, _row_weights(settings)[None])[1][0])


def _row_weights(settings: Settings) -> Array:
    """Balanced between settings; in sum, the number of runs near their setting's best."""
    near = settings.weights()
    return near * np.count_nonzero(near) / settings.count


def _residual_noise(form: type[Any], settings: Settings, grid: Grid, theta: Array) -> float:
    """Robust standard deviation around the form with each setting's own floor."""
    weights = settings.weights()
    residual = settings.loss - with_values(form, theta).height(grid)[0]
    floor = np.bincount(settings.label, weights * residual[0], settings.count)
    return float(scale(residual - floor[settings.label], weights[None])[0, 0])


def _problem(form: type[Any], settings: Settings, grid: Grid, held: Set[str], noise: float) -> Problem:
    hints = get_type_hints(form, include_extras=True)
    priors = [hints[name].__metadata__[0] for name in names(form)]
    widths = [0.0 if name in held else prior.width for name, prior in zip(names(form), priors, strict=True)]
    return Problem(
        model=lambda theta: with_values(form, theta).height(grid),
        labels=np.eye(settings.count)[settings.label],
        noise=noise,
        prior=Prior(np.array([prior.mean for prior in priors]), np.array(widths)),
    )
