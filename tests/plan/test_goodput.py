"""Interruptions: the best interval, what is left of the time, and what has to be stored."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalecli.accounting.memory import Layout, Recipe
from scalecli.accounting.shape import ModelShape
from scalecli.errors import PlanError
from scalecli.plan.goodput import PUBLISHED_DEVICE_SECONDS, checkpoint_interval, goodput, plan_checkpoints

LLAMA_7B = ModelShape(layers=32, width=4096, ffn=11008, heads=32, kv_heads=32, vocab=32000)
MIXED = Recipe(master_weights=True)


@given(write=st.floats(0.1, 600), between=st.floats(3600, 1e7))
@settings(max_examples=60)
def test_no_other_interval_is_much_better(write: float, between: float) -> None:
    best = checkpoint_interval(write, between)
    reached = goodput(best, write, between)
    others = [goodput(best * factor, write, between) for factor in (0.3, 0.6, 0.9, 1.1, 1.6, 3.0)]
    assert reached > max(others) - 1e-3


def test_quick_checkpoints_follow_youngs_square_root() -> None:
    assert checkpoint_interval(1.0, 1e6) == pytest.approx(math.sqrt(2e6), rel=0.01)


def test_rare_interruptions_leave_nearly_all_time_and_constant_ones_none() -> None:
    assert goodput(1e4, 1.0, 1e9) > 0.999
    assert goodput(1e4, 1.0, 10.0) == 0.0


def test_the_published_rate_gives_the_published_goodput() -> None:
    """Llama 3 trained more than 90 % of the time on 16,384 devices (2407.21783, section 3.3.4)."""
    layout = Layout(sharding="zero1", dp=128, tp=8, pp=16)
    shape = ModelShape(layers=126, width=16384, ffn=53248, heads=128, kv_heads=8, vocab=128256)
    found = plan_checkpoints(shape, MIXED, layout, sequence_length=8192)
    assert found.between_interruptions == pytest.approx(54 * 86_400 / 419)
    assert 0.90 < found.goodput < 0.97


@pytest.mark.parametrize(
    "layout",
    [
        Layout(),
        Layout(sharding="ddp", dp=8),
        Layout(sharding="zero1", dp=8),
        Layout(sharding="zero3", dp=8),
        Layout(sharding="zero1", dp=2, tp=2, pp=2),
        Layout(sharding="zero3", dp=8, shard_group=4),
    ],
)
def test_one_copy_of_weights_and_states_is_saved_however_it_is_spread(layout: Layout) -> None:
    """2 bytes of weight, 4 of master weight and 8 of moments."""
    found = plan_checkpoints(LLAMA_7B, MIXED, layout, sequence_length=2048)
    assert found.total_bytes == pytest.approx(14 * LLAMA_7B.params, rel=0.03)
    assert found.host_bytes == pytest.approx(2 * found.total_bytes / layout.devices)
    assert found.storage_bandwidth == found.total_bytes / found.interval_seconds


def test_spot_devices_are_saved_more_often() -> None:
    layout = Layout(sharding="zero3", dp=64)
    usual = plan_checkpoints(LLAMA_7B, MIXED, layout, sequence_length=2048)
    spot = plan_checkpoints(LLAMA_7B, MIXED, layout, sequence_length=2048, device_seconds=48 * 3600)
    assert PUBLISHED_DEVICE_SECONDS > 5 * 365 * 86_400
    assert spot.interval_seconds < usual.interval_seconds / 10
    assert spot.goodput < usual.goodput - 0.1


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.inf, math.nan])
def test_an_impossible_rate(seconds: float) -> None:
    with pytest.raises(PlanError, match="makes no sense"):
        plan_checkpoints(LLAMA_7B, MIXED, Layout(), sequence_length=2048, device_seconds=seconds)
