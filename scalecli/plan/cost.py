"""Time, device-hours, money and energy of a run."""

from __future__ import annotations

import math
from typing import NamedTuple

from scalecli.accounting.flops import training_flops_per_token
from scalecli.accounting.memory import Recipe
from scalecli.accounting.shape import ModelShape
from scalecli.data.catalogue import Accelerator
from scalecli.errors import PlanError
from scalecli.plan.document import CostPart, Interval
from scalecli.plan.steptime import StepTime, kernel_efficiency, peak_flops

SECONDS_PER_DAY = 86_400
SECONDS_PER_HOUR = 3_600
# What MFU and time both count.
FLOP_COUNT = "exact FLOPs, head and causal attention counted; recomputation not"


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


def model_utilisation(accelerator: Accelerator, step: StepTime | None, measured: float | None = None) -> Span:
    """MFU as measured, by the step-time model of a layout, or (without a layout) what kernels of the vendor reach.

    A measured value has no interval of its own here: it is what it is.
    """
    if measured is not None:
        if not 0 < measured <= 1:
            raise PlanError(f"an MFU of {measured:g} is impossible; it lies between 0 and 1")
        return Span(measured, measured, measured)
    if step is not None:
        return Span(step.mfu, *step.mfu_range())
    efficiency = kernel_efficiency(accelerator.vendor)
    return Span(efficiency.value, efficiency.low, efficiency.high)


def plan_cost(
    flops: float,
    *,
    accelerator: Accelerator,
    count: int,
    recipe: Recipe,
    step: StepTime | None = None,
    measured_mfu: float | None = None,
    goodput: float = 1.0,
    price_per_hour: float | None = None,
    currency: str | None = None,
) -> CostPart:
    """Cost of `flops` exact model FLOPs: seconds = FLOPs / (MFU × dense peak × count × goodput).

    `goodput` is the share of wall-clock time that makes progress; 1 counts no interruptions. Money is known only
    with a price for a device-hour; energy is that of the devices at their design power, without cooling.
    """
    mfu = model_utilisation(accelerator, step, measured_mfu)
    peak = peak_flops(accelerator, recipe)
    _check(goodput, count, price_per_hour)
    days = mfu.divides(flops / (peak * count * goodput * SECONDS_PER_DAY))
    hours = days.times(count * SECONDS_PER_DAY / SECONDS_PER_HOUR)
    price = accelerator.price_per_hour if price_per_hour is None else price_per_hour
    watts = accelerator.power_watts
    return CostPart(
        days=days.interval(),
        device_hours=hours.interval(),
        mfu=mfu.interval(),
        currency=(currency or "USD") if price is not None else None,
        amount=None if price is None else hours.times(price).interval(),
        energy_kwh=None if watts is None else hours.times(watts / 1000).interval(),
    )


def tokens_in_days(
    days: float,
    shape: ModelShape,
    sequence_length: int,
    *,
    accelerator: Accelerator,
    count: int,
    recipe: Recipe,
    step: StepTime | None = None,
    measured_mfu: float | None = None,
    goodput: float = 1.0,
) -> float:
    """Tokens that a model can be trained on in `days` on `count` devices, at the middle of the MFU's interval."""
    if not (math.isfinite(days) and days > 0):
        raise PlanError(f"nothing is trained in {days:g} days")
    _check(goodput, count, None)
    mfu = model_utilisation(accelerator, step, measured_mfu).value
    flops = days * SECONDS_PER_DAY * mfu * peak_flops(accelerator, recipe) * count * goodput
    return flops / training_flops_per_token(shape, sequence_length)


def _check(goodput: float, count: int, price: float | None) -> None:
    if not 0 < goodput <= 1:
        raise PlanError(f"a goodput of {goodput:g} is impossible; it is a share of the time")
    if count < 1:
        raise PlanError(f"{count} devices cannot train anything", hint="give --count 1 or more")
    if price is not None and price < 0:
        raise PlanError(f"a price of {price:g} an hour is negative")
