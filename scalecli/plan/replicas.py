"""Replicas that train apart and average now and then: each has its part of the devices and of the batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from scalecli.accounting.shape import ModelShape
from scalecli.data.catalogue import Accelerator
from scalecli.errors import PlanError
from scalecli.plan.bandwidth import Averaging, every_so_often, streaming
from scalecli.plan.fleet import Fleet, Kind
from scalecli.plan.step.exchanges import Exchange
from scalecli.plan.steptime import StepTime

# The last average and the outer momentum, in float32 (Douillard et al., DiLoCo, 2311.08105, algorithm 1).
OUTER_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """How many, how often they average, and how fast the link of one to the others is [bits/s].

    Without a link all devices of a replica use their own network at once. `streams`: in fragments, behind training.
    """

    count: int
    steps: int
    streams: bool = False
    bits_per_second: float | None = None

    def __post_init__(self) -> None:
        if self.bits_per_second is not None and not self.bits_per_second > 0:
            raise PlanError(f"a link of {self.bits_per_second:g} bits/s carries nothing")

    def averaging(self, shape: ModelShape) -> Averaging:
        """How they come together."""
        return streaming(self.steps, shape.layers) if self.streams else every_so_often(self.steps)

    def part(self, fleet: Fleet) -> Fleet:
        """The devices of one replica. Raises PlanError where they cannot be shared out."""
        if fleet.is_mixed:
            raise PlanError(
                "replicas that train apart are planned on devices of one kind",
                hint="plan for each kind by itself",
            )
        if fleet.count % self.count:
            raise PlanError(
                f"{fleet.count} devices cannot be shared out among {self.count} replicas",
                hint=f"use a multiple of {self.count} devices",
            )
        return Fleet((Kind(fleet.device, fleet.count // self.count),))

    def link(self, device: Accelerator, devices: int) -> float | None:
        """Bits a second between a replica of so many devices and the others; None where nobody has said it."""
        if self.bits_per_second is not None:
            return self.bits_per_second
        return None if device.network_bandwidth is None else 8 * device.network_bandwidth * devices

    def joined(self, step: StepTime, shape: ModelShape, device: Accelerator, devices: int) -> StepTime:
        """A replica's step with its share of the averaging: tokens of all replicas."""
        bits_per_second = self.link(device, devices)
        whole = replace(step, tokens=self.count * step.tokens)
        if self.count == 1 or bits_per_second is None:
            return whole
        averaging, params, seconds = self.averaging(shape), float(shape.params), step.seconds
        bits = averaging.mean_bandwidth(params, self.count, seconds) * seconds
        exchange = Exchange(
            name="replicas", ranks=self.count, tier="replicas", bytes=bits / 8 / devices,
            seconds=bits / bits_per_second, beside=seconds,
            exposed=averaging.exposed_seconds(params, self.count, seconds, bits_per_second),
        )  # fmt: skip
        return replace(whole, exchanges=(*step.exchanges, exchange))
