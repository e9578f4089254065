"""The share of time that makes progress when devices fail or are taken away, and how often to save what is trained.

Interruptions come at random, independently at each device; one stops the whole run, which goes back to its last
checkpoint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from scalecli.accounting.memory import Layout, Recipe, estimate_memory
from scalecli.accounting.shape import ModelShape
from scalecli.errors import PlanError
from scalecli.plan.step.conditions import HOST_BANDWIDTH

# 419 unexpected interruptions of 16,384 devices in 54 days (Llama 3: 2407.21783, section 3.3.4).
PUBLISHED_DEVICE_SECONDS = 16_384 * 54 * 86_400 / 419
# To notice, diagnose and start again: under ten minutes (Jiang et al., MegaScale, 2402.15627, section 6.3).
RESTART_SECONDS = 600.0
# Snapshots in host memory: the one being written and the last whole one (Wang et al., 2310.12670, section 4).
SNAPSHOTS_KEPT = 2
LARGEST_EXPONENT = 500.0  # beyond it no work is ever finished, and exp() overflows
_SAVED = ("weights", "master weights", "averaged weights", "optimizer states")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """Sizes in bytes, times in seconds; `goodput` is the share of time that makes progress."""

    total_bytes: int
    device_bytes: float
    """Each device saves its own part."""
    write_seconds: float
    """How long training waits for the copy to host memory."""
    interval_seconds: float
    between_interruptions: float
    """Of the whole run."""
    goodput: float

    @property
    def host_bytes(self) -> float:
        """Host memory for the snapshots of one device."""
        return SNAPSHOTS_KEPT * self.device_bytes

    @property
    def storage_bandwidth(self) -> float:
        """What storage has to take in so that each snapshot is safe before the next [bytes/s]."""
        return self.total_bytes / self.interval_seconds


def plan_checkpoints(
    shape: ModelShape,
    recipe: Recipe,
    layout: Layout,
    *,
    sequence_length: int,
    device_seconds: float = PUBLISHED_DEVICE_SECONDS,
) -> Checkpoints:
    """For a mean time `device_seconds` between interruptions of one device. Raises PlanError for an impossible one."""
    if not (math.isfinite(device_seconds) and device_seconds > 0):
        raise PlanError(f"a mean time of {device_seconds:g} s between interruptions makes no sense")
    total = _saved_bytes(shape, recipe, replace(layout, offload="none"), sequence_length)
    each = total / layout.devices
    write, between = each / HOST_BANDWIDTH, device_seconds / layout.devices
    interval = checkpoint_interval(write, between)
    return Checkpoints(
        total_bytes=total,
        device_bytes=each,
        write_seconds=write,
        interval_seconds=interval,
        between_interruptions=between,
        goodput=goodput(interval, write, between),
    )


def checkpoint_interval(write_seconds: float, between_interruptions: float) -> float:
    """Daly's estimate of the interval of work between checkpoints that wastes least [s] (2006, equation 37).

    Young's square root of twice the product for quick checkpoints; the mean time itself for very slow ones.

    >>> round(checkpoint_interval(60.0, 86_400.0))
    3180
    """
    if write_seconds >= 2 * between_interruptions:
        return between_interruptions
    ratio = math.sqrt(write_seconds / (2 * between_interruptions))
    young = math.sqrt(2 * write_seconds * between_interruptions)
    return young * (1 + ratio / 3 + ratio**2 / 9) - write_seconds


def goodput(
    interval: float, write_seconds: float, between_interruptions: float, restart: float = RESTART_SECONDS
) -> float:
    """Work over time, with checkpoints, lost work and restarts counted (Daly 2006, equation 20).

    >>> round(goodput(3180, 60.0, 86_400.0), 3)
    0.957
    """
    exponent = (interval + write_seconds) / between_interruptions
    delay = restart / between_interruptions
    if exponent + delay > LARGEST_EXPONENT:
        return 0.0
    return interval / (between_interruptions * math.exp(delay) * math.expm1(exponent))


def _saved_bytes(shape: ModelShape, recipe: Recipe, layout: Layout, sequence_length: int) -> int:
    """One copy of weights and states over all devices: what is sharded counts once for each shard."""
    estimate = estimate_memory(
        shape, recipe, layout, micro_batch_sequences=1, sequence_length=sequence_length
    )
    sizes = {term.name: term.bytes for term in estimate.terms if term.name in _SAVED}
    weights = sizes.pop("weights", 0) * (layout.shards if layout.shards_at("zero3") else 1)
    states = sum(sizes.values()) * (layout.shards if layout.shards_at("zero1") else 1)
    return layout.tp * layout.pp * (weights + states)
