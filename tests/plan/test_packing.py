"""Padding and packing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalecli.errors import DataError, PlanError
from scalecli.plan.packing import Way, _best_fit, plan_packing


def ways(lengths: list[int], **wish: int) -> dict[str, Way]:
    wish = {"sequence_length": 100, "batch_sequences": 4} | wish
    return {way.name: way for way in plan_packing(lengths, **wish).ways}  # type: ignore[arg-type]


def test_full_sequences_have_no_padding() -> None:
    for way in ways([100] * 8).values():
        assert way.padding == 0
        assert way.effective_tokens == 400
        assert way.attention == 1


def test_half_empty_sequences() -> None:
    found = ways([50] * 8)
    assert found["padded to the sequence"].padding == 0.5
    assert found["padded to the sequence"].effective_tokens == 200
    assert found["padded to the sequence"].attention == 4
    assert found["padded to the longest of a batch"].padding == 0
    assert found["packed"].effective_tokens == 400
    assert found["packed"].sequences == 4


def test_mixed_lengths_are_better_in_buckets_and_best_packed() -> None:
    lengths = np.random.default_rng(0).lognormal(3, 1, 4000).astype(int).clip(1, 100).tolist()
    found = ways(lengths, ranks=2)
    padding = [way.padding for way in found.values()]
    assert padding == sorted(padding, reverse=True)
    assert found["packed"].padding < 0.01
    assert 1 < found["packed"].imbalance < 1.2


def test_long_documents_are_cut_and_nothing_is_lost() -> None:
    found = plan_packing([250], sequence_length=100, batch_sequences=1)
    assert found.split == 1
    assert found.ways[-1].sequences == 3


@given(st.lists(st.integers(1, 50), min_size=1, max_size=200))
@settings(max_examples=50)
def test_bins_hold_everything_once_and_never_too_much(lengths: list[int]) -> None:
    bins = _best_fit(np.sort(np.array(lengths))[::-1], 50)
    assert sorted(length for held in bins for length in held) == sorted(lengths)
    assert all(sum(held) <= 50 for held in bins)
    assert len(bins) <= 2 * -(-sum(lengths) // 50)


@pytest.mark.parametrize("lengths", [[], [0], [5, -1]])
def test_lengths_that_are_none(lengths: list[int]) -> None:
    with pytest.raises(DataError, match="whole numbers"):
        ways(lengths)


def test_ranks_that_cannot_share_a_batch() -> None:
    with pytest.raises(PlanError, match="3 ranks"):
        ways([10], ranks=3)
