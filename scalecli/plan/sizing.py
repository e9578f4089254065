"""The size for what may be spent: by the fit's law where it can say, else by a published one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scalecli.data.catalogue import published_law
from scalecli.fitters.fit import Fit
from scalecli.fitters.fit import Interval as FitInterval
from scalecli.fitters.laws import law_named
from scalecli.plan.allocation import Allocator, Found
from scalecli.plan.fits import count_of
from scalecli.plan.notes import Notes
from scalecli.plan.speed import Speed
from scalecli.plan.spending import Spending

# What stands in for a fit: of dense models, and of models with experts.
DENSE, SPARSE = "chinchilla-refit", "joint-moe"


@dataclass(frozen=True, slots=True)
class LossLaw:
    """A law of the loss, and the fit it is from; `source` is `fit` or a key of the catalogue."""

    law: Any
    fit: Fit | None
    source: str


def loss_law(fit: Fit | None, experts: Sequence[int], notes: Notes) -> LossLaw:
    """The fit's law; a published one, with a warning, without a fit or where a fit says nothing of experts."""
    asked_of_experts = tuple(experts) != (1,)
    if fit is not None and (not asked_of_experts or "num_experts" in fit.law.inputs):
        if count_of(fit) != "params":
            notes.warn(
                "W-PARAMS-COUNT",
                f"the runs of {fit.law.name} count {count_of(fit)}: size and length for a budget take it for all "
                "parameters",
            )
        return LossLaw(fit.law, fit, "fit")
    record = published_law(SPARSE if asked_of_experts else DENSE)
    reason = "no loss law was given" if fit is None else f"the law {fit.law.name} says nothing of experts"
    notes.warn(
        "W-NO-LOSS-FIT",
        f"{reason}: size and length follow {record.source}, whose losses are of another corpus and tokenizer",
    )
    return LossLaw(law_named(record.law)(**record.values), None, record.source)


def best_size(
    known: LossLaw, spending: Spending, speed: Speed | None, vocab: int, experts: Sequence[int], notes: Notes
) -> Found:
    """Size, number of experts and length; a line for each. Raises PlanError where the budget buys nothing."""
    found = Allocator(
        law=known.law, fit=known.fit, spending=spending, speed=speed, vocab=vocab, experts=experts
    ).find()
    best, per_active = found.best, found.best.params / found.best.params_active
    size = found.params_active
    ends = [None if end is None else end * per_active for end in (size.low, size.high)]
    notes.line(
        "params", FitInterval(best.params, ends[0], ends[1]), unit="parameters (total)",
        rule=f"{best.reason} by {known.law.name} law, {spending}", source=known.source,
        no_interval=None if known.fit is not None else "a published law, without draws",
    )  # fmt: skip
    if tuple(experts) != (1,):
        notes.line(
            "experts", best.num_experts, unit="1", rule=f"{best.reason} of {', '.join(map(str, experts))} experts, one "
            "a token", source=known.source, no_interval="a choice",
        )  # fmt: skip
    return found
