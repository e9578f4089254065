"""Seconds to move bytes between devices: which tier of links a group of ranks uses, and what its collectives reach."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scalecli.data.catalogue import Accelerator
from scalecli.data.catalogue.devices import Tier

# Share of a link's bandwidth that collectives reach at training message sizes (bus bandwidth of NVIDIA's NCCL tests).
LINK_EFFICIENCY = 0.75
# A collective begins after so long, and each step of a ring takes so long inside a node and between nodes (NVIDIA NCCL
# 2.28, src/graph/tuning.cc: latencies of the ring algorithm with the simple protocol).
BASE_LATENCY, NODE_LATENCY, NETWORK_LATENCY = 8.4e-6, 3.4e-6, 14.0e-6
# The network where a data sheet names none: one 100 Gbit/s port for each device.
DEFAULT_NETWORK = Tier("network", math.inf, 12.5e9)


@dataclass(frozen=True, slots=True)
class Group:
    """Ranks that talk to each other, each `stride` devices from the next."""

    ranks: int
    stride: int

    @property
    def extent(self) -> int:
        """Devices from the first to the last."""
        return self.ranks * self.stride

    def inside(self, devices: float) -> int:
        """Ranks of the group among so many neighbouring devices."""
        return max(1, min(self.ranks, int(devices // self.stride))) if devices < math.inf else self.ranks


@dataclass(frozen=True, slots=True)
class Links:
    """The tiers of links of a kind of device, nearest first; the last one reaches everywhere."""

    tiers: tuple[Tier, ...]

    @classmethod
    def of(cls, accelerator: Accelerator) -> Links:
        tiers = accelerator.tiers
        reaches = bool(tiers) and tiers[-1].devices == math.inf
        return cls(tiers if reaches else (*tiers, DEFAULT_NETWORK))

    def tier(self, group: Group) -> Tier:
        """The nearest links that join the whole group."""
        return next(tier for tier in self.tiers if group.extent <= tier.devices)

    def ring_bandwidth(self, group: Group) -> float:
        """Bytes a second that one rank passes on in a ring over the group.

        A ring crosses every boundary once, and all ranks of the group behind that boundary share its crossing: each
        has its own port, so that together they have as many.
        """
        reached = math.inf
        within = 1.0
        for tier in self.tiers:
            reached = min(reached, tier.bandwidth * group.inside(within))
            if group.extent <= tier.devices:
                break
            within = tier.devices
        return LINK_EFFICIENCY * reached

    def hop_bandwidth(self, group: Group) -> float:
        """Bytes a second from one rank to the next: its own port of the tier that joins the group."""
        return LINK_EFFICIENCY * self.tier(group).bandwidth

    def ring_latency(self, group: Group) -> float:
        """Seconds that a ring takes for the smallest message: a step to every other rank."""
        inside = max((tier.devices for tier in self.tiers if tier.devices < math.inf), default=1)
        crossings = math.ceil(group.ranks / group.inside(inside)) - 1
        return BASE_LATENCY + crossings * NETWORK_LATENCY + (group.ranks - 1 - crossings) * NODE_LATENCY

    def gather_seconds(self, group: Group, size: float, messages: float = 1) -> float:
        """All-gathers or reduce-scatters of `size` bytes in all: (n - 1)/n of them pass each rank."""
        if group.ranks == 1:
            return 0.0
        passing = (group.ranks - 1) / group.ranks * size / self.ring_bandwidth(group)
        return passing + messages * self.ring_latency(group)

    def exchange_seconds(self, group: Group, size: float, messages: float = 1) -> float:
        """All-to-alls of `size` bytes a rank, in two levels: what stays inside a tier takes its links, the rest
        the next one's (He et al., SMILE, 2212.05191, section 3)."""
        seconds, sent_within = messages * (BASE_LATENCY + NETWORK_LATENCY), 1
        for tier in self.tiers:
            reached = group.inside(tier.devices)
            seconds += (reached - sent_within) / group.ranks * size / (LINK_EFFICIENCY * tier.bandwidth)
            sent_within = reached
            if reached == group.ranks:
                break
        return seconds
