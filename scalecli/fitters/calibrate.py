"""Predictive intervals that hold beyond the data: noise added, then widened until past extrapolations are
covered.

The bootstrap says how uncertain the curve is, the residuals how far a run lies from it; but neither knows
that the law itself is only nearly right, and on real data the two together cover far less than they promise
at larger scale. So the law is fitted to the smaller runs alone, at several cuts along the scale axis, the
larger ones are scored in units of the interval's half-width, and the quantile of these scores multiplies the
width of every interval given out (split conformal prediction, ordered by compute). The last cut is kept apart
to measure how often the intervals so made contain what was held out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from scalecli.errors import FitError, NotIdentified, TooFewRuns
from scalecli.fitters.domain import scale_of
from scalecli.fitters.estimate import Estimate, estimate
from scalecli.fitters.identify import check_runs
from scalecli.fitters.law import Array, ClusteredLaw, Columns, measured_column, with_values
from scalecli.fitters.problem import Mask
from scalecli.fitters.reach import Reach, reach_of
from scalecli.fitters.solver import QUICK

CUTS = (0.4, 0.5, 0.6, 0.7)
"""Shares of the runs, from the smallest, that the law is fitted to; the rest is scored."""

NARROWEST = 1e-9
"""No half-width is below this, in log units: on data without noise the rest is rounding errors."""

DRAWS = 200
"""Bootstrap draws at each cut: enough for the width of an interval."""

SCORED = 2000
"""Held-out rows that are scored at each cut, at most: enough for a quantile."""

FEWEST_ROWS = 10
"""With fewer runs nothing is said about how noise changes with scale."""

SMALLEST_SHARE = 0.1
"""Residuals below this share of the typical one count as this large when noise is compared across scales."""


@dataclass(frozen=True)
class Band:
    """Turns draws of a prediction into an interval for a new measurement.

    `noise` (draws,) are log residuals, one for each draw, as large as they are at the largest runs; towards
    smaller ones they grow as exp(-fading x log scale) over `scales`, the range of the runs' log scale, and no
    further. `multiplier` is 1 or more; None when the runs were too few to hold any out, so that nothing is
    known of the interval's coverage.
    """

    noise: Array
    multiplier: float | None
    fading: float = 0.0
    scales: tuple[float, float] = (0.0, 0.0)

    def noise_factor(self, scale: Array) -> Array:
        """How much larger noise is at these log scales than at the largest runs, (rows,)."""
        return np.asarray(np.exp(self.fading * (np.clip(scale, *self.scales) - self.scales[1])))

    def half_width(self, log_draws: Array, log_point: Array, level: float, scale: Array) -> Array:
        """In log units, (rows,), from log predictions (draws, rows) and (rows,), at these log scales."""
        off = np.abs(log_draws - log_point + self.noise[:, None] * self.noise_factor(scale))
        return np.quantile(off, level, axis=0) * (self.multiplier or 1.0)


@dataclass(frozen=True, slots=True)
class Validation:
    """The law fitted to the smaller runs and scored on the larger: rows, mean |log error|, coverage of its
    intervals, and how far up each axis that went."""

    heldout_rows: int
    mean_abs_log_error: float
    coverage: float
    reach: Mapping[str, Reach] = field(default_factory=dict)


@dataclass(frozen=True)
class Cut:
    """One split by scale: which rows were held out, their log errors and the interval's uncalibrated
    half-widths."""

    largest_trained: float
    heldout: Mask
    error: Array
    half_width: Array

    @property
    def scores(self) -> Array:
        return self.error / self.half_width


def calibrate(
    fitted: Estimate, level: float, rng: np.random.Generator
) -> tuple[float | None, Validation | None]:
    """The multiplier for intervals at `level`, and how such intervals did on the largest runs.

    Both are None where no cut leaves enough runs to fit the law to, or where it does not predict what is
    measured.
    """
    if fitted.law.output != measured_column(fitted.law):
        return None, None
    scale = scale_of(fitted.law, fitted.data.x, fitted.log_prediction())
    with np.errstate(all="ignore"):  # a stray draw without a prediction widens the interval without end
        cuts = [cut for share in CUTS if (cut := _cut(fitted, scale, share, level, rng)) is not None]
    if not cuts:
        return None, None
    *earlier, last = cuts
    seen = [cut.scores[(scale <= last.largest_trained)[cut.heldout]] for cut in earlier]
    widened = last.half_width * _multiplier(seen, level)
    validation = Validation(
        heldout_rows=int(last.heldout.sum()),
        mean_abs_log_error=float(last.error.mean()),
        coverage=float((last.error <= widened).mean()),
        reach=reach_of(fitted.data.x, [cut.heldout for cut in cuts]),
    )
    return _multiplier([cut.scores for cut in cuts], level), validation


def band_of(fitted: Estimate, draws: int, multiplier: float | None, rng: np.random.Generator) -> Band:
    """The band of a fit: residuals of random runs (a random cluster, then a run of it), one for each draw.

    They are widened for the parameters that were fitted. Zeros where the law predicts no measurement.
    """
    if fitted.law.output != measured_column(fitted.law):
        return Band(np.zeros(draws), multiplier)
    scale = scale_of(fitted.law, fitted.data.x, fitted.log_prediction())
    fading = _fading(fitted.residuals(), scale)
    label = fitted.clusters.label
    chance = 1 / np.bincount(label, minlength=fitted.clusters.count)[label]
    picked = rng.choice(len(label), size=draws, p=chance / chance.sum())
    noise = (fitted.residuals() * np.exp(fading * (scale.max() - scale)))[picked]
    noise = noise * fitted.clusters.inflation(len(label), len(fitted.raw))
    return Band(noise, multiplier, fading, (float(scale.min()), float(scale.max())))


def _fading(residuals: Array, scale: Array) -> float:
    """How the log of the noise changes with log scale: small runs scatter more (Porian et al. 2024,
    appendix).

    The slope of log |residual| over scale, shrunk towards none by how little the runs say of it: by the
    positive part of 1 - 1/t^2 (James and Stein), t the slope in standard errors.
    """
    size = np.abs(residuals)
    typical = np.median(size)
    off = scale - scale.mean()
    moment = float(off @ off)
    if len(scale) < FEWEST_ROWS or typical <= NARROWEST or moment == 0:
        return 0.0
    # a robust fit goes through some runs exactly; their logs would decide the slope
    log_size = np.log(np.maximum(size, SMALLEST_SHARE * typical))
    slope = float(off @ log_size) / moment
    rest = log_size - log_size.mean() - slope * off
    square_error = float(rest @ rest) / (len(scale) - 2) / moment
    return slope * max(0.0, 1 - square_error / slope**2) if slope else 0.0


def _multiplier(scores: list[Array], level: float) -> float:
    """The conformal quantile of the scores, at least 1: intervals are never made narrower than the model
    says."""
    every = np.sort(np.concatenate([*scores, np.empty(0)]))
    rank = int(np.ceil((len(every) + 1) * level))
    return max(1.0, float(every[min(rank, len(every)) - 1])) if len(every) else 1.0


def _cut(fitted: Estimate, scale: Array, share: float, level: float, rng: np.random.Generator) -> Cut | None:
    """Fit the smallest `share` of the rows and score the others; None where that many cannot be fitted."""
    largest = float(np.quantile(scale, share))
    trained = scale <= largest
    if trained.all():
        return None
    data = fitted.data.take(trained)
    try:
        check_runs(fitted.law, data.x, data.y, fitted.method.pins)
        method = replace(fitted.method, effort=QUICK)
        part = estimate(fitted.law, data, fitted.clusters.take(trained), method)
    except (TooFewRuns, NotIdentified, FitError):
        return None
    draws = part.draws(DRAWS, rng)
    draws = draws[np.isfinite(draws).all(1)]
    if not len(draws):
        return None
    scored = _at_most(SCORED, ~trained)
    held = fitted.data.take(scored)
    if isinstance(part.law, ClusteredLaw):  # a point of a loss curve is predicted from the points before it
        point, spread = log_predictions(part.law, part.raw, draws, fitted.data.x)
        point, spread = point[scored], spread[:, scored]
    else:
        point, spread = log_predictions(part.law, part.raw, draws, held.x)
    error = np.abs(np.log(held.y) - point)
    band = band_of(part, len(draws), None, rng)
    width = band.half_width(spread, point, level, scale_of(part.law, held.x, point))
    return Cut(largest, scored, error, np.maximum(width, NARROWEST))


def _at_most(count: int, chosen: Mask) -> Mask:
    """The chosen rows, evenly thinned where there are more than `count`."""
    rows = np.flatnonzero(chosen)
    kept = np.zeros_like(chosen)
    kept[rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.intp)]] = True
    return kept


def log_predictions(law: type, raw: Array, draws: Array, x: Columns) -> tuple[Array, Array]:
    """Log of the prediction at the point estimate (rows,) and at every draw (draws, rows)."""
    rows = len(next(iter(x.values())))
    point = np.log(np.broadcast_to(with_values(law, raw).predict(x), rows))
    return point, np.log(np.broadcast_to(with_values(law, draws).predict(x), (len(draws), rows)))
