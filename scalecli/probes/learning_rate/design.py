"""Which runs find the learning rate at one scale: a grid of rates, each with several seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from scalecli.errors import ProbeError
from scalecli.probes.config import ProbeConfig


def design(
    config: ProbeConfig, *, low: float, high: float, per_octave: int = 1, seeds: int = 3
) -> list[ProbeConfig]:
    """`config` at rates from `low` to `high`, evenly spaced on the log axis, `per_octave` for each doubling.

    All runs are complete trainings: a range test inside one run favours rates that are too large for a whole
    one.
    """
    if not 0 < low < high:
        raise ProbeError(f"rates from {low:g} to {high:g} span nothing", hint="give --low below --high")
    count = 1 + max(1, round(per_octave * math.log2(high / low)))
    rates = [low * (high / low) ** (index / (count - 1)) for index in range(count)]
    return at_rates(config, rates, seeds=seeds)


def at_rates(config: ProbeConfig, rates: Sequence[float], *, seeds: int) -> list[ProbeConfig]:
    """Every rate, to three digits, with every seed."""
    return [
        replace(config, learning_rate=float(f"{rate:.3g}"), seed=config.seed + seed)
        for rate in rates
        for seed in range(seeds)
    ]
