"""The fits a plan rests on, by what they answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from scalecli.errors import PlanError
from scalecli.fitters.fit import Fit
from scalecli.fitters.law import names, values, with_values
from scalecli.fitters.laws.chinchilla import Chinchilla

TWO_STAGE = "landscape-two-stage"

# Warnings of a landscape whose settings do not determine a loss law.
SHALLOW = {"W-ONE-LEVEL", "W-TWO-LEVELS", "W-TIED-INPUTS", "W-FEW-SETTINGS"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSet:
    """At most one fit for each question; which one a fit answers is told by what its law can be asked."""

    loss: Fit | None = None
    landscape: Fit | None = None
    two_stage: Fit | None = None
    """The two-stage landscape where a joint one is given as well: shown beside it."""
    critical_batch: Fit | None = None
    noise_scale: Fit | None = None
    surge: Fit | None = None

    @property
    def loss_law(self) -> Fit | None:
        """What says how the loss falls with params and tokens: the loss law, else the tuned loss of the landscape."""
        return self.loss or (None if self.landscape is None else _tuned_loss(self.landscape))

    @property
    def predicts_loss(self) -> bool:
        """Whether that is good for a prediction: settings of one size or length leave a tuned loss open elsewhere."""
        landscape = self.landscape
        if self.loss is not None or landscape is None:
            return self.loss is not None
        return not {notice.code for notice in landscape.warnings} & SHALLOW

    @property
    def all(self) -> list[Fit]:
        every = (self.loss, self.landscape, self.two_stage, self.critical_batch, self.noise_scale, self.surge)
        return [fit for fit in every if fit is not None]

    def setups(self) -> dict[str, dict[str, Any]]:
        """What the runs of each fit held fixed, by law."""
        return {fit.law.name: dict(fit.provenance.get("setup") or {}) for fit in self.all}

    def setup(self) -> dict[str, Any]:
        """The recipe that the runs held fixed (optimizer, betas, schedule, ...), the landscape's runs first."""
        for fit in (self.landscape, self.loss, self.critical_batch):
            if fit is not None and fit.provenance.get("setup"):
                return dict(fit.provenance["setup"])
        return {}


def _tuned_loss(landscape: Fit) -> Fit:
    """The tuned loss inside a landscape as a fit of its own."""
    order = names(type(landscape.law))
    own = [order.index(name) for name in names(Chinchilla)]
    law = with_values(Chinchilla, values(landscape.law)[own])
    return replace(landscape, law=law, draws=landscape.draws[:, own])


def count_of(fit: Fit) -> str:
    """The column whose count of parameters the fit's law reads as `params`: that of its runs."""
    return str((fit.provenance.get("setup") or {}).get("params_kind", "params"))


def question(fit: Fit) -> str:
    """Which of FitSet's questions the fit answers; `PlanError` when none."""
    if hasattr(fit.law, "optimal_learning_rate"):
        return "landscape"
    if fit.law.name.startswith("critical-batch"):
        return "critical_batch"
    if fit.law.name in ("noise-scale", "surge"):
        return str(fit.law.name).replace("-", "_")
    if fit.law.output == "loss":
        return "loss"
    raise PlanError(
        f"a plan cannot use a fit of the law {fit.law.name!r}",
        hint="give fits of a loss law, a landscape, a critical batch size, a noise scale or a surge",
    )


def fit_set(fits: Sequence[Fit]) -> FitSet:
    """Sort fits by question; `PlanError` when two answer the same one."""
    sorted_fits: dict[str, Fit] = {}
    joint = any(question(fit) == "landscape" and fit.law.name != TWO_STAGE for fit in fits)
    for fit in fits:
        asked = "two_stage" if joint and fit.law.name == TWO_STAGE else question(fit)
        if asked in sorted_fits:
            raise PlanError(
                f"both {sorted_fits[asked].law.name!r} and {fit.law.name!r} answer for the {asked.replace('_', ' ')}",
                hint="give one --fit for each question",
            )
        sorted_fits[asked] = fit
    return FitSet(**sorted_fits)
