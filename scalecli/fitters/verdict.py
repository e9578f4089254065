"""What the search, the draws and the intervals say about a fit: its status and its warnings."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import numpy as np

from scalecli.data.notes import Notice
from scalecli.fitters.calibrate import Validation
from scalecli.fitters.estimate import Estimate
from scalecli.fitters.law import Array, PowerSum, measured_column, names, parameters
from scalecli.fitters.resample import FEW_CLUSTERS

AGREEING_STARTS = 0.25
"""A smaller share of starts at the best minimum than this is no agreement."""

LOST_DRAWS = 0.01
ILL_CONDITIONED = 1e8
"""Condition number of the Jacobian with columns of length 1 beyond which parameters are not told apart."""

OPEN_FACTOR = 100.0
"""A scale whose interval spans more than this factor is left open, and so is another parameter whose interval
is wider than its value."""

FEWEST_MISSED = 3
"""Fewer held-out runs outside their intervals than this are no evidence."""

SHORT_COVERAGE = 0.2
"""How far below its level an interval's measured coverage may lie before it is a warning."""


class Status(StrEnum):
    """How the search ended. Only `converged` needs no second look."""

    converged = "converged"
    """The starts agree on a minimum inside all bounds."""

    at_bound = "at_bound"
    """The starts agree, and a parameter that a warning names sits at a bound: the runs do not determine
    it."""

    starts_disagree = "starts_disagree"
    """Few starts found the best minimum, so that a better one may exist."""

    max_iterations = "max_iterations"
    """The best search ran out of iterations or of precision before its gradient vanished."""


def status_of(fitted: Estimate) -> Status:
    """The gravest of what there is to say; a procedure without a search has converged."""
    if fitted.solution is None:
        return Status.converged
    certificate = fitted.solution.certificate
    if not certificate.converged:
        return Status.max_iterations
    if certificate.agree < AGREEING_STARTS * certificate.starts:
        return Status.starts_disagree
    return Status.at_bound if fitted.solution.bounds else Status.converged


def search_notices(fitted: Estimate) -> Iterator[Notice]:
    """Bounds that were reached, starts that disagree, parameters that the runs do not tell apart."""
    if fitted.solution is None:
        return
    certificate = fitted.solution.certificate
    for bound in fitted.solution.bounds:
        yield Notice(
            "W-AT-BOUND",
            f"{bound.parameter} ended at its {bound.side} bound {bound.value:g}: the runs do not determine "
            "it",
        )
    if not certificate.converged:
        yield Notice(
            "W-NOT-CONVERGED",
            f"the search stopped after {certificate.iterations} iterations with gradient norm "
            f"{certificate.gradient_norm:.2g}",
        )
    if certificate.agree < AGREEING_STARTS * certificate.starts:
        yield Notice(
            "W-STARTS-DISAGREE",
            f"only {certificate.agree} of {certificate.starts} starts reached the best objective: there "
            "may be a better",
        )
    condition, weakest = _conditioning(fitted)
    if condition > ILL_CONDITIONED:
        yield Notice(
            "W-ILL-CONDITIONED",
            f"the runs do not tell {' and '.join(weakest)} apart (condition {condition:.1g}): their values "
            "mean little; what they predict near the runs may still be right",
        )


def draw_notices(fitted: Estimate, draws: Array, asked: int, level: float) -> Iterator[Notice]:
    """Draws (draws, parameters) without an answer, too few clusters to draw from, parameters left open."""
    lost = asked - len(draws)
    if lost > LOST_DRAWS * asked:
        yield Notice("W-DRAWS-LOST", f"{lost} of {asked} bootstrap draws had no answer and are left out")
    if fitted.clusters.few:
        yield Notice(
            "W-FEW-GROUPS",
            f"there are only {fitted.clusters.count} groups of runs, fewer than {FEW_CLUSTERS}: intervals "
            "are rough",
        )
    if not len(draws):
        return
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    for i, (name, param) in enumerate(parameters(fitted.law).items()):
        wide = high[i] > OPEN_FACTOR * low[i] if param.log else high[i] - low[i] > abs(fitted.raw[i])
        if wide and name not in _powered_scales(fitted.law):
            yield Notice(
                "W-POORLY-DETERMINED",
                f"the runs leave {name} open: {fitted.raw[i]:.3g} with interval {low[i]:.3g} to {high[i]:.3g}",
            )


def _powered_scales(law: type[Any]) -> set[str]:
    """Scales that go with an exponent: wide whenever that is not exact, which says nothing about the fit."""
    return {term.scale for term in law.terms if term.powers()} if isinstance(law, PowerSum) else set()


def interval_notices(
    law: type[Any], level: float, multiplier: float | None, validation: Validation | None
) -> Iterator[Notice]:
    """Intervals that could not be checked against larger runs, or failed the check."""
    if law.output != measured_column(law):
        yield Notice(
            "W-NOT-CALIBRATED",
            f"no run measures {law.output}: its intervals cannot be held against larger runs",
        )
    elif multiplier is None:
        yield Notice(
            "W-NOT-CALIBRATED",
            "too few runs to hold the largest out: the intervals' coverage beyond the runs is not known",
        )
    elif validation is not None and _short(validation, level):
        yield Notice(
            "W-COVERAGE",
            f"fitted to the smaller runs, {level:.0%} intervals contained {validation.coverage:.0%} of the "
            f"{validation.heldout_rows} larger ones: the law bends there, or the smaller runs say too little of it",
        )


def _short(validation: Validation, level: float) -> bool:
    """Whether the coverage is too low for chance: by `SHORT_COVERAGE`, and by more runs than a few."""
    missed = round((1 - validation.coverage) * validation.heldout_rows)
    return validation.coverage < level - SHORT_COVERAGE and missed >= FEWEST_MISSED


def _conditioning(fitted: Estimate) -> tuple[float, list[str]]:
    """Condition of the Jacobian at the fit, in search coordinates, and the two parameters most at fault."""
    assert fitted.solution is not None
    problem, theta = fitted.solution.problem, fitted.solution.theta
    free = (theta > problem.low) & (theta < problem.high)
    slopes = problem.jacobian(theta[None])[0][:, free]
    length = np.linalg.norm(slopes, axis=0)
    if slopes.shape[1] < 2 or not np.isfinite(length).all() or not (length > 0).all():
        return (1.0 if (length > 0).all() else np.inf), _named(fitted, free, length == 0)
    _, singular, directions = np.linalg.svd(slopes / length, full_matrices=False)
    worst = np.argsort(-np.abs(directions[-1]))[:2]
    mask = np.zeros(len(length), dtype=bool)
    mask[worst] = True
    return float(singular[0] / max(singular[-1], np.finfo(float).tiny)), _named(fitted, free, mask)


def _named(fitted: Estimate, free: Any, chosen: Any) -> list[str]:
    assert fitted.solution is not None
    which = fitted.solution.problem.free[free][chosen]
    return [names(fitted.law)[i] for i in which]
