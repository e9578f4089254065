"""Throughput trials in real child processes, and the search for the largest that fits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalecli.errors import OutOfMemory, ProbeError
from scalecli.probes.config import ProbeConfig
from scalecli.probes.throughput.estimate import Trial, largest_fitting, limits
from scalecli.probes.throughput.run import Place, run, search


@given(limit=st.integers(0, 3000), guess=st.integers(1, 3000), most=st.integers(1, 2048))
def test_the_search_finds_the_limit_in_few_trials(limit: int, guess: int, most: int) -> None:
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= limit

    found = largest_fitting(fits, guess=guess, most=most)
    possible = [size for size in (1, 2, 4, *range(8, most + 1, 8)) if size <= min(limit, most)]
    assert found == max(possible, default=None)
    assert len(tried) == len(set(tried)) <= 20


def test_a_good_guess_needs_two_trials() -> None:
    tried: list[int] = []
    largest_fitting(lambda size: bool(tried.append(size)) or size <= 96, guess=96, most=1024)
    assert tried == [96, 104]


def trial(size: int, speed: float | None) -> Trial:
    return Trial(
        micro_batch_sequences=size,
        sequence_length=100,
        fits=speed is not None,
        predicted_bytes=10 * size,
        tokens_per_second=speed,
    )


def test_three_limits_are_named() -> None:
    trials = [trial(1, 10.0), trial(4, 39.0), trial(8, 40.0), trial(16, 40.0), trial(24, None)]
    found = limits(trials, critical_tokens=250.0)
    assert (found.fits, found.flat_from, found.wasted_above, found.best) == (16, 4, 2, 2)
    assert limits(trials).best == 4
    assert limits(trials[:-1]).fits is None


def test_nothing_fitting_is_an_error() -> None:
    with pytest.raises(OutOfMemory) as error:
        limits([trial(1, None)])
    assert error.value.peak_bytes == 10
    assert error.value.largest_fitting is None


def test_real_trials_measure_speed_and_memory(config: ProbeConfig) -> None:
    trials = list(run(replace(config, sequence_length=64), [8, 64], Place(device="cpu")))
    assert [each.micro_batch_sequences for each in trials] == [8, 64]
    for each in trials:
        assert each.fits
        assert each.tokens_per_second is not None
        assert each.tokens_per_second > 100
        assert each.mfu is not None
        assert 0 < each.mfu < 1.5
        assert each.peak_bytes is not None
        assert each.peak_bytes > 0


def test_running_out_of_memory_is_found_in_the_child(config: ProbeConfig) -> None:
    """Logits of 4096 entries: 2 MiB a sequence and copy, so that a few hundred MiB are soon full."""
    wide = replace(config, shape=replace(config.shape, vocab=4096), sequence_length=128)
    trials = list(search(wide, Place(device="cpu", limit_bytes=300 * 2**20), most=64))
    fitting = [each.micro_batch_sequences for each in trials if each.fits]
    failing = [each.micro_batch_sequences for each in trials if not each.fits]
    assert fitting
    assert failing
    assert max(fitting) < min(failing)
    assert min(failing) - max(fitting) <= 8


def test_a_reserve_larger_than_the_memory_is_refused() -> None:
    with pytest.raises(ProbeError, match="reserve"):
        Place.of("cpu", reserve_bytes=2**60)
