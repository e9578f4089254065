"""Laws ranked by how they extrapolate, never by how they fit what they have seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scalecli.data.tables import RunTable
from scalecli.errors import DataError, FitError, TooFewRuns
from scalecli.fitters.fit import Fit, FitOptions
from scalecli.fitters.laws import LAWS
from scalecli.fitters.runs import columns_of, fit_runs
from scalecli.fitters.validate.score import Validated, extrapolation_errors, validate_law
from scalecli.fitters.validate.split import Split, hold_out_share

CUTS = (0.5, 0.35, 0.2)
"""Shares of the runs held out in turn, from the largest, when a law is chosen: one cut alone is a matter of
luck (Alabdulmohsin et al. 2022 choose by extrapolation too, with one)."""

AXES = ("params", "tokens", "flops")
"""The columns that a law of one column is tried over."""

OUTPUT = "loss"
"""Laws are ranked among those that predict it; errors in other quantities cannot be compared with theirs."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """A law that cannot be ranked, and why."""

    law: str
    reason: str


@dataclass(frozen=True, slots=True)
class Ranked:
    """A law's mean |log error| beyond what it was fitted to, over the cuts."""

    law: type[Any]
    mean_abs_log_error: float


@dataclass(frozen=True)
class Ranking:
    """Laws best first, the shares held out, and the laws that could not be tried."""

    laws: tuple[Ranked, ...]
    cuts: tuple[float, ...]
    unusable: tuple[Unusable, ...]

    def document(self) -> dict[str, Any]:
        return {
            "held_out_shares": list(self.cuts),
            "laws": [
                {"law": ranked.law.name, "mean_abs_log_error": ranked.mean_abs_log_error}
                for ranked in self.laws
            ],
            "unusable": [{"law": law.law, "reason": law.reason} for law in self.unusable],
        }


def validate_all(
    split: Split, *, group: str | None = None, options: FitOptions | None = None
) -> tuple[list[Validated], list[Unusable]]:
    """Every law that can be fitted to the training runs, best first, and the others with their reasons.

    The fits come without diagnostics. Raises `TooFewRuns` when there is no law at all.
    """
    options = replace(options or FitOptions(), diagnose=False)
    found: list[Validated] = []
    unusable = []
    for law in candidates(split.train):
        try:
            _require(law, split.train)
            found.append(validate_law(split, law, group=group, options=options))
        except (DataError, FitError) as error:
            unusable.append(Unusable(law.name, error.message))
    if not found:
        raise _none(split.train, unusable)
    return sorted(found, key=lambda one: one.mean_abs_log_error), unusable


def choose_law(table: RunTable, options: FitOptions | None = None) -> tuple[type[Any], Ranking]:
    """The law that extrapolates best inside these runs, and the ranking behind the choice.

    Laws are fitted to the smaller runs at several cuts and scored on the larger. A law that cannot be fitted
    at every cut is not chosen; where none can, the deepest cut is left out. Raises `TooFewRuns` when no law
    can be tried at all.
    """
    unusable: list[Unusable] = []
    for cuts in (CUTS, CUTS[1:], CUTS[2:]):
        splits = [hold_out_share(table, share) for share in cuts]
        ranked, unusable = _scored(splits, options or FitOptions())
        if ranked:
            best = sorted(ranked, key=lambda one: one.mean_abs_log_error)
            return best[0].law, Ranking(tuple(best), cuts, tuple(unusable))
    raise _none(table, unusable)


def fit_best(table: RunTable, *, group: str | None = None, options: FitOptions | None = None) -> Fit:
    """Fit the law that `choose_law` chooses; its ranking is in the fit's provenance under `choice`."""
    law, ranking = choose_law(table, options)
    fit = fit_runs(table, law, group=group, options=options)
    return replace(fit, provenance={**fit.provenance, "choice": ranking.document()})


def candidates(table: RunTable) -> Iterator[type[Any]]:
    """Every law; those of one column over each column that is there, or over their own when none is."""
    present = [name for name in AXES if name in table.with_derived(AXES).frame.columns]
    for law in LAWS:
        if not hasattr(law, "over") or not present:
            yield law
        else:
            yield from (law.over(name) for name in present)


def _scored(splits: Sequence[Split], options: FitOptions) -> tuple[list[Ranked], list[Unusable]]:
    ranked, unusable = [], []
    for law in candidates(splits[0].train):
        try:
            _require(law, splits[0].train)
            errors = [float(np.abs(extrapolation_errors(split, law, options)).mean()) for split in splits]
        except (DataError, FitError) as error:
            unusable.append(Unusable(law.name, error.message))
        else:
            ranked.append(Ranked(law, float(np.mean(errors))))
    return ranked, unusable


def _require(law: type[Any], table: RunTable) -> None:
    """Raise `DataError` for a law that answers another question or lacks a column."""
    if law.output != OUTPUT:
        raise DataError(f"predicts {law.output}, not {OUTPUT}")
    wanted = columns_of(law)
    missing = [name for name in wanted if name not in table.with_derived(wanted).frame.columns]
    if missing:
        raise DataError(f"the runs have no {', '.join(missing)}")


def _none(table: RunTable, unusable: Sequence[Unusable]) -> TooFewRuns:
    nearest = [law for law in unusable if not law.reason.startswith(("predicts", "the runs have no"))]
    reasons = "; ".join(f"{law.law}: {law.reason}" for law in nearest[:3])
    return TooFewRuns(
        f"no law of {OUTPUT} can be fitted to the smaller runs of {table.source}{f' ({reasons})' if reasons else ''}",
        hint="train more proxies, or name a law with --law",
    )
