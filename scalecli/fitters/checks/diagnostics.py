"""How much a fit hangs on single choices: rows left out, groups left out, the loss, the exact optimum.

Every check fits the law again, from the point estimate on, and watches one number that a decision would rest
on, the headline: the best tokens per parameter at ten times the largest compute for laws that have one, else
the prediction there. A choice that moves the headline out of its own interval is a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scalecli.data.notes import Notice
from scalecli.fitters.checks import allocation, approaches, plateau, regions
from scalecli.fitters.checks.subsets import Labels, left_out
from scalecli.fitters.domain import GROWING, scale_of, with_compute
from scalecli.fitters.estimate import Estimate
from scalecli.fitters.law import Array, measured_column, names, scalar_of, with_values
from scalecli.fitters.problem import Indices

DROPS = (1, 3, 5, 10, 20)
"""How many of the largest measured values are left out, as far as a quarter of the rows."""

DELTAS = (0.1, 10.0, np.inf)
"""Factors on the Huber threshold; the last is least squares."""

REFITS = 300
"""At most so many groups, and so many runs, are left out one by one: those that pull hardest on the fit."""

SHOWN = 5
"""So many of them are reported, the most influential first."""

AHEAD = 10.0
"""The headline is for this many times the largest compute among the runs."""

EXCESSES = (0.001, 0.005)
"""Flatness of the optimum is told for these fractions above the least loss."""

OUTLYING = 5.0
"""Groups further above the law than this many robust standard deviations are flagged as under-tuned."""

UNDER_TUNED = 0.01
"""And only when they lie at least 1 % above: less costs nobody a decision."""

FEWEST_GROUPS = 5
"""With fewer groups nothing says which of them is odd."""


@dataclass(frozen=True, slots=True)
class Check:
    """The fit under another choice: what was changed, and the parameters then, shape (parameters,)."""

    key: str
    changed: Any
    raw: Array
    headline: float


@dataclass(frozen=True)
class Watch:
    """A fit, the number that its checks watch, and the interval of that number."""

    fitted: Estimate
    name: str
    of: Callable[[Any], Array]
    low: float
    high: float

    def headline(self, raw: Array) -> Array:
        """The watched number for raw parameters (m, parameters), (m,)."""
        return scalar_of(self.of, self.fitted.law, raw)

    def checks(self, key: str, changed: list[Any], raw: Array) -> list[Check]:
        headline = self.headline(raw)
        return [Check(key, *parts) for parts in zip(changed, raw, headline.tolist(), strict=True)]

    def largest_dropped(self) -> list[Check]:
        """Without the k largest measured values, for several k."""
        y = self.fitted.data.y
        counts = [k for k in DROPS if k <= len(y) // 4]
        kept = np.ones((len(counts), len(y)))
        order = np.argsort(-y, kind="stable")
        for factors, count in zip(kept, counts, strict=True):
            factors[order[:count]] = 0.0
        return self.checks("dropped", counts, self.fitted.reweighted(kept)) if counts else []

    def other_deltas(self) -> list[Check]:
        """Under wider and narrower losses."""
        loss = self.fitted.method.loss
        if self.fitted.solution is None or not loss.delta_matters:
            return []
        deltas = [loss.delta * factor for factor in DELTAS]
        raw = np.stack([self.fitted.under(loss.with_delta(delta)) for delta in deltas])
        return self.checks("delta", [delta if np.isfinite(delta) else None for delta in deltas], raw)

    def without_each(self, key: str, label: Indices, called: list[str]) -> list[Check]:
        """Without each set of rows with one `label` (rows,), the most influential first."""
        if len(called) > REFITS and self.fitted.solution is None:
            return []  # a procedure has no scores that say which of so many to leave out
        chosen = self._hardest(label, len(called))
        raw = self.fitted.without(label, len(called), chosen)
        return self._strongest_first(self.checks(key, [called[which] for which in chosen], raw))[:SHOWN]

    def without_parts(self, subsets: Mapping[str, Labels]) -> list[Check]:
        """Without each part of the runs that the subsets name, the most influential first."""
        choices = left_out(subsets)
        if not choices:
            return []
        kept = np.array([rows for _, _, rows in choices], dtype=float)
        called = [f"{name} = {part}" for name, part, _ in choices]
        return self._strongest_first(self.checks("part", called, self.fitted.reweighted(kept)))

    def _strongest_first(self, checks: list[Check]) -> list[Check]:
        headline = np.array([check.headline for check in checks])
        move = np.abs(headline - self.headline(self.fitted.raw[None]))
        return [checks[i] for i in np.argsort(-np.nan_to_num(move, nan=np.inf), kind="stable")]

    def _hardest(self, label: Indices, count: int) -> Indices:
        """The labels whose rows pull hardest on the fit, `REFITS` at most."""
        if count <= REFITS:
            return np.arange(count)
        scores = self.fitted.scores(label, count)
        spread = scores.T @ scores
        return np.argsort(-np.einsum("gk,gk->g", scores @ np.linalg.pinv(spread), scores))[:REFITS]

    def notices(self, checks: list[Check]) -> Iterator[Notice]:
        """A warning for the first check that moves the headline out of its interval, or leaves none."""
        if not np.isfinite(self.headline(self.fitted.raw[None])).all():
            return
        for check in checks:
            if not np.isfinite(check.headline):
                yield Notice("W-FRAGILE", f"{_phrase(check)}, the fit has no answer for {self.name}")
                return
            if check.headline < self.low or check.headline > self.high:
                said = _apart(check.headline, self.low, self.high)
                yield Notice(
                    "W-FRAGILE",
                    f"{_phrase(check)}, {self.name} is {said[0]}, outside its interval {said[1]} to {said[2]}",
                )
                return

    def spread(self, checks: list[Check]) -> dict[str, Any] | None:
        """The headline, and the best size with it, over all choices of runs; None where there was none."""
        known = [check for check in checks if np.isfinite(check.headline)]
        if not known:
            return None
        headlines = [check.headline for check in known]
        flops = ahead_of(self.fitted)
        sizes = (
            scalar_of(
                lambda law: law.optimal_params(flops), self.fitted.law, np.array([c.raw for c in known])
            )
            if flops is not None and hasattr(self.fitted.law, "optimal_params")
            else np.empty(0)
        )
        return {
            "choices": len(known),
            "headline": [min(headlines), max(headlines)],
            "optimal_params": [float(sizes.min()), float(sizes.max())] if np.isfinite(sizes).any() else None,
        }

    def document(self, checks: list[Check]) -> list[dict[str, Any]]:
        order = names(self.fitted.law)
        return [
            {
                check.key: check.changed,
                "parameters": dict(zip(order, map(_number, check.raw.tolist()), strict=True)),
                "headline": _number(check.headline),
            }
            for check in checks
        ]


def _apart(*numbers: float) -> list[str]:
    """Numbers in as many digits, three at least, as tell them from each other.

    >>> _apart(2.883, 2.874, 2.881)
    ['2.883', '2.874', '2.881']
    """
    for digits in range(3, 10):
        texts = [f"{number:.{digits}g}" for number in numbers]
        if len(set(texts)) == len(set(numbers)):
            break
    return texts


def _phrase(check: Check) -> str:
    """What was changed, as a sentence begins."""
    match check.key:
        case "dropped":
            return (
                "without the largest value"
                if check.changed == 1
                else f"without the {check.changed} largest values"
            )
        case "delta":
            return "by least squares" if check.changed is None else f"with Huber delta {check.changed:g}"
        case "part":
            return f"without the runs of {check.changed}"
        case _:
            return f"without {check.key} {check.changed}"


def diagnose(
    fitted: Estimate, draws: Array, level: float, subsets: Mapping[str, Labels]
) -> tuple[dict[str, Any], list[Notice]]:
    """The `diagnostics` of a fit document, and its warnings. `draws` has shape (draws, parameters).

    `subsets` are parts of the runs that are left out in turn: what each row belongs to, (rows,), by name.
    """
    with np.errstate(all="ignore"):  # a refit without an answer is reported as null
        return _diagnose(fitted, draws, level, subsets)


def _diagnose(
    fitted: Estimate, draws: Array, level: float, subsets: Mapping[str, Labels]
) -> tuple[dict[str, Any], list[Notice]]:
    watch = watch_of(fitted, draws, level)
    clusters = fitted.clusters
    rows = np.arange(fitted.data.rows)
    checks = {
        "largest_dropped": watch.largest_dropped(),
        "delta": watch.other_deltas(),
        "group_left_out": watch.without_each("group", clusters.label, clusters.names)
        if clusters.count < fitted.data.rows
        else [],
        "row_left_out": watch.without_each("row", rows, [str(row + 1) for row in rows]),
        "part_left_out": watch.without_parts(subsets),
    }
    groups = under_tuned(fitted)
    flat = plateau.plateaus(with_values(fitted.law, fitted.raw), fitted.data.x, _residuals(fitted))
    curve = regions.regions(fitted, flat)
    grown = allocation.allocation(fitted.law, fitted.raw, draws, level)
    answers, budget = _approaches(fitted, draws, level)
    found = {
        "headline": {
            "name": watch.name,
            "value": _number(float(watch.headline(fitted.raw[None])[0])),
            "low": _number(watch.low),
            "high": _number(watch.high),
        },
        **{name: watch.document(table) for name, table in checks.items()},
        "spread": watch.spread(checks["part_left_out"]),
        "flatness": flatness(fitted),
        "approaches": [
            {
                "law": answer.law,
                "exponent": answer.exponent,
                "flops": budget,
                "optimal_params": {
                    "value": answer.params,
                    "low": _number(answer.low),
                    "high": _number(answer.high),
                },
            }
            for answer in answers
        ],
        "under_tuned": groups,
        "plateaus": [one.document() for one in flat],
        "regions": curve,
        "allocation": grown,
    }
    notices = [notice for table in checks.values() for notice in watch.notices(table)]
    notices += [
        *approaches.notices(answers, budget),
        *allocation.notices(grown),
        *plateau.notices(flat),
        *regions.notices(curve),
    ]
    if groups:
        worst = ", ".join(f"{group['group']} (by {group['excess']:.1%})" for group in groups)
        notices.append(
            Notice("W-UNDER-TUNED", f"far above the law lie the runs of {worst}: check their tuning")
        )
    return found, notices


def _residuals(fitted: Estimate) -> Array:
    """Log of measured over predicted, (rows,); of no use for laws that predict no measured column."""
    return (
        fitted.residuals() if fitted.law.output == measured_column(fitted.law) else np.zeros(fitted.data.rows)
    )


def watch_of(fitted: Estimate, draws: Array, level: float) -> Watch:
    """The headline of a fit, with its interval; without draws any value is inside."""
    name, of = _headline(fitted)
    answers = scalar_of(of, fitted.law, draws)
    answers = answers[np.isfinite(answers)]
    tail = (1 - level) / 2
    low, high = np.quantile(answers, [tail, 1 - tail]) if answers.size else (-np.inf, np.inf)
    return Watch(fitted, name, of, float(low), float(high))


def ahead_of(fitted: Estimate) -> float | None:
    """The compute that the headline is for; None where the runs do not say theirs."""
    columns = with_compute(fitted.data.x)
    return AHEAD * float(columns["flops"].max()) if "flops" in columns else None


def _headline(fitted: Estimate) -> tuple[str, Callable[[Any], Array]]:
    law, x = fitted.law, fitted.data.x
    flops = ahead_of(fitted)
    if flops is not None and hasattr(law, "optimal_params") and hasattr(law, "optimal_tokens"):
        return (
            f"the best tokens per parameter at {flops:.2g} FLOPs",
            lambda law: np.asarray(law.optimal_tokens(flops) / law.optimal_params(flops)),
        )
    if law.output != measured_column(law):
        edge = {name: np.array([AHEAD * float(x[name].max())]) for name in law.inputs}
        return f"{law.output} at {AHEAD:g} times the largest {law.inputs[0]}", lambda law: np.asarray(
            law.predict(edge)
        )
    largest = int(np.argmax(scale_of(law, x, fitted.log_prediction())))
    growing = [name for name in GROWING if name in law.inputs]
    factor = AHEAD ** (1 / max(len(growing), 1))
    ahead = {
        name: x[name][largest : largest + 1] * (factor if name in growing else 1.0) for name in law.inputs
    }
    where = f"{AHEAD:g} times the largest scale" if growing else "the largest run"
    return f"{law.output} at {where}", lambda law: np.asarray(law.predict(ahead))


def _approaches(fitted: Estimate, draws: Array, level: float) -> tuple[list[approaches.Answer], float]:
    """What approaches 1, 2 and 3 say is the best size ahead of the runs, and at which compute."""
    flops = ahead_of(fitted)
    flops = np.nan if flops is None else flops
    return approaches.side_by_side(fitted, draws, flops, level), flops


def flatness(fitted: Estimate) -> list[dict[str, Any]]:
    """How far params may lie from the optimum at a compute for so much more loss:
    [{flops, excess, params}]."""
    law = with_values(fitted.law, fitted.raw[None])
    if set(fitted.law.inputs) != {"params", "tokens"} or not hasattr(law, "optimal_params"):
        return []
    largest = float(with_compute(fitted.data.x)["flops"].max())
    found = []
    for flops in (largest, AHEAD * largest):
        best = float(law.optimal_params(flops)[0, 0])
        params = best * np.geomspace(1e-3, 1e3, 1201)
        loss = law.predict({"params": params, "tokens": flops / (6 * params)})[0]
        if not (np.isfinite(best) and np.isfinite(loss).all()):
            continue
        for excess in EXCESSES:
            near = params[loss <= loss.min() * (1 + excess)]
            span = [float(near[0]), float(near[-1])]
            found.append({"flops": flops, "loss_excess": excess, "optimal_params": best, "params": span})
    return found


def under_tuned(fitted: Estimate) -> list[dict[str, Any]]:
    """Groups whose runs lie far above the law, by robust standard deviations of group means:
    [{group, excess}]."""
    clusters = fitted.clusters
    if fitted.law.output != measured_column(fitted.law) or clusters.count < FEWEST_GROUPS:
        return []
    means = np.bincount(clusters.label, fitted.residuals()) / np.bincount(clusters.label)
    centre = float(np.median(means))
    spread = 1.4826 * float(np.median(np.abs(means - centre)))
    least = max(OUTLYING * spread, UNDER_TUNED)
    odd = [which for which in np.argsort(-means)[:SHOWN] if means[which] - centre > least]
    return [{"group": clusters.names[which], "excess": float(np.expm1(means[which]))} for which in odd]


def _number(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if np.isfinite(value) else None
