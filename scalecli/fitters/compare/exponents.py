"""Do two recipes share their exponents? Then one only shifts the other's curve, however large the model.

Better data, optimizers and architectures mostly change the scale factors of a law and not its exponents
(Hestness et al. 2017, section 5); where they do change an exponent, the gain grows with scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scalecli.fitters.compare.crossover import interval_of
from scalecli.fitters.fit import Fit, Interval
from scalecli.fitters.law import Array, PowerSum, names, parameters


@dataclass(frozen=True, slots=True)
class Difference:
    """One exponent of both fits, and first minus second over pairs of draws.

    `p_value` is two-sided: how often a difference of that size or more would be seen if there were none.
    """

    first: float
    second: float
    difference: Interval
    p_value: float


@dataclass(frozen=True, slots=True)
class SharedExponents:
    """Every exponent's difference, and one test of all of them together (Wald, covariance of the draws)."""

    exponents: dict[str, Difference]
    p_value: float


def shared_exponents(first: Fit, second: Fit, level: float) -> SharedExponents | None:
    """The test for two fits of one law with draws; None for different laws or without draws."""
    law = type(first.law)
    which = exponents_of(law)
    count = min(len(first.draws), len(second.draws))
    if law.name != type(second.law).name or not which or count <= len(which) + 1:
        return None
    order = [names(law).index(name) for name in which]
    gap = np.array([getattr(first.law, name) - getattr(second.law, name) for name in which])
    draws = first.draws[:count, order] - second.draws[:count, order]
    found = {
        name: Difference(
            getattr(first.law, name),
            getattr(second.law, name),
            interval_of(gap[i], draws[:, i], level),
            _two_sided(draws[:, i]),
        )
        for i, name in enumerate(which)
    }
    return SharedExponents(found, _wald(gap, draws))


def exponents_of(law: type[Any]) -> list[str]:
    """The parameters that are exponents of columns; for a law that does not say, those without scale or unit."""
    if isinstance(law, PowerSum):
        return list(dict.fromkeys(exponent for term in law.terms for _, exponent, _ in term.powers()))
    return [name for name, mark in parameters(law).items() if not mark.log and not mark.unit]


def _two_sided(draws: Array) -> float:
    """Twice the smaller share of draws on either side of zero, never less than one draw can say."""
    count = len(draws)
    smaller = min(int((draws >= 0).sum()), int((draws <= 0).sum()))
    return min(1.0, 2 * (smaller + 1) / (count + 1))


def _wald(gap: Array, draws: Array) -> float:
    from scipy.special import chdtrc

    covariance = np.atleast_2d(np.cov(draws, rowvar=False))
    statistic = float(gap @ np.linalg.pinv(covariance) @ gap)
    return float(chdtrc(len(gap), statistic))
