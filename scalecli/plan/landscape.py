"""What a fitted landscape says at the target: the optimum, how flat it is, and what two stages say beside it."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from scalecli.errors import NotIdentified
from scalecli.fitters.fit import Fit
from scalecli.fitters.fit import Interval as FitInterval
from scalecli.fitters.landscape.flat_range import FLAT
from scalecli.plan.document import Budget
from scalecli.plan.fits import FitSet
from scalecli.plan.notes import Notes
from scalecli.plan.target import Target


def has_batch(fit: Fit, target: Target) -> bool:
    """Whether the landscape's runs determine an optimal batch at all."""
    return flat_batches(fit, target) is not None


def flat_batches(fit: Fit, target: Target) -> tuple[float, float] | None:
    """Batches [tokens] within 0.1 % of the least loss; None where the runs do not say."""
    here = target.counted(fit)
    found = fit.law.flat_range(here.params, here.tokens, FLAT).batch_tokens
    return None if found is None else (float(found[0]), float(found[1]))


def flat_rates(fit: Fit, target: Target, batch_tokens: float) -> tuple[float, float]:
    """Learning rates within 0.1 % of the least loss at this batch, or where the runs do not vary it, at theirs."""
    here = target.counted(fit)
    if has_batch(fit, target):
        low, high = fit.law.flat_rates_at(here.params, here.tokens, batch_tokens, FLAT)
    else:
        low, high = fit.law.flat_range(here.params, here.tokens, FLAT).learning_rate
    return float(low), float(high)


def retuned_rate(fit: Fit | None, target: Target, batch_tokens: float) -> float | None:
    """The learning rate re-tuned for this batch, where a landscape knows."""
    if fit is None or not has_batch(fit, target):
        return None
    here = target.counted(fit)
    return float(fit.law.optimal_learning_rate_at(here.params, here.tokens, batch_tokens))


def best_batch_of(fit: Fit | None, target: Target, budget: Budget | None, notes: Notes) -> FitInterval | None:
    """The batch of least loss [tokens], and how it grows; None, with a warning, where the runs do not say.

    At one size and one number of tokens either budget has the same optimum; `budget` is whose law over scale is said.
    """
    if fit is None:
        return None
    here = target.counted(fit)
    try:
        found = fit.query(lambda law: law.optimal_batch_tokens(here.params, here.tokens))
    except NotIdentified as error:
        notes.warn("W-BATCH-NOT-IDENTIFIED", error.message)
        return None
    notes.line(
        "batch", found, unit="tokens", rule=f"least loss at fixed tokens: the optimum of the {fit.law.name} law",
        source="fit",
    )  # fmt: skip
    _note_growth(fit, here, budget, notes)
    return found


def _note_growth(fit: Fit, target: Target, budget: Budget | None, notes: Notes) -> None:
    """How the best batch grows with data for this model, and with compute at constant tokens a parameter."""

    def power(law: Any, size: float, length: float) -> Any:
        grown = law.optimal_batch_tokens(target.params * size, target.tokens * length)
        return np.log(grown / law.optimal_batch_tokens(target.params, target.tokens))

    root = math.sqrt(math.e)
    for name, size, length in (("data", 1.0, math.e), ("compute", root, root)):
        if budget not in (None, name):
            continue
        notes.line(
            f"batch over {name}", fit.query(partial(power, size=size, length=length)), unit="exponent",
            rule=f"least loss at fixed {name}: batch ∝ {name}^value", source="fit",
        )  # fmt: skip


def note_two_stage(fits: FitSet, target: Target, notes: Notes) -> None:
    """The two-stage optimum beside the joint one, and a warning where their intervals lie apart."""
    joint, two_stage = fits.landscape, fits.two_stage
    if joint is None or two_stage is None:
        return
    here = target.counted(joint)
    queries = {"learning rate": lambda law: law.optimal_learning_rate(here.params, here.tokens)}
    if has_batch(joint, target) and has_batch(two_stage, target):
        queries["batch"] = lambda law: law.optimal_batch_tokens(here.params, here.tokens)
    for name, query in queries.items():
        one, other = joint.query(query), two_stage.query(query)
        rule = f"optimum of the {two_stage.law.name} law, for comparison"
        notes.line(f"{name} by two stages", other, unit="", rule=rule, source="fit")
        if _apart(one, other):
            notes.warn(
                "W-LANDSCAPES-DISAGREE",
                f"{name}: {other.value:.3g} by two stages, {one.value:.3g} jointly, and their intervals lie apart",
            )


def _apart(one: FitInterval, other: FitInterval) -> bool:
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return False
    return one.high < other.low or other.high < one.low
