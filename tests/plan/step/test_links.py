"""Links: which tier a group uses, and what passes over it."""

import math
from dataclasses import replace

import pytest

from scalecli.data.catalogue import accelerator
from scalecli.plan.step.links import (
    BASE_LATENCY,
    LINK_EFFICIENCY,
    NETWORK_LATENCY,
    NODE_LATENCY,
    Group,
    Links,
)

A100, MI250X = accelerator("a100-80g"), accelerator("mi250x")
LINKS = Links.of(A100)
SIZE = 1e12  # so large that latencies do not count


def test_tiers_by_the_extent_of_a_group() -> None:
    assert LINKS.tier(Group(8, 1)).name == "node"
    assert LINKS.tier(Group(2, 8)).name == "network"
    dies = Links.of(MI250X)
    assert [dies.tier(Group(n, 1)).name for n in (2, 8, 16)] == ["package", "node", "network"]


def test_a_ring_over_whole_nodes_has_all_their_ports() -> None:
    """Eight ranks a node share eight ports; a rank alone in its node has one (NCCL's multi-rail rings)."""
    assert LINKS.ring_bandwidth(Group(8, 1)) == LINK_EFFICIENCY * 300e9
    assert LINKS.ring_bandwidth(Group(64, 1)) == LINK_EFFICIENCY * 8 * 25e9
    assert LINKS.ring_bandwidth(Group(64, 2)) == LINK_EFFICIENCY * 4 * 25e9
    assert LINKS.ring_bandwidth(Group(8, 8)) == LINK_EFFICIENCY * 25e9


def test_gathering_in_a_ring() -> None:
    """(n - 1)/n of the bytes over the link, and a latency for each step."""
    group = Group(16, 1)
    latency = BASE_LATENCY + NETWORK_LATENCY + 14 * NODE_LATENCY
    assert LINKS.ring_latency(group) == pytest.approx(latency)
    expected = 15 / 16 * SIZE / LINKS.ring_bandwidth(group) + 3 * latency
    assert LINKS.gather_seconds(group, SIZE, messages=3) == pytest.approx(expected)
    assert LINKS.gather_seconds(Group(1, 1), SIZE) == 0


def test_an_all_to_all_pays_both_levels() -> None:
    """Of 16 ranks in two nodes 7 peers are near and 8 are far: SMILE's two levels."""
    seconds = LINKS.exchange_seconds(Group(16, 1), SIZE)
    near, far = 7 / 16 * SIZE / (0.75 * 300e9), 8 / 16 * SIZE / (0.75 * 25e9)
    assert seconds == pytest.approx(near + far, rel=1e-3)
    assert LINKS.exchange_seconds(Group(8, 1), SIZE) == pytest.approx(7 / 8 * SIZE / (0.75 * 300e9), rel=1e-3)


def test_islands_are_a_tier_of_their_own() -> None:
    pods = Links.of(replace(A100, devices_per_island=1024, island_bandwidth=1e9))
    assert pods.tier(Group(1024, 1)).name == "network"
    assert pods.tier(Group(2048, 1)).name == "island"
    assert pods.ring_bandwidth(Group(2048, 1)) == LINK_EFFICIENCY * min(300e9, 200e9, 1024e9)
    assert pods.hop_bandwidth(Group(2, 1024)) == LINK_EFFICIENCY * 1e9


def test_every_group_has_links_even_where_no_network_is_known() -> None:
    lonely = Links.of(accelerator("rtx4090"))
    assert lonely.tier(Group(64, 1)).devices == math.inf
