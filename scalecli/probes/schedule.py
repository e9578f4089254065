"""Learning-rate schedules: the fraction of the peak rate at a step. Pure arithmetic.

`cooldown` and `wsd` hold the peak rate until their tail, so runs that differ in length only share a trunk:
see `branch_step`. Sources: cooldown with 1 - sqrt, Hägele et al. 2024 (2405.18392, section 3); warm-up,
stable, decay (`wsd`), Hu et al. 2024 (2404.06395, section 4.2); linear to zero, Bergsma et al. 2025
(2502.15938).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from scalecli.errors import ProbeError

ScheduleName = Literal["constant", "cooldown", "wsd", "linear", "cosine"]
SCHEDULES: tuple[ScheduleName, ...] = ("constant", "cooldown", "wsd", "linear", "cosine")
WITH_TAIL: tuple[ScheduleName, ...] = ("cooldown", "wsd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A linear warm-up over `warmup_steps`, then the named shape down to `final_fraction` of the peak.

    `decay_fraction` is the share of all steps that the tail of `cooldown` and `wsd` takes; the other shapes
    ignore it.
    """

    name: ScheduleName = "cooldown"
    warmup_steps: int = 0
    decay_fraction: float = 0.2
    final_fraction: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise ProbeError(f"there is no schedule {self.name!r}", hint=f"one of {', '.join(SCHEDULES)}")
        if self.warmup_steps < 0:
            raise ProbeError(f"{self.warmup_steps} warm-up steps are negative")
        if not 0.0 < self.decay_fraction <= 1.0:
            raise ProbeError(f"a decay fraction of {self.decay_fraction:g} is not in (0, 1]")
        if not 0.0 <= self.final_fraction <= 1.0:
            raise ProbeError(f"a final fraction of {self.final_fraction:g} is not in [0, 1]")

    def branch_step(self, steps: int) -> int:
        """First step whose rate depends on the run's length; runs of different length agree before it.

        >>> Schedule(name="cooldown", decay_fraction=0.25).branch_step(100)
        75
        """
        if self.name == "constant":
            return steps
        if self.name in WITH_TAIL:
            return max(self.warmup_steps, steps - math.ceil(self.decay_fraction * steps))
        return self.warmup_steps

    def factor(self, step: int, steps: int) -> float:
        """Fraction of the peak rate at `step` (0-based) of `steps`; 0-based warm-up reaches 1 at its last
        step.

        >>> schedule = Schedule(name="linear", warmup_steps=2)
        >>> [round(schedule.factor(step, 6), 2) for step in range(6)]
        [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
        """
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        start = self.branch_step(steps)
        if step < start or start >= steps:
            return 1.0
        progress = (step - start) / (steps - start)
        return self.final_fraction + (1.0 - self.final_fraction) * self._shape(progress)

    def _shape(self, progress: float) -> float:
        """Height between the final rate (0) and the peak (1); `progress` in [0, 1)."""
        if self.name == "cooldown":
            return 1.0 - math.sqrt(progress)
        if self.name == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))
        return 1.0 - progress
