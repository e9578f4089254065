"""How long runs take: measured on a step or two, then arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scalecli.probes.config import ProbeConfig
from scalecli.probes.engines.engine import Capacity
from scalecli.probes.units import Unit, unit_steps

START_SECONDS = 4.0
"""Time a child needs to import torch and read the corpus, on the slower of the machines it was measured on."""


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of a training step: `overhead` [s] for launching it, and a rate [s/FLOP] for its arithmetic."""

    overhead: float
    seconds_per_flop: float

    @classmethod
    def through(cls, small: tuple[float, float], large: tuple[float, float]) -> StepTime:
        """The line through two measured points (FLOPs of the step, seconds); neither part is negative.

        >>> StepTime.through((0.0, 0.25), (8.0, 2.25))
        StepTime(overhead=0.25, seconds_per_flop=0.25)
        """
        (few, quick), (many, slow) = small, large
        if many <= few or slow <= quick:
            return cls(0.0, slow / many)
        rate = (slow - quick) / (many - few)
        overhead = max(0.0, quick - rate * few)
        return cls(overhead, rate if overhead else slow / many)

    def unit_seconds(self, unit: Unit) -> float:
        """Time of a unit: copies share the overhead of a step."""
        copies = len({config.family for config in unit})
        return sum(
            steps * (self.overhead / copies + self.seconds_per_flop * config.flops_exact / config.steps)
            for config, steps in unit_steps(unit)
        )

    def sweep_seconds(self, configs: Sequence[ProbeConfig], capacity: Capacity) -> float:
        """Time of a sweep: the work shared by the slots, but no less than its longest unit."""
        times = [self.unit_seconds(unit) for unit in capacity.units(configs)]
        return START_SECONDS + max(sum(times) / capacity.slots, max(times)) if times else 0.0


def measure_step_time(
    configs: Sequence[ProbeConfig], *, device: str, threads: int = 1, steps: int = 3
) -> StepTime:
    """Trains a few steps of the smallest and of the largest of these runs, alone, in this process."""
    ordered = sorted(configs, key=_step_flops)
    small, large = (_measured(config, device, threads, steps) for config in (ordered[0], ordered[-1]))
    return StepTime.through((_step_flops(ordered[0]), small), (_step_flops(ordered[-1]), large))


def _step_flops(config: ProbeConfig) -> float:
    return config.flops_exact / config.steps


def _measured(config: ProbeConfig, device: str, threads: int, steps: int) -> float:
    """Seconds of one step, the fastest of a few: the first ones warm up."""
    from scalecli.probes.corpora import corpus_of
    from scalecli.probes.device import Stopwatch, cpu_settings, resolve_device
    from scalecli.probes.train.trainer import Trainer

    place = resolve_device(device)
    times = []
    with cpu_settings(threads):
        trainer = Trainer([config], corpus_of(config), device=place)
        for _ in range(steps + 1):
            watch = Stopwatch(place)
            watch.start()
            trainer.advance(1.0)
            watch.stop()
            times.append(watch.seconds)
    return min(times[1:])
