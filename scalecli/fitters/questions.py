"""The questions that a law answers beside its prediction: best sizes, splits and batches, what reaches a loss.

A question is a public method of the law whose arguments are all numbers and that gives an array: what a law can be
asked is said nowhere else.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from scalecli.errors import DataError
from scalecli.fitters.domain import extrapolation
from scalecli.fitters.fit import Fit
from scalecli.fitters.predict import Point, point_document, points_document

NUMBERS = {"Array | float", "float"}
ARRAYS = {"Array", "Array | float"}


def questions_of(law: type[Any]) -> dict[str, tuple[str, ...]]:
    """Name of each question -> the numbers it takes, in the order of the class.

    >>> from scalecli.fitters.laws.kaplan_steps import KaplanSteps
    >>> questions_of(KaplanSteps)
    {'steps_for_loss': ('loss', 'params')}
    """
    asked = {}
    for name in dict.fromkeys(name for kind in reversed(law.__mro__) for name in vars(kind)):
        method = getattr(law, name)
        if name.startswith("_") or not inspect.isfunction(method):
            continue
        _, *arguments = inspect.signature(method).parameters.values()
        given = method.__annotations__
        if given.get("return") in ARRAYS and all(one.annotation in NUMBERS for one in arguments):
            asked[name] = tuple(one.name for one in arguments if one.default is one.empty)
    return asked


def ask_points(
    fit: Fit, question: str, points: Sequence[Point], *, level: float | None = None
) -> dict[str, Any]:
    """The prediction document for a question at these points; one empty point where the question takes nothing.

    Raises `DataError` for a question that the law does not answer or a point without its numbers, `NoOptimum` where
    the fitted law has no answer.
    """
    known = questions_of(type(fit.law))
    if question not in known:
        answered = ", ".join(f"{name}({', '.join(takes)})" for name, takes in known.items()) or "none"
        raise DataError(f"{fit.law.name} answers no {question!r}", hint=f"its questions: {answered}")
    level = fit.interval if level is None else level
    rows = [_answered(fit, question, known[question], point, level) for point in points or [{}]]
    return points_document(fit, question, rows)


def _answered(fit: Fit, question: str, takes: tuple[str, ...], point: Point, level: float) -> dict[str, Any]:
    if set(point) != set(takes):
        raise DataError(
            f"{question} takes {', '.join(takes) or 'no numbers'}; got {', '.join(point) or 'none'}",
            hint="--at " + ",".join(f"{name}=..." for name in takes) if takes else "leave out --at",
        )
    if min(point.values(), default=1.0) <= 0:
        raise DataError(f"{question} takes positive numbers; got {min(point.values()):g}")
    answer = fit.query(lambda law: getattr(law, question)(**point), level)
    distance = extrapolation(fit.domain, {name: np.array([number]) for name, number in point.items()})
    return point_document(point, answer.value, answer.low, answer.high, float(distance[0]), level)
