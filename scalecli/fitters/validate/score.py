"""How a law fitted to some runs predicts others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from scalecli.data.tables import RunTable
from scalecli.errors import DataError, NotIdentified, TooFewRuns
from scalecli.fitters.fit import Fit, FitOptions, Prediction
from scalecli.fitters.landscape.judged import Judged, judge
from scalecli.fitters.landscape.queries import central_batch
from scalecli.fitters.landscape.runs import read_grid
from scalecli.fitters.landscape.settings import group_settings
from scalecli.fitters.landscape.tuned import has_optimum
from scalecli.fitters.law import Array, Columns, measured_column, with_values
from scalecli.fitters.runs import estimate_runs, fit_runs
from scalecli.fitters.validate.split import Split


@dataclass(frozen=True)
class Validated:
    """A fit to the training runs, and what it says of the held-out ones; arrays have shape (heldout,)."""

    fit: Fit
    split: Split
    at: Columns
    measured: Array
    prediction: Prediction
    judged: Sequence[Judged] | None = None
    """Of a landscape: what it recommends for the held-out settings, and what that costs there."""

    @property
    def log_error(self) -> Array:
        """Log of predicted over measured: positive where the law is too pessimistic about a loss."""
        return np.asarray(np.log(self.prediction.value / self.measured))

    @property
    def mean_abs_log_error(self) -> float:
        return float(np.abs(self.log_error).mean())

    @property
    def coverage(self) -> float | None:
        """Share of the held-out measurements inside their intervals; None for a fit without draws."""
        low, high = self.prediction.low, self.prediction.high
        if np.isnan(low).any():
            return None
        return float(((low <= self.measured) & (self.measured <= high)).mean())

    def document(self) -> dict[str, Any]:
        """The validation document of the command line's contract."""
        errors = self.log_error
        found = self.prediction
        rows = zip(self.measured, found.value, found.low, found.high, found.extrapolation, strict=True)
        return {
            "schema": "scalecli/validation/1",
            "law": self.fit.law.name,
            "train": self.split.rule,
            "train_rows": len(self.split.train),
            "heldout_rows": len(self.measured),
            "mean_abs_log_error": self.mean_abs_log_error,
            "rms_log_error": float(np.sqrt((errors**2).mean())),
            "bias": float(errors.mean()),
            "coverage": self.coverage,
            "interval": found.level,
            "points": [self._point(i, *row) for i, row in enumerate(rows)],
            "recommendation": self._recommendation(),
            "warnings": [{"code": notice.code, "message": notice.message} for notice in self.fit.warnings],
        }

    def _recommendation(self) -> dict[str, Any] | None:
        """Mean and worst excess over the held-out settings, as fractions of the loss."""
        if not self.judged:
            return None
        inside = [each.excess for each in self.judged if np.isfinite(each.excess)]
        return {
            "settings": len(self.judged),
            "outside": len(self.judged) - len(inside),
            "mean_excess": float(np.mean(inside)) if inside else None,
            "worst_excess": max(inside, default=None),
            "points": [
                asdict(each) | {"excess": each.excess if np.isfinite(each.excess) else None}
                for each in self.judged
            ],
        }

    def _point(
        self, row: int, measured: float, predicted: float, low: float, high: float, distance: float
    ) -> dict[str, Any]:
        return {
            "at": {name: float(column[row]) for name, column in self.at.items()},
            "measured": float(measured),
            "predicted": float(predicted),
            "low": float(low) if np.isfinite(low) else None,
            "high": float(high) if np.isfinite(high) else None,
            "extrapolation": float(distance),
        }


def validate_law(
    split: Split, law: type[Any], *, group: str | None = None, options: FitOptions | None = None
) -> Validated:
    """Fit the law to the training runs and score it on the held-out ones.

    Raises what `fit_runs` raises, and `DataError` for a law that predicts no measured column, or nothing
    finite and positive for the held-out runs.
    """
    at, measured = _heldout(split, law)
    fit = fit_runs(split.train, law, group=group, options=options)
    prediction = fit.predict(at)
    _require_prediction(law, prediction.value)
    judged = _judged(fit, split.heldout) if has_optimum(fit.law) else None
    return Validated(fit, split, at, measured, prediction, judged)


def _judged(fit: Fit, heldout: RunTable) -> Sequence[Judged]:
    """The landscape's recommendations judged by the held-out runs, as far as these are grids of their own."""

    def ask(params: float, tokens: float) -> tuple[float, float]:
        batch, rate = central_batch(fit.law, params, tokens), fit.law.optimal_learning_rate(params, tokens)
        return float(batch), float(rate)

    x, y = read_grid(heldout.with_derived(fit.law.inputs))
    finished = np.isfinite(y)
    try:
        settings = group_settings({name: column[finished] for name, column in x.items()}, y[finished])
    except (TooFewRuns, NotIdentified):
        return []
    return judge(settings, ask)


def extrapolation_errors(split: Split, law: type[Any], options: FitOptions) -> Array:
    """Log of predicted over measured for the held-out runs, (heldout,), from the point estimate alone.

    Raises as `validate_law` does.
    """
    at, measured = _heldout(split, law)
    fitted = estimate_runs(split.train, law, options)
    predicted = np.broadcast_to(with_values(law, fitted.raw).predict(at), len(measured))
    _require_prediction(law, predicted)
    return np.asarray(np.log(predicted / measured))


def _heldout(split: Split, law: type[Any]) -> tuple[Columns, Array]:
    output = law.output
    if output != measured_column(law):
        raise DataError(
            f"{law.name} predicts {output}, which no run measures: there is nothing to score it on",
            hint="validate a law of the loss",
        )
    heldout = split.heldout.with_derived([*law.inputs, output])
    measured = heldout.columns([output])[output]
    if (measured <= 0).any():
        raise DataError(f"{output} is {measured.min():g} in a held-out run; errors are of its logarithm")
    return heldout.columns(law.inputs), measured


def _require_prediction(law: type[Any], predicted: Array) -> None:
    if not (np.isfinite(predicted) & (predicted > 0)).all():
        raise DataError(f"{law.name}, fitted to the smaller runs, has no finite prediction for the larger")
