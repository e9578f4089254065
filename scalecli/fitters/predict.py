"""What a fit says at points of the user's, and the input that reaches a wanted value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scalecli.errors import DataError, NoOptimum
from scalecli.fitters.fit import Fit
from scalecli.fitters.landscape.tuned import KNOBS, fill_in, has_optimum
from scalecli.fitters.law import Array

FAR = 1.0
"""Decades beyond the runs past which a prediction is a statement about the law, not about the data."""

WIDEST = 30.0
"""Decades on either side of the runs in which a solution is looked for."""

SCAN = 241
"""Points of the scan that brackets a solution."""

HALVINGS = 60
"""Bisections after the scan: more than doubles can resolve."""

Point = Mapping[str, float]


def predict_points(fit: Fit, points: Sequence[Point], *, level: float | None = None) -> dict[str, Any]:
    """The prediction document for these points; `DataError` when an input is missing or not positive.

    A landscape may be asked without batch and learning rate: then they are the best ones, told in `optimum`.
    """
    level = fit.interval if level is None else level
    whole, optima = zip(*(_tuned(fit, point, level) for point in points), strict=True)
    found = fit.predict(_columns(fit, whole), level)
    rows = zip(whole, found.value, found.low, found.high, found.extrapolation, strict=True)
    places = [
        _point(*row, level) | ({"optimum": best} if best else {})
        for row, best in zip(rows, optima, strict=True)
    ]
    return _document(fit, fit.law.output, places)


def asked_inputs(law: Any) -> list[str]:
    """The inputs that every point has to say."""
    return [name for name in law.inputs if not (has_optimum(law) and name in KNOBS)]


def _tuned(fit: Fit, point: Point, level: float) -> tuple[Point, dict[str, Any]]:
    if not has_optimum(fit.law) or set(KNOBS) <= point.keys():
        return point, {}
    _check_point(point, asked_inputs(fit.law))
    return fill_in(fit, point, level)


def solve_points(
    fit: Fit, points: Sequence[Point], *, solve: str, value: float, level: float | None = None
) -> dict[str, Any]:
    """The prediction document for the input `solve` at which the law gives `value`, all else as said.

    Raises `DataError` for an input the law does not have, `NoOptimum` when no value of it gets there.
    """
    if solve not in fit.law.inputs:
        raise DataError(
            f"{fit.law.name} has no input {solve!r}", hint=f"--solve takes one of {', '.join(fit.law.inputs)}"
        )
    level = fit.interval if level is None else level
    rows = [_solved(fit, point, solve, value, level) for point in points]
    return _document(fit, solve, rows)


def _columns(fit: Fit, points: Sequence[Point]) -> dict[str, Array]:
    for point in points:
        _check_point(point, fit.law.inputs)
    return {name: np.array([point[name] for point in points], dtype=float) for name in fit.law.inputs}


def _check_point(point: Point, inputs: Sequence[str]) -> None:
    missing = [name for name in inputs if name not in point]
    if missing:
        raise DataError(
            f"a point needs {', '.join(inputs)}; {', '.join(missing)} is missing",
            hint="--at " + ",".join(f"{name}=..." for name in inputs),
        )
    wrong = [name for name in inputs if not (np.isfinite(point[name]) and point[name] > 0)]
    if wrong:
        raise DataError(f"{wrong[0]} is {point[wrong[0]]:g}; the inputs of a law are positive")


def _point(at: Point, value: float, low: float, high: float, distance: float, level: float) -> dict[str, Any]:
    return {
        "at": dict(at),
        "value": _known(value),
        "low": _known(low),
        "high": _known(high),
        "interval": level,
        "extrapolation": _known(distance),
    }


def _known(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None


def _document(fit: Fit, quantity: str, points: list[dict[str, Any]]) -> dict[str, Any]:
    warnings = [{"code": notice.code, "message": notice.message} for notice in fit.warnings]
    far = [point for point in points if (point["extrapolation"] or 0.0) > FAR]
    if far:
        most = max(point["extrapolation"] for point in far)
        text = f"{len(far)} of {len(points)} points lie up to {most:.1f} decades beyond the runs"
        warnings.append({"code": "W-EXTRAPOLATION", "message": text})
    return {
        "schema": "scalecli/prediction/1",
        "law": fit.law.name,
        "quantity": quantity,
        "interval": points[0]["interval"],
        "points": points,
        "warnings": warnings,
    }


def _solved(fit: Fit, point: Point, solve: str, value: float, level: float) -> dict[str, Any]:
    others = {**point, solve: 1.0}
    _columns(fit, [others])
    low, high = fit.domain.get(solve, (1.0, 1.0))
    grid = np.linspace(np.log(low) - WIDEST * np.log(10) / 2, np.log(high) + WIDEST * np.log(10) / 2, SCAN)
    solution = float(_roots(fit.law, others, solve, value, grid)[0])
    if not np.isfinite(solution):
        raise NoOptimum(
            f"no {solve} gives {fit.law.output} = {value:g} at {_text(point, solve)}",
            hint="ask for a value between the law's floor and its largest prediction",
        )
    answers = _roots(fit.bundle(), others, solve, value, grid) if len(fit.draws) else np.empty(0)
    known = answers[np.isfinite(answers)]
    tail = (1 - level) / 2
    ends = np.quantile(known, [tail, 1 - tail]) if known.size else np.full(2, np.nan)
    at = {**point, solve: solution}
    distance = fit.predict(_columns(fit, [at]), level).extrapolation[0]
    missing = {"draws_without_answer": len(answers) - len(known)}
    return _point(point, solution, ends[0], ends[1], distance, level) | missing


def _text(point: Point, solve: str) -> str:
    return ", ".join(f"{name} = {number:g}" for name, number in point.items() if name != solve) or "any point"


def _roots(law: Any, point: Point, solve: str, value: float, grid: Array) -> Array:
    """The first crossing of `value` along `grid` (logs of the input), one a draw; NaN where there is none."""

    def gap(log_input: Array) -> Array:
        """(draws, points), or (1, points) for one law, at inputs that broadcast against that."""
        columns = {name: np.full_like(log_input, point[name]) for name in law.inputs}
        columns[solve] = np.exp(log_input)
        return np.atleast_2d(law.predict(columns)) - value

    with np.errstate(all="ignore"):
        scan = gap(grid[None, :])
        crossing = np.diff(np.sign(scan), axis=1) != 0
        first = np.argmax(crossing, axis=1)
        low, high = grid[first][:, None], grid[first + 1][:, None]
        rising = np.take_along_axis(scan, first[:, None], axis=1) < 0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            below = (gap(middle) < 0) == rising
            low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.where(crossing.any(axis=1), np.exp(high[:, 0]), np.nan)
