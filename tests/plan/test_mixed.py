"""Batch and states split over devices of several kinds."""

from dataclasses import replace

import pytest

from scalecli.accounting.memory import Recipe
from scalecli.accounting.shape import shape_for_params
from scalecli.errors import DoesNotFit, PlanError
from scalecli.plan.devices import plan_on
from scalecli.plan.fleet import fleet_of
from scalecli.plan.mixed import MixedPlan, plan_mixed

SHAPE = shape_for_params(2.7e9, vocab=50_257)
RECIPE = Recipe(master_weights=True)


def plan(fleet: str, batch: int = 256, size: float | None = None, length: int = 1024) -> MixedPlan:
    shape = SHAPE if size is None else shape_for_params(size, vocab=50_257)
    return plan_mixed(
        shape, fleet_of(fleet, 1).kinds, sequence_length=length, batch_sequences=batch, recipe=RECIPE
    )


def test_the_whole_batch_and_all_states_are_given_out() -> None:
    found = plan("a100-40g:8,v100-16g:8")
    assert sum(share.count * share.sequences + share.fuller_devices for share in found.shares) == 256
    assert sum(share.count * share.state_share for share in found.shares) == pytest.approx(1)


def test_faster_devices_train_more_and_none_waits_long() -> None:
    fast, slow = plan("a100-40g:8,v100-16g:8", batch=512).shares
    assert fast.sequences > 1.5 * slow.sequences
    assert fast.seconds == pytest.approx(slow.seconds, rel=0.1)


def test_states_follow_memory_not_speed() -> None:
    """An L4 has more memory than a V100 and is slower: it holds more and computes less (Cephalo, section 3)."""
    l4, v100 = plan("l4:4,v100-16g:4", size=1.3e9).shares
    assert l4.sequences < v100.sequences
    assert l4.state_share > v100.state_share


def test_two_lists_of_one_kind_are_split_evenly() -> None:
    first, second = plan("a100-80g:4,a100-80g:4").shares
    assert first.sequences == second.sequences
    assert first.state_share == pytest.approx(second.state_share)


def test_the_split_beats_an_even_one() -> None:
    """With even parts every device would wait for a V100."""
    found = plan("a100-40g:8,v100-16g:8", batch=512)
    even = plan("v100-16g:16", batch=512)
    assert found.step.seconds < 0.75 * even.step.seconds


def test_recomputation_only_where_it_is_needed() -> None:
    assert plan("a100-80g:8,h100-80g:8").recipe.recompute == "none"
    assert plan("a100-40g:8,v100-16g:8", size=6.7e9, length=4096).recipe.recompute != "none"


def test_fewer_sequences_than_devices() -> None:
    with pytest.raises(PlanError, match="15 sequences has none for each of 16 devices"):
        plan("a100-40g:8,v100-16g:8", batch=15)


def test_what_fits_nowhere_names_the_bytes() -> None:
    with pytest.raises(DoesNotFit, match="weights, gradients and states take") as caught:
        plan("a100-40g:1,v100-16g:1", size=13e9)
    assert caught.value.budget["weights, gradients and states"] > 13e9 * 12


def test_as_the_memory_part_of_a_plan() -> None:
    found = plan_on(
        fleet_of("a100-80g:8,v100-32g:8", 1), SHAPE, sequence_length=1024, batch_sequences=256, recipe=RECIPE
    )
    assert [device["accelerator"] for device in found.part["devices"]] == ["a100-80g", "v100-32g"]
    total = sum(term["bytes"] for term in found.part["terms"])
    assert total == pytest.approx(found.part["per_device_bytes"], rel=0.01)
    assert found.part["per_device_bytes"] + found.part["headroom_bytes"] <= 80 * 2**30
    # of a V100 no training is published, and it has no bf16
    assert [code for code, _ in found.warnings] == ["W-MIXED-DEVICES", "W-EFFICIENCY", "W-NO-BF16"]


def test_one_kind_is_planned_by_the_search() -> None:
    found = plan_on(fleet_of("a100-80g", 8), SHAPE, sequence_length=1024, batch_sequences=64, recipe=RECIPE)
    assert found.part["devices"] == []
    assert found.alternatives


def test_smaller_states_leave_more_room() -> None:
    kinds = fleet_of("a100-40g:8,v100-16g:8", 1).kinds
    small = replace(RECIPE, master_weights=False)
    heavy, light = (
        plan_mixed(SHAPE, kinds, sequence_length=1024, batch_sequences=256, recipe=recipe)
        for recipe in (RECIPE, small)
    )
    assert min(s.headroom_bytes for s in light.shares) > min(s.headroom_bytes for s in heavy.shares)
