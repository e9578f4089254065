"""How the batch changes over training: not at all, with the critical batch, or as a probe's table says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scalecli.data.catalogue import published_law
from scalecli.errors import PlanError
from scalecli.fitters.fit import Fit
from scalecli.fitters.law import Law
from scalecli.plan.fits import FitSet
from scalecli.plan.loss import loss_at
from scalecli.plan.target import Target

Curve = Callable[[float], float]
"""Tokens seen -> a batch [tokens] up to a factor; may fall as well as rise."""


@dataclass(frozen=True, slots=True)
class Course:
    """A curve, the rule it is, where it is from, and what to mind."""

    curve: Curve
    rule: str
    source: str
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Batches [tokens] over the share of a training, from a step-to-batch table of another training."""

    shares: tuple[float, ...]
    batches: tuple[float, ...]
    name: str

    @classmethod
    def read(cls, path: Path) -> Table:
        """From a run table with `tokens` (seen when the batch begins) and `batch_tokens`, rising in tokens.

        Raises `PlanError` for fewer than two rows, and `DataError` as `read_runs` does.
        """
        from scalecli.data.tables import read_runs

        columns = read_runs(str(path), require=("tokens", "batch_tokens")).columns(["tokens", "batch_tokens"])
        tokens, batches = columns["tokens"], columns["batch_tokens"]
        if len(tokens) < 2 or not (np.diff(tokens) > 0).all() or tokens[0] <= 0:
            raise PlanError(
                f"{path}: a batch schedule has two rows or more, with tokens that rise from above 0",
                hint="write one with `scalecli probe noise --batch-schedule FILE`",
            )
        return cls(tuple(tokens / tokens[-1]), tuple(batches), path.name)

    def course(self, target: Target) -> Course:
        """The table stretched to the target's tokens: its course counts, not its batches."""

        def curve(tokens: float) -> float:
            at = np.log(tokens / target.tokens)
            return float(np.exp(np.interp(at, np.log(self.shares), np.log(self.batches))))

        return Course(
            curve, "follows the table over the share of the run that is done", self.name,
            "the batches of another training, from which only the course is taken",
        )  # fmt: skip


def critical_course(fits: FitSet, target: Target) -> Course:
    """The course of the critical batch: of a fit over tokens or over the loss reached, else a published one.

    The loss on the way is the loss law's for so many tokens: that of a run that ends there.
    """
    critical, loss = fits.critical_batch, fits.loss
    if critical is not None and critical.law.name != "critical-batch":
        law, rule = critical.law, f"follows the {critical.law.name} law"
        if "loss" not in law.inputs:
            columns = target.counted(critical).columns()
            return Course(lambda tokens: _at(law, {**columns, "tokens": tokens}), rule, "fit")
        if loss is not None:
            return Course(lambda tokens: _at(law, {"loss": _loss(loss, target, tokens)}), rule, "fit")
    record = published_law("power-lines-critical-batch")
    return Course(
        lambda tokens: record.predict({"tokens": tokens}),
        f"follows a published critical batch, ∝ tokens^{record.exponents['tokens']:g}", record.source,
        "folklore: no fit says the course of the critical batch (critical-batch-tokens, or critical-batch-loss with a "
        "loss law)",
    )  # fmt: skip


def _at(law: Law, columns: dict[str, float]) -> float:
    return float(law.predict({name: np.array([columns[name]]) for name in law.inputs})[0])


def _loss(fit: Fit, target: Target, tokens: float) -> float:
    return loss_at(fit.law, target.counted(fit), tokens_factor=tokens / target.tokens).item()
