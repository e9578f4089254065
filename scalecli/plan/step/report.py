"""A step as plain values, for the documents of `memory` and `plan`."""

from __future__ import annotations

from typing import Any

from scalecli.plan.step.exchanges import Exchange
from scalecli.plan.steptime import StepTime

# What MFU and time both count.
FLOP_COUNT = "exact FLOPs, head and causal attention counted; recomputation not"
KILOWATT_HOUR = 3.6e6


def step_part(step: StepTime, devices: int, power_watts: float | None) -> dict[str, Any]:
    """The keys of `memory.step`. Energy is that of the devices at their design power, without cooling."""
    low, high = step.mfu_range()
    return {
        "seconds": step.seconds,
        "tokens_per_second": step.tokens / step.seconds,
        "mfu": {"value": step.mfu, "low": low, "high": high},
        "mfu_full_attention": step.utilisation("full"),
        "flop_count": FLOP_COUNT,
        "kernel_efficiency": {
            "value": step.efficiency.value,
            "low": step.efficiency.low,
            "high": step.efficiency.high,
            "source": step.efficiency.source,
        },
        "energy_kwh": None if power_watts is None else step.seconds * devices * power_watts / KILOWATT_HOUR,
        "parts": {"computation": step.compute, **step.losses()},
        "communication": [_exchange(each) for each in step.exchanges],
    }


def _exchange(each: Exchange) -> dict[str, Any]:
    """`ratio` is communication over the computation beside it: above 1 it cannot hide, however well it overlaps."""
    return {
        "name": each.name,
        "ranks": each.ranks,
        "link": each.tier,
        "bytes": round(each.bytes),
        "seconds": each.seconds,
        "beside_seconds": each.beside,
        "exposed_seconds": each.exposed,
        "ratio": each.seconds / each.beside if each.beside else None,
    }
