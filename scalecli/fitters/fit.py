"""Fitting a law to runs: the point estimate, its draws, and everything that says how far to trust them.

>>> import numpy as np
>>> from scalecli.fitters.laws.chinchilla import Chinchilla
>>> size, data = np.meshgrid([1e7, 1e8, 1e9], [1e9, 1e10, 1e11])
>>> x = {"params": size.ravel(), "tokens": data.ravel()}
>>> truth = Chinchilla(E=1.7, A=400.0, B=1200.0, alpha=0.34, beta=0.31)
>>> fit = fit_law(Chinchilla, x, truth.predict(x), options=FitOptions(draws=50))
>>> round(fit.law.alpha, 6), fit.status.value
(0.34, 'converged')
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from scalecli.data.notes import Notice
from scalecli.errors import DataError, NoOptimum
from scalecli.fitters.calibrate import Band, Validation, band_of, calibrate, log_predictions
from scalecli.fitters.checks.diagnostics import diagnose
from scalecli.fitters.checks.subsets import Labels
from scalecli.fitters.document import from_json, read_fields, read_text, to_json, write_document
from scalecli.fitters.domain import Domain, domain_of, extrapolation, scale_of
from scalecli.fitters.estimate import Estimate, Method, estimate
from scalecli.fitters.identify import check_runs
from scalecli.fitters.law import (
    Array,
    ClusteredLaw,
    Columns,
    EstimatedLaw,
    optional_columns,
    parameters,
    required_columns,
    scalar_of,
    values,
    with_values,
)
from scalecli.fitters.objective import LossName, row_loss
from scalecli.fitters.problem import Data
from scalecli.fitters.resample import Clusters
from scalecli.fitters.verdict import Status, draw_notices, interval_notices, search_notices, status_of
from scalecli.fitters.weights import row_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """How to fit. The defaults are what the documentation calls right; see `objective` for the losses.

    `interval` is the nominal level of all intervals, `draws` the number of bootstrap draws, `delta` the Huber
    threshold in log units. `pins` fixes parameters at given values (an irreducible loss known from
    elsewhere). `diagnose` asks for the refits of `diagnostics`; without them a fit takes two thirds of the
    time.
    """

    interval: float = 0.9
    draws: int = 1000
    loss: str = "huber"
    delta: float = 1e-3
    seed: int = 0
    pins: Mapping[str, float] = field(default_factory=dict)
    diagnose: bool = True


@dataclass(frozen=True, slots=True)
class Interval:
    """A number computed from a fit. `low` and `high` are None without draws.

    `missing` counts the draws in which the quantity has no answer (an optimum that does not exist, say); the
    interval is that of the others.
    """

    value: float
    low: float | None
    high: float | None
    missing: int = 0


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted measurements at several points, each array of shape (rows,), in the units of the law's
    output.

    `low` and `high` bound a new measurement, noise included, at the nominal `level`; NaN without draws.
    `extrapolation` is 0 inside the range of the runs, else decades beyond it (`domain.extrapolation`).
    """

    value: Array
    low: Array
    high: Array
    level: float
    extrapolation: Array


@dataclass(frozen=True)
class Fit:
    """A law with its estimated parameters, and what is known about them.

    `law` holds the point estimate and `draws` (draws, parameters) the bootstrap, both in raw units and field
    order. `objective` has name, delta and value (a sum over rows); `convergence` the certificate of the
    search; `rows` how many were read, used and dropped for which reasons; `groups` how many clusters were
    resampled.
    """

    law: Any
    draws: Array
    interval: float
    objective: Mapping[str, Any]
    status: Status
    convergence: Mapping[str, Any]
    rows: Mapping[str, Any]
    groups: int
    domain: Domain
    band: Band
    validation: Validation | None
    warnings: tuple[Notice, ...]
    diagnostics: Mapping[str, Any]
    provenance: Mapping[str, Any]

    def bundle(self) -> Any:
        """The law with all draws stacked, each field of shape (draws, 1)."""
        return with_values(type(self.law), self.draws)

    def query(self, function: Callable[[Any], Any], level: float | None = None) -> Interval:
        """Anything computed from the law, with its interval: `fit.query(lambda law:
        law.optimal_params(1e24))`.

        The point estimate answers for the value, quantiles over the draws for the ends. Raises `NoOptimum`
        where the point estimate has no answer.
        """
        value = float(scalar_of(function, type(self.law), values(self.law)[None])[0])
        if not np.isfinite(value):
            raise NoOptimum(
                f"the fitted {self.law.name} has no finite answer to this question",
                hint="look at the fit's status and warnings: a parameter at a bound leaves no optimum",
            )
        answers = self.answers(function)
        known = answers[np.isfinite(answers)]
        if not known.size:
            return Interval(value, None, None, answers.size)
        tail = (1 - (self.interval if level is None else level)) / 2
        low, high = np.quantile(known, [tail, 1 - tail])
        return Interval(value, float(low), float(high), answers.size - known.size)

    def answers(self, function: Callable[[Any], Any]) -> Array:
        """A scalar computed from the law, for every draw, (draws,); NaN where a draw has no answer."""
        return scalar_of(function, type(self.law), self.draws)

    def predict(self, x: Columns, level: float | None = None) -> Prediction:
        """Predict measurements at the rows of `x`, which needs the law's inputs. Raises `DataError` without
        them."""
        columns = _columns(type(self.law).inputs, x)
        level = self.interval if level is None else level
        with np.errstate(all="ignore"):  # overflow in a stray draw is an interval without end
            point, spread = log_predictions(type(self.law), values(self.law), self.draws, columns)
            scale = scale_of(type(self.law), columns, point)
            half = (
                self.band.half_width(spread, point, level, scale)
                if len(spread)
                else np.full(len(point), np.nan)
            )
            return Prediction(
                value=np.exp(point),
                low=np.exp(point - half),
                high=np.exp(point + half),
                level=level,
                extrapolation=extrapolation(self.domain, columns),
            )

    def document(self, *, draws: bool = False) -> dict[str, Any]:
        """The JSON document; `draws` adds the draws, the domain, the formula and the band."""
        return write_document(self, draws=draws)

    def write(self, path: Path | str) -> None:
        """Write the whole fit; `Fit.read` gets it back. Raises `DataError` where the file cannot be
        written."""
        try:
            Path(path).write_text(to_json(self.document(draws=True)) + "\n", encoding="utf-8")
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror}") from error

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """The fit in a file. Raises `DataError` when there is none, or not a whole one."""
        return cls.from_document(from_json(read_text(Path(path)), str(path)), str(path))

    @classmethod
    def from_document(cls, document: Mapping[str, Any], where: str = "the document") -> Self:
        fields = read_fields(document, where)
        if fields["status"] not in set(Status):
            raise DataError(f"{where} is no usable fit: its status is {fields['status']!r}")
        return cls(**(fields | {"status": Status(fields["status"])}))


def fit_law(
    law: type[Any],
    x: Columns,
    y: Array,
    *,
    groups: NDArray[Any] | None = None,
    loss_std: Array | None = None,
    diverged: Columns | None = None,
    options: FitOptions | None = None,
    provenance: Mapping[str, Any] | None = None,
    rows_read: int | None = None,
    dropped: Sequence[tuple[str, int]] = (),
    subsets: Mapping[str, Labels] | None = None,
) -> Fit:
    """Fit a law to runs.

    `x` holds the columns of `required_columns(law)` and `y` the measured values of `measured_column(law)`,
    each of shape (rows,). Rows of equal `groups` (rows,) share an error and are resampled together; without
    groups every row stands alone. `loss_std` (rows,) are standard deviations of `y`, in its units: noisier
    rows weigh less (`weights`). `diverged` holds the inputs of runs that did: nothing is missing beyond them.
    `provenance`, `rows_read` and `dropped` (reason, count) are for the record; `subsets` are parts of the runs,
    (rows,) each, that the diagnostics leave out in turn.

    Raises `DataError` (values no fit can take), `TooFewRuns`, `NotIdentified`, `FitError` (no finite
    objective).
    """
    options = options or FitOptions()
    check_options(law, options)
    columns = _columns([*required_columns(law), *(name for name in optional_columns(law) if name in x)], x)
    y = np.asarray(y, dtype=float)
    notices = check_runs(law, columns, y, options.pins, diverged)
    weights = row_weights(columns, y, loss_std)
    data = Data(columns, y, weights.rows)
    method = Method(row_loss(LossName(options.loss), options.delta), options.pins)
    # one stream each, so that the number of draws does not change the calibration
    draw_random, noise_random, cut_random = map(
        np.random.default_rng, np.random.SeedSequence(options.seed).spawn(3)
    )
    labels = law.clusters(columns) if isinstance(law, ClusteredLaw) else groups
    clusters = Clusters.of(labels, len(y))
    if clusters.count == 1 < len(y):
        notices.append(_one_group(len(y)))
        clusters = Clusters.of(None, len(y))
    fitted = estimate(law, data, clusters, method)
    drawn = fitted.draws(options.draws, draw_random)
    draws = drawn[np.isfinite(drawn).all(1)]
    multiplier, validation = calibrate(fitted, options.interval, cut_random)
    diagnostics, fragile = (
        diagnose(fitted, draws, options.interval, subsets or {}) if options.diagnose else ({}, [])
    )
    notices += [
        *search_notices(fitted),
        *draw_notices(fitted, draws, len(drawn), options.interval),
        *interval_notices(law, options.interval, multiplier, validation),
        *fragile,
    ]
    counted = [{"reason": reason, "count": count} for reason, count in dropped]
    return Fit(
        law=with_values(law, fitted.raw),
        draws=draws,
        interval=options.interval,
        objective=_objective(fitted) | {"weights": weights.source},
        status=status_of(fitted),
        convergence=_convergence(fitted),
        rows={"read": len(y) if rows_read is None else rows_read, "used": len(y), "dropped": counted},
        groups=fitted.clusters.count,
        domain=domain_of(law, columns),
        band=band_of(fitted, len(draws), multiplier, noise_random),
        validation=validation,
        warnings=tuple(notices),
        diagnostics=diagnostics,
        provenance={
            "data_sha256": None,
            **(provenance or {}),
            "seed": options.seed,
            "versions": {name: version(name) for name in ("scalecli", "numpy")},
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )


def _one_group(rows: int) -> Notice:
    return Notice(
        "W-ONE-GROUP",
        f"all {rows} rows belong to one group, and one says nothing of how groups differ: they are resampled row by "
        "row, and intervals are too narrow by whatever error they share",
    )


def _columns(needed: Sequence[str], x: Columns) -> dict[str, Array]:
    """These columns as float arrays (rows,); `DataError` names those that are missing."""
    missing = [name for name in needed if name not in x]
    if missing:
        raise DataError(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing; there is "
            f"{', '.join(x) or 'nothing'}",
            hint="--map our=theirs renames columns",
        )
    return {name: np.atleast_1d(np.asarray(x[name], dtype=float)) for name in needed}


def check_options(law: type[Any], options: FitOptions) -> None:
    """Raise `DataError` for options that make no sense for this law."""
    if options.loss not in set(LossName):
        raise DataError(f"there is no loss {options.loss!r}; there are {', '.join(LossName)}")
    if not (options.delta > 0 and 0 < options.interval < 1 and options.draws >= 0):
        raise DataError(
            f"delta {options.delta:g} must be positive, the interval {options.interval:g} between 0 and 1, "
            f"and the number of draws {options.draws} not negative"
        )
    params = parameters(law)
    for name, value in options.pins.items():
        if name not in params or isinstance(law, EstimatedLaw):
            raise DataError(f"{law.name} has no parameter {name!r} to pin; it searches {', '.join(params)}")
        low, high = params[name].low, params[name].high
        if not low <= value <= high:
            raise DataError(f"{name} cannot be pinned at {value:g}: it lies in [{low:g}, {high:g}]")


def _objective(fitted: Estimate) -> dict[str, Any]:
    """Name, delta and value of what was minimised; null for a law that is a procedure."""
    if fitted.solution is None:
        return {"name": "procedure", "delta": None, "value": None}
    loss = fitted.method.loss
    return {
        "name": loss.name,
        "delta": loss.delta if loss.delta_matters else None,
        "value": fitted.solution.value,
    }


def _convergence(fitted: Estimate) -> dict[str, Any]:
    if fitted.solution is None:
        return {"starts": 1, "agree": 1, "gradient_norm": None, "profile_gap": None, "iterations": None}
    certificate = fitted.solution.certificate
    return {
        "starts": certificate.starts,
        "agree": certificate.agree,
        "gradient_norm": certificate.gradient_norm,
        "profile_gap": certificate.profile_gap,
        "iterations": certificate.iterations,
    }
