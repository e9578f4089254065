"""What the batch is to be best for, and the batch that is.

`tokens`                the batch of least loss at the target's tokens: the fewest tokens for that loss
`max-extra-tokens=5%`   the largest batch that costs at most so many more tokens for the same loss
`exchange=X`            tokens and steps have prices: 1 % of the least tokens is worth X times 1 % of the least steps.
                        Minimises E / E_ref + X S / S_ref; on the hyperbola that is B = √X B_crit (McCandlish et al.
                        2018, section 2.4). X = 1 without further thought is the critical batch.
`time`                  the fewest days on the given devices
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from scalecli.errors import PlanError
from scalecli.fitters.fit import Interval as FitInterval
from scalecli.plan.efficiency import Efficiency, HyperbolaEfficiency

Goal = Literal["tokens", "time", "max-extra-tokens", "exchange"]
# Batches that are tried around the best one, in powers of the square root of two.
OCTAVES_BELOW, OCTAVES_ABOVE = 6, 10
Pace = Callable[[float], float | None]
"""Batch [tokens] -> seconds a step on the given devices; None where they cannot run it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A goal, and the amount that two of them have."""

    goal: Goal = "tokens"
    amount: float | None = None

    def __str__(self) -> str:
        return self.goal if self.amount is None else f"{self.goal}={self.amount:g}"


def parse_objective(text: str) -> Objective:
    """`tokens`, `time`, `max-extra-tokens=5%` or `exchange=0.5`. Raises ValueError that says so.

    >>> parse_objective("max-extra-tokens=5%")
    Objective(goal='max-extra-tokens', amount=0.05)
    """
    name, equals, amount = text.partition("=")
    wanted = "is none of tokens, time, max-extra-tokens=5%, exchange=0.5"
    if name not in get_args(Goal) or bool(equals) != (name in ("max-extra-tokens", "exchange")):
        raise ValueError(f"{text!r} {wanted}")
    if not equals:
        return Objective(goal=name)  # type: ignore[arg-type]
    try:
        value = float(amount.removesuffix("%")) / (100 if amount.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{text!r} {wanted}; the amount is a positive number")
    return Objective(goal=name, amount=value)  # type: ignore[arg-type]


def best_batch(
    objective: Objective,
    least: FitInterval,
    efficiency: Efficiency | None,
    pace: Pace | None,
    unit: int,
) -> FitInterval:
    """The batch [tokens] for the objective; `least` is the one of least loss, devices run multiples of `unit` tokens.

    Raises `PlanError` for an objective that needs a fit or devices that are not there.
    """
    if objective.goal == "tokens":
        return least
    if efficiency is None:
        raise PlanError(
            f"the objective {objective} needs what a larger batch costs in tokens, which no fit says",
            hint="give a landscape with a loss law, or a critical-batch fit, with --fit",
        )
    if objective.goal == "time":
        return _fastest(least, efficiency, pace, unit)
    assert objective.amount is not None, "these goals have an amount"
    if objective.goal == "max-extra-tokens":
        return efficiency.largest_within(objective.amount)
    return _exchange(objective.amount, least, efficiency)


def _exchange(rate: float, least: FitInterval, efficiency: Efficiency) -> FitInterval:
    if isinstance(efficiency, HyperbolaEfficiency):
        return _scaled(efficiency.critical.tokens, math.sqrt(rate))

    def price(batch_tokens: float) -> float:
        tokens = _relative_tokens(efficiency, batch_tokens)
        return tokens * (1 + rate * least.value / batch_tokens)

    return _scaled(least, min(_around(least.value), key=price) / least.value)


def _fastest(least: FitInterval, efficiency: Efficiency, pace: Pace | None, unit: int) -> FitInterval:
    if pace is None:
        raise PlanError("the least time needs to know the devices", hint="give --accelerator and --count")

    def days(batch_tokens: float) -> float:
        seconds = pace(batch_tokens)
        if seconds is None:
            return math.inf
        return _relative_tokens(efficiency, batch_tokens) / batch_tokens * seconds

    # Whole octaves: each layout is searched for anew.
    found = min((max(1, round(batch / unit)) * unit for batch in _around(least.value, step=2)), key=days)
    if math.isinf(days(found)):
        raise PlanError(
            f"no batch near {least.value:.3g} tokens runs on these devices",
            hint="give more devices, or fewer",
        )
    return _scaled(least, found / least.value)


def _relative_tokens(efficiency: Efficiency, batch_tokens: float) -> float:
    extra = efficiency.extra_tokens(batch_tokens)
    return math.inf if extra is None else 1 + extra


def _around(batch_tokens: float, step: int = 1) -> Iterable[float]:
    """Batches by factors of √2 (of 2 with step 2) about this one."""
    return [batch_tokens * 2 ** (k / 2) for k in range(-2 * OCTAVES_BELOW, 2 * OCTAVES_ABOVE + 1, step)]


def _scaled(found: FitInterval, factor: float) -> FitInterval:
    ends = [None if end is None else end * factor for end in (found.low, found.high)]
    return FitInterval(found.value * factor, ends[0], ends[1])
