"""Batch and learning rate left out of a question to a landscape: the best ones, and how flat the valley is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scalecli.errors import NotIdentified
from scalecli.fitters.fit import Fit, Interval
from scalecli.fitters.landscape.flat_range import FLAT
from scalecli.fitters.landscape.queries import central_batch

KNOBS = ("batch_tokens", "learning_rate")

Ends = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Tuned:
    """The best value of a knob, and the ends between which the loss stays within `FLAT` of its least."""

    best: Interval
    flat: Ends

    def document(self) -> dict[str, Any]:
        best = self.best
        return {"value": best.value, "low": best.low, "high": best.high, "flat_range": list(self.flat)}


def has_optimum(law: Any) -> bool:
    """Whether the law can say which batch and rate are best."""
    return hasattr(law, "optimal_learning_rate")


def tuned_batch(fit: Fit, params: float, tokens: float, level: float) -> Tuned | None:
    """None where the runs do not determine the best batch."""
    try:
        best = fit.query(lambda law: law.optimal_batch_tokens(params, tokens), level)
    except NotIdentified:
        return None
    return Tuned(best, _ends(fit.law.flat_range(params, tokens, FLAT).batch_tokens))


def tuned_rate(fit: Fit, params: float, tokens: float, batch_tokens: float | None, level: float) -> Tuned:
    """At the best batch, or re-tuned for `batch_tokens`."""
    if batch_tokens is None:
        best = fit.query(lambda law: law.optimal_learning_rate(params, tokens), level)
        return Tuned(best, _ends(fit.law.flat_range(params, tokens, FLAT).learning_rate))
    best = fit.query(lambda law: law.optimal_learning_rate_at(params, tokens, batch_tokens), level)
    return Tuned(best, _ends(fit.law.flat_rates_at(params, tokens, batch_tokens, FLAT)))


def fill_in(fit: Fit, point: Mapping[str, float], level: float) -> tuple[dict[str, float], dict[str, Any]]:
    """The point with the knobs it leaves out at their best, and these as a document: null for a batch that the runs do
    not determine, where the one they used takes its place.
    """
    params, tokens, batch = point["params"], point["tokens"], point.get("batch_tokens")
    found: dict[str, Any] = {}
    filled = dict(point)
    if batch is None:
        known = tuned_batch(fit, params, tokens, level)
        found["batch_tokens"] = None if known is None else known.document()
        filled["batch_tokens"] = (
            float(central_batch(fit.law, params, tokens)) if known is None else known.best.value
        )
    if "learning_rate" not in point:
        rate = tuned_rate(fit, params, tokens, batch, level)
        found["learning_rate"] = rate.document()
        filled["learning_rate"] = rate.best.value
    return filled, found


def _ends(found: tuple[Any, Any]) -> Ends:
    low, high = found
    return float(low), float(high)
