"""The predicted loss of the target, and how much loss is worth in compute."""

from __future__ import annotations

from typing import Any

import numpy as np

from scalecli.errors import PlanError
from scalecli.fitters.fit import Fit
from scalecli.fitters.fit import Interval as FitInterval
from scalecli.fitters.law import Array
from scalecli.plan.fits import FitSet
from scalecli.plan.notes import Notes
from scalecli.plan.target import Target


def inputs_of(law: Any, target: Target) -> dict[str, np.ndarray[Any, Any]]:
    """The target as the law's inputs, each of shape (1,); `PlanError` when the law asks for what a target lacks."""
    columns = target.columns()
    missing = [name for name in law.inputs if name not in columns]
    if missing:
        raise PlanError(
            f"the law {law.name!r} needs {', '.join(missing)}, which a plan's target does not say",
            hint="fit a law over params and tokens",
        )
    return {name: np.array([columns[name]]) for name in law.inputs}


def predict_loss(fits: FitSet, target: Target, notes: Notes) -> FitInterval | None:
    """Loss at the target with its predictive interval, or None with a warning."""
    fit = fits.loss_law if fits.predicts_loss else None
    if fit is None:
        notes.line("loss", None, unit="nats/token", rule="needs a loss law", source="none")
        notes.warn("W-NO-LOSS-FIT", "no loss law was given: the loss of the target is not predicted")
        return None
    found = fit.predict(inputs_of(fit.law, target.counted(fit)))
    value = FitInterval(value=float(found.value[0]), low=float(found.low[0]), high=float(found.high[0]))
    rule = (
        f"{fit.law.name} law"
        if fits.loss is not None
        else "tuned loss of the landscape: no loss law was given"
    )
    notes.line("loss", value, unit="nats/token", rule=rule, source="fit")
    return value


def loss_at(law: Any, target: Target, *, size_factor: float = 1.0, tokens_factor: float = 1.0) -> Array:
    """Loss [nats/token] of the target made larger and trained longer by these factors; (1,), or (draws, 1)."""
    columns = dict(target.columns())
    for name in ("params", "params_active", "params_non_embedding"):
        columns[name] *= size_factor
    for name in ("tokens", "unique_tokens"):
        columns[name] *= tokens_factor
    columns["flops"] *= size_factor * tokens_factor
    predicted: Array = law.predict({name: np.array([columns[name]]) for name in law.inputs})
    return predicted


def loss_gain_per_compute(fit: Fit, target: Target, step: float = 1e-3) -> float:
    """-dL/d ln C along constant tokens a parameter [nats a factor e of compute], by a central difference."""
    ends = [np.exp(sign * step / 2) for sign in (-1, 1)]
    here = target.counted(fit)
    low, high = (loss_at(fit.law, here, size_factor=end, tokens_factor=end).item() for end in ends)
    return float(low - high) / (2 * step)


def extra_tokens(fit: Fit, target: Target, excess: float) -> float | None:
    """The fraction of further tokens that makes up for `excess` nats; None when no number of tokens does.

    Solves L(N, D (1 + x)) = L(N, D) - excess by bisection on log(1 + x), up to a thousandfold of tokens.
    """

    here = target.counted(fit)

    def loss(log_factor: float) -> float:
        return loss_at(fit.law, here, tokens_factor=np.exp(log_factor)).item()

    wanted, low, high = loss(0.0) - excess, 0.0, np.log(1e3)
    if loss(high) > wanted:
        return None
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if loss(middle) > wanted else (low, middle)
    return float(np.expm1(high))
