"""The number that a design is to make sure of: a loss, an optimal size, batch or learning rate at a target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scalecli.errors import DataError, FitError
from scalecli.fitters.compare.curve import Curve
from scalecli.fitters.fit import Fit
from scalecli.fitters.law import Array


@dataclass(frozen=True)
class Answer:
    """A positive number computed from a fit: its estimate and its value in every draw that has one.

    `kept` (draws,) says which draws these are; `log_draws` (kept draws,) are logs of the number.
    """

    name: str
    unit: str
    value: float
    log_draws: Array
    kept: Array

    def interval(self, level: float, shrink: float = 1.0) -> tuple[float, float]:
        """Quantiles over the draws, the distances from the estimate multiplied by `shrink`."""
        ends = np.quantile(self.log_draws, [(1 - level) / 2, (1 + level) / 2])
        low, high = np.exp(np.log(self.value) + shrink * (ends - np.log(self.value)))
        return float(low), float(high)


@dataclass(frozen=True, slots=True)
class _Kind:
    unit: str
    needs: tuple[str, ...]
    method: str


OPTIMA = {
    "params": _Kind("parameters", ("flops",), "optimal_params"),
    "tokens": _Kind("tokens", ("flops",), "optimal_tokens"),
    "batch": _Kind("tokens", ("params", "tokens"), "optimal_batch_tokens"),
    "learning-rate": _Kind("", ("params", "tokens"), "optimal_learning_rate"),
}
NAMES = ("loss", *OPTIMA)


def answer_of(fit: Fit, name: str, at: Mapping[str, float]) -> Answer:
    """The answer at the target `at`.

    Raises `DataError` for an answer that the law does not give or a target that lacks something, `FitError`
    when too few draws have an answer to say how sure it is.
    """
    if name not in NAMES:
        raise DataError(f"there is no answer {name!r}; there are {', '.join(NAMES)}")
    if name == "loss":
        value, draws = _loss(fit, at)
        return _kept("loss", "nats/token", value, draws)
    kind = OPTIMA[name]
    if not hasattr(fit.law, kind.method):
        raise DataError(
            f"{fit.law.name} has no optimal {name}",
            hint="design for --answer loss, or from another law's fit",
        )
    missing = [column for column in kind.needs if column not in at]
    if missing:
        raise DataError(
            f"the optimal {name} is asked at a {' and '.join(kind.needs)}; {', '.join(missing)} is missing",
            hint="--at " + ",".join(f"{column}=..." for column in kind.needs),
        )
    asked = _method(kind.method, [at[column] for column in kind.needs])
    return _kept(name, kind.unit, fit.query(asked).value, fit.answers(asked))


def _method(name: str, places: list[float]) -> Callable[[Any], Any]:
    return lambda law: getattr(law, name)(*places)


def _loss(fit: Fit, at: Mapping[str, float]) -> tuple[float, Array]:
    """At a compute with everything else at its best, or at a point of the law's inputs."""
    if "flops" in at and "flops" not in fit.law.inputs:
        curve = Curve(fit, "flops", {name: value for name, value in at.items() if name != "flops"})
        place = np.array([at["flops"]])
    else:
        optimised = {"batch_tokens", "learning_rate"} if hasattr(fit.law, "tuned_loss") else set()
        missing = [name for name in fit.law.inputs if name not in {*at, *optimised}]
        if missing:
            raise DataError(
                f"the loss of {fit.law.name} is asked at a point; {', '.join(missing)} is missing",
                hint="--at "
                + ",".join(f"{column}=..." for column in fit.law.inputs if column not in optimised)
                + ", or --at flops=... for the best loss at that compute",
            )
        axis = next(name for name in fit.law.inputs if name in at)
        curve = Curve(fit, axis, {name: value for name, value in at.items() if name != axis})
        place = np.array([at[axis]])
    return float(curve.point(place)[0]), curve.draws(place)[:, 0]


FEWEST_DRAWS = 50


def _kept(name: str, unit: str, value: float, draws: Array) -> Answer:
    with np.errstate(all="ignore"):
        logs = np.log(draws)
    kept = np.isfinite(logs)
    if not (np.isfinite(value) and value > 0) or kept.sum() < FEWEST_DRAWS:
        raise FitError(
            f"the {name} at this target has an answer in {int(kept.sum())} of {len(draws)} draws; a design needs "
            f"{FEWEST_DRAWS}",
            hint="fit again with --draws 1000, or ask at a target nearer to the runs",
        )
    return Answer(name, unit, value, logs[kept], kept)
