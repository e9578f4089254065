"""Schedules against their definitions."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalecli.probes.schedule import SCHEDULES, WITH_TAIL, Schedule, ScheduleName


@given(
    name=st.sampled_from(SCHEDULES),
    warmup=st.integers(0, 20),
    steps=st.integers(1, 200),
    decay=st.floats(0.01, 1.0),
    final=st.floats(0.0, 1.0),
)
def test_rates_stay_between_zero_and_the_peak(
    name: ScheduleName, warmup: int, steps: int, decay: float, final: float
) -> None:
    schedule = Schedule(name=name, warmup_steps=warmup, decay_fraction=decay, final_fraction=final)
    factors = [schedule.factor(step, steps) for step in range(steps)]
    assert all(0.0 < factor <= 1.0 for factor in factors)
    after = factors[warmup:]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(after))


@pytest.mark.parametrize("name", WITH_TAIL)
@given(short=st.integers(10, 100), extra=st.integers(1, 100), warmup=st.integers(0, 9))
def test_runs_of_different_length_share_a_trunk(
    name: ScheduleName, short: int, extra: int, warmup: int
) -> None:
    schedule = Schedule(name=name, warmup_steps=warmup)
    for step in range(schedule.branch_step(short)):
        assert schedule.factor(step, short) == schedule.factor(step, short + extra)


def test_shapes() -> None:
    half = {name: Schedule(name=name, decay_fraction=1.0).factor(50, 100) for name in SCHEDULES}
    assert half == pytest.approx(
        {"constant": 1.0, "cooldown": 1 - math.sqrt(0.5), "wsd": 0.5, "linear": 0.5, "cosine": 0.5}
    )
    assert Schedule(name="cosine", final_fraction=0.1).factor(50, 100) == pytest.approx(0.55)
