"""How far the target lies beyond the runs of each fit, measured by how far hold-outs have gone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from scalecli.fitters.fit import Fit
from scalecli.fitters.reach import Reach, axes_of
from scalecli.plan.fits import FitSet
from scalecli.plan.notes import Notes
from scalecli.plan.target import Target

# The lines of a plan that rest on each fit.
RESTING = {
    "loss": ("loss",),
    "landscape": ("batch", "batch for the objective", "learning rate"),
    "two_stage": ("batch by two stages", "learning rate by two stages"),
    "critical_batch": ("critical batch", "batch at 20 % overhead"),
}


@dataclass(frozen=True, slots=True)
class Distance:
    """The target on one axis: `beyond` the runs by this factor, where hold-outs went up by `validated`."""

    axis: str
    beyond: float
    validated: float

    @property
    def calibrated(self) -> bool:
        return self.beyond <= max(1.0, self.validated)

    def __str__(self) -> str:
        if self.beyond == 1:
            return f"{self.axis} within the runs"
        return (
            f"{self.axis} {self.beyond:.3g}× beyond the runs, {self.beyond / self.validated:.3g} of the "
            f"{self.validated:.3g}× that hold-outs went"
        )


def note_extrapolation(fits: FitSet, target: Target, notes: Notes) -> None:
    """Say the distance per axis; beyond what hold-outs went, mark the lines that rest on the fit as uncalibrated."""
    for question, lines in RESTING.items():
        fit: Fit | None = getattr(fits, question)
        if fit is None:
            continue
        distances = list(distances_of(fit, target))
        notes.line(
            f"extrapolation of the {fit.law.name} law", "; ".join(map(str, distances)) or "no axis of scale", unit="",
            rule="distance from the runs over the largest ratio that hold-outs have validated", source="fit",
        )  # fmt: skip
        far = [str(distance) for distance in distances if not distance.calibrated]
        if far:
            resting = (*lines, "loss") if fit is fits.landscape and fits.loss is None else lines
            notes.mark(resting, "uncalibrated: further than hold-outs went")
            notes.warn(
                "W-UNCALIBRATED-INTERVAL",
                f"{fit.law.name}: {'; '.join(far)}: its interval is a statement of the law, and published rules stand "
                "beside it",
            )


def distances_of(fit: Fit, target: Target) -> Iterator[Distance]:
    """One for each axis that the law reads. Without a hold-out, nothing beyond the runs is validated."""
    columns = {name: np.array([value]) for name, value in target.counted(fit).columns().items()}
    reaches = fit.validation.reach if fit.validation is not None and fit.validation.reach else _domain(fit)
    for axis, value in axes_of(columns).items():
        if axis in reaches:
            reach = reaches[axis]
            yield Distance(axis, reach.beyond(float(value[0])), reach.validated)


def _domain(fit: Fit) -> dict[str, Reach]:
    return {name: Reach(low, high, 1.0) for name, (low, high) in fit.domain.items() if low > 0}
