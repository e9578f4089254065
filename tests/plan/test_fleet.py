"""Devices of one kind and of several."""

from pathlib import Path

import pytest

from scalecli.data.catalogue import accelerator
from scalecli.errors import PlanError, UnknownAccelerator
from scalecli.plan.fleet import fleet_of


def test_one_kind() -> None:
    fleet = fleet_of("a100-80g", 8)
    assert (fleet.count, fleet.is_mixed) == (8, False)
    assert fleet.device == accelerator("a100-80g")


def test_several_kinds_say_their_own_counts() -> None:
    fleet = fleet_of("a100-80g:4, v100-32g:12", 1)
    assert (fleet.count, fleet.is_mixed) == (16, True)
    assert [kind.count for kind in fleet.kinds] == [4, 12]


def test_the_mean_device_has_mean_peaks_and_the_least_memory() -> None:
    mean = fleet_of("a100-80g:4,v100-32g:12", 16).device
    a100, v100 = accelerator("a100-80g"), accelerator("v100-32g")
    # a V100 has no bf16: it counts with its fp16
    assert mean.peak_flops["bf16"] == (4 * a100.peak_flops["bf16"] + 12 * v100.peak_flops["fp16"]) / 16
    assert mean.memory_bytes == v100.memory_bytes
    assert mean.link_bandwidth == v100.link_bandwidth


@pytest.mark.parametrize(
    ("text", "count", "message"),
    [
        ("a100-80g", 0, "0 × a100-80g"),
        ("a100-80g", -4, "-4 × a100-80g"),
        ("a100-80g:4,v100-32g", 1, "does not say how many"),
        ("a100-80g:four,v100-32g:2", 1, "'four' is no number"),
        ("a100-80g:4,v100-32g:0", 1, "0 × v100-32g"),
        ("a100-80g:4,v100-32g:4", 16, "8 devices, not 16"),
        (",", 1, "names no devices"),
    ],
)
def test_impossible_fleets(text: str, count: int, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        fleet_of(text, count)


def test_unknown_names_list_close_ones() -> None:
    with pytest.raises(UnknownAccelerator, match="a100"):
        fleet_of("a100-80gb:4,v100-32g:4", 1)


def test_own_entries(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        '[mine]\nvendor = "me"\nmemory_bytes = 8e9\npeak_flops = {fp16 = 1e13, bf16 = 1e13}\nsource = "hpl"\n',
        encoding="utf-8",
    )
    assert fleet_of("mine:2,a100-80g:2", 1, own).device.memory_bytes == 8e9
