"""Time, device-hours, money and energy of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from scalecli.accounting.memory import Recipe
from scalecli.data.catalogue import Accelerator
from scalecli.errors import PlanError
from scalecli.plan.document import CostPart, Interval
from scalecli.plan.step.engine import kernel_efficiency, peak_flops
from scalecli.plan.steptime import StepTime

SECONDS_PER_DAY = 86_400
SECONDS_PER_HOUR = 3_600


class Span(NamedTuple):
    """A value between two ends."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Span:
        return Span(self.value * factor, self.low * factor, self.high * factor)

    def divides(self, numerator: float) -> Span:
        """numerator / self: the ends change places."""
        return Span(numerator / self.value, numerator / self.high, numerator / self.low)

    def interval(self) -> Interval:
        return Interval(value=self.value, low=self.low, high=self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Economy:
    """What is known of price, speed and interruptions, beyond what the catalogue says.

    `goodput` is the share of time that makes progress; `device_seconds` the mean time between interruptions of one
    device, from which it follows. Without either no interruptions are counted.
    """

    price_per_hour: float | None = None
    """Of one device."""
    currency: str = "USD"
    measured_mfu: float | None = None
    goodput: float | None = None
    device_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.measured_mfu is not None and not 0 < self.measured_mfu <= 1:
            raise PlanError(f"an MFU of {self.measured_mfu:g} is impossible; it lies between 0 and 1")
        if self.goodput is not None and not 0 < self.goodput <= 1:
            raise PlanError(f"a goodput of {self.goodput:g} is impossible; it is a share of the time")
        if self.goodput is not None and self.device_seconds is not None:
            raise PlanError("a goodput and a time between interruptions say the same thing twice")
        if self.price_per_hour is not None and self.price_per_hour < 0:
            raise PlanError(f"a price of {self.price_per_hour:g} an hour is negative")

    def price(self, accelerator: Accelerator) -> float | None:
        """Of an hour of one device; None where nobody has said it."""
        return accelerator.price_per_hour if self.price_per_hour is None else self.price_per_hour


NOTHING_KNOWN = Economy()


def model_utilisation(accelerator: Accelerator, step: StepTime | None, measured: float | None = None) -> Span:
    """MFU as measured, by the step-time model of a layout, or (without a layout) what kernels of the device reach.

    A measured value has no interval of its own here: it is what it is.
    """
    if measured is not None:
        return Span(measured, measured, measured)
    if step is not None:
        return Span(step.mfu, *step.mfu_range())
    efficiency = kernel_efficiency(accelerator)
    return Span(efficiency.value, efficiency.low, efficiency.high)


def plan_cost(
    flops: float,
    *,
    accelerator: Accelerator,
    count: int,
    recipe: Recipe,
    step: StepTime | None = None,
    economy: Economy = NOTHING_KNOWN,
    goodput: float = 1.0,
) -> CostPart:
    """Cost of `flops` exact model FLOPs: seconds = FLOPs / (MFU × dense peak × count × goodput).

    Money is known only with a price for a device-hour; energy is that of the devices at their design power, without
    cooling. Raises PlanError where interruptions leave no time for work.
    """
    if count < 1:
        raise PlanError(f"{count} devices cannot train anything", hint="give --count 1 or more")
    if goodput <= 0:
        raise PlanError("interruptions come so often that no work is ever finished", hint="use fewer devices")
    mfu = model_utilisation(accelerator, step, economy.measured_mfu)
    speed = peak_flops(accelerator, recipe) * count * goodput
    days = mfu.divides(flops / (speed * SECONDS_PER_DAY))
    hours = days.times(count * SECONDS_PER_DAY / SECONDS_PER_HOUR)
    price, watts = economy.price(accelerator), accelerator.power_watts
    return CostPart(
        days=days.interval(),
        device_hours=hours.interval(),
        mfu=mfu.interval(),
        goodput=goodput,
        currency=economy.currency if price is not None else None,
        amount=None if price is None else hours.times(price).interval(),
        energy_kwh=None if watts is None else hours.times(watts / 1000).interval(),
    )
