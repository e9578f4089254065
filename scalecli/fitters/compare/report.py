"""The document of `scalecli compare`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from scalecli.data.notes import Notice
from scalecli.fitters.compare.comparable import require_comparable
from scalecli.fitters.compare.crossover import (
    Crossover,
    chance_first_wins,
    chance_of_crossing,
    crossovers,
    multipliers,
)
from scalecli.fitters.compare.curve import Curve
from scalecli.fitters.compare.exponents import shared_exponents
from scalecli.fitters.fit import Fit, Interval

SIDES = ("first", "second")

AHEAD = 2.0
"""Decades beyond the runs of both fits that are looked at."""

PLACES = 9
"""Places over the whole range at which the multiplier is told."""


def compare_fits(
    first: Fit,
    second: Fit,
    *,
    along: str = "flops",
    at: Mapping[str, float] | None = None,
    target: float | None = None,
    level: float | None = None,
) -> dict[str, Any]:
    """Crossovers, the multiplier of compute over the whole range, and the shared-exponent test.

    The range is that of both fits' runs and two decades more, or as far as `target`. Raises `DataError` for
    fits that do not answer the same question.
    """
    require_comparable(first, second)
    level = first.interval if level is None else level
    one, two = Curve(first, along, dict(at or {})), Curve(second, along, dict(at or {}))
    span = _range(one, two, target)
    found = crossovers(one, two, span, level)
    places = np.geomspace(*span, PLACES)
    ratios = multipliers(one, two, places, level)
    joint = _shared_by_construction(first, second)
    exponents = None if joint else shared_exponents(first, second, level)
    notices = list(_notices(one, two, found, target))
    return {
        "schema": "scalecli/comparison/1",
        "first": _side(first),
        "second": _side(second),
        "output": first.law.output,
        "along": along,
        "at": dict(at or {}),
        "range": list(span),
        "interval": level,
        "crossovers": [_crossover(crossing) for crossing in found],
        "chance_of_crossing": chance_of_crossing(one, two, span),
        "multipliers": [
            {"at": float(place), **_interval(ratio)} for place, ratio in zip(places, ratios, strict=True)
        ],
        "target": None if target is None else _target(one, two, target, level),
        "shared_exponents": None
        if exponents is None
        else {
            "exponents": {
                name: {
                    "first": part.first,
                    "second": part.second,
                    "difference": _interval(part.difference),
                    "p_value": part.p_value,
                }
                for name, part in exponents.exponents.items()
            },
            "p_value": exponents.p_value,
        },
        "shared_by_construction": joint,
        "warnings": [{"code": notice.code, "message": notice.message} for notice in notices],
    }


def _shared_by_construction(first: Fit, second: Fit) -> list[str]:
    """Parameters that both fits have from one joint search over their arms."""
    said = [(fit.provenance.get("data_sha256"), fit.provenance.get("shared")) for fit in (first, second)]
    return list(said[0][1]) if said[0] == said[1] and said[0][1] else []


def crossover_notice(first: Fit, second: Fit, flops: float, names: tuple[str, str] = SIDES) -> Notice | None:
    """A warning when the fit that is better where there are runs is not the better one at `flops`.

    The message calls the fits by these names. Raises `DataError` for fits that do not answer the same question.
    """
    require_comparable(first, second)
    one, two = Curve(first, "flops", {}), Curve(second, "flops", {})
    return _reversal(one, two, flops, names)


def _range(one: Curve, two: Curve, target: float | None) -> tuple[float, float]:
    low, high = min(one.span[0], two.span[0]), max(one.span[1], two.span[1])
    return min(low, target or low), max(high * 10**AHEAD, target or high)


def _last_measured(one: Curve, two: Curve) -> float:
    """The largest place where both fits have runs, or the middle of the gap between their ranges."""
    low, high = max(one.span[0], two.span[0]), min(one.span[1], two.span[1])
    return high if low <= high else float(np.sqrt(low * high))


def _reversal(one: Curve, two: Curve, target: float, names: tuple[str, str] = SIDES) -> Notice | None:
    place = np.array([_last_measured(one, two), target])
    here, there = one.point(place) < two.point(place)
    if here == there:
        return None
    better_here, better_there = (names[0] if first else names[1] for first in (here, there))
    return Notice(
        "W-BEYOND-CROSSOVER",
        f"at {one.axis} = {place[0]:.3g}, where both have runs, the {better_here} fit is better; at the target "
        f"{target:.3g} the {better_there}: the recommendation rests on a crossover that was not measured",
    )


def _notices(one: Curve, two: Curve, found: list[Crossover], target: float | None) -> Iterator[Notice]:
    end = max(one.span[1], two.span[1])
    ahead = [crossing for crossing in found if crossing.place.value > end]
    if ahead:
        yield Notice(
            "W-CROSSOVER-EXTRAPOLATED",
            f"the curves cross at {one.axis} = {ahead[0].place.value:.3g}, "
            f"{np.log10(ahead[0].place.value / end):.1f} decades beyond all runs",
        )
    if target is not None and (notice := _reversal(one, two, target)) is not None:
        yield notice
    if one.fit.law.inputs != two.fit.law.inputs:
        yield Notice(
            "W-DIFFERENT-INPUTS",
            f"one law reads {', '.join(one.fit.law.inputs)}, the other {', '.join(two.fit.law.inputs)}: make "
            "sure that they count the same parameters",
        )


def _side(fit: Fit) -> dict[str, Any]:
    return {
        "law": fit.law.name,
        "source": fit.provenance.get("source"),
        "domain": {name: list(span) for name, span in fit.domain.items()},
        "status": fit.status.value,
    }


def _crossover(crossing: Crossover) -> dict[str, Any]:
    return {
        **_interval(crossing.place),
        "better_below": "second" if crossing.first_wins_beyond else "first",
        "better_above": "first" if crossing.first_wins_beyond else "second",
        "chance": crossing.chance,
    }


def _target(one: Curve, two: Curve, target: float, level: float) -> dict[str, Any]:
    place = np.array([target])
    values = float(one.point(place)[0]), float(two.point(place)[0])
    return {
        "at": target,
        "first": values[0],
        "second": values[1],
        "better": "first" if values[0] < values[1] else "second",
        "chance_first": chance_first_wins(one, two, target),
        "multiplier": _interval(multipliers(one, two, place, level)[0]),
    }


def _interval(found: Interval) -> dict[str, Any]:
    value = found.value if np.isfinite(found.value) else None
    return {"value": value, "low": found.low, "high": found.high, "missing": found.missing}
