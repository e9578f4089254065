"""Which runs share work, and what a sweep costs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalecli.probes.config import Optimizer, ProbeConfig
from scalecli.probes.engines.engine import Capacity
from scalecli.probes.schedule import Schedule
from scalecli.probes.timing import StepTime
from scalecli.probes.units import STACK_COPIES, lengths, plan_units, unit_flops


@pytest.fixture
def many(config: ProbeConfig) -> list[ProbeConfig]:
    return [
        replace(config, learning_rate=rate, seed=seed, steps=steps, batch_sequences=batch)
        for rate in (1e-3, 3e-3, 1e-2)
        for seed in range(4)
        for steps in (20, 40)
        for batch in (4, 200)
    ]


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
def test_every_run_is_in_one_unit_that_can_train_together(many: list[ProbeConfig], device_type: str) -> None:
    units = plan_units([*many, *many[:3]], device_type=device_type)
    ids = [config.run_id for unit in units for config in unit]
    assert sorted(ids) == sorted(config.run_id for config in many)
    for unit in units:
        assert 1 <= len(lengths(unit)[0]) <= STACK_COPIES


def test_small_batches_are_stacked_and_large_ones_are_not(many: list[ProbeConfig]) -> None:
    copies = {
        unit[0].batch_sequences: len({config.family for config in unit})
        for unit in plan_units(many, device_type="cpu")
    }
    assert copies[4] > 1
    assert copies[200] == 1


def test_a_stack_is_shared_out_to_idle_slots(config: ProbeConfig) -> None:
    runs = [replace(config, seed=seed) for seed in range(8)]
    sizes = {
        slots: [len(unit) for unit in plan_units(runs, device_type="cpu", slots=slots)]
        for slots in (1, 2, 5, 99)
    }
    assert sizes == {1: [8], 2: [4, 4], 5: [2, 2, 2, 1, 1], 99: [1] * 8}


def test_schedules_that_bend_early_are_not_branched(config: ProbeConfig) -> None:
    linear = replace(config, schedule=Schedule(name="linear"))
    runs = [replace(linear, steps=steps) for steps in (20, 40)]
    assert len(plan_units(runs, device_type="cuda")) == 2


def test_other_optimizers_are_not_stacked_together(config: ProbeConfig) -> None:
    runs = [config, replace(config, optimizer=Optimizer(name="sgd")), replace(config, grad_clip=0.0)]
    assert len(plan_units(runs, device_type="cpu")) == 3


def test_the_most_work_comes_first(many: list[ProbeConfig]) -> None:
    work = [unit_flops(unit) for unit in plan_units(many, device_type="cpu")]
    assert work == sorted(work, reverse=True)


@given(steps=st.lists(st.integers(10, 500), min_size=1, max_size=5, unique=True), decay=st.floats(0.05, 1.0))
def test_a_branched_unit_costs_its_trunk_once(config: ProbeConfig, steps: list[int], decay: float) -> None:
    schedule = Schedule(warmup_steps=5, decay_fraction=decay)
    runs = [replace(config, steps=count, schedule=schedule) for count in steps]
    (unit,) = plan_units(runs, device_type="cpu")
    alone = sum(run.flops_exact for run in runs)
    assert max(run.flops_exact for run in runs) * (1 - 1e-9) <= unit_flops(unit) <= alone * (1 + 1e-9)


def test_time_counts_the_overhead_of_a_stack_once(config: ProbeConfig) -> None:
    alone = [replace(config, seed=seed) for seed in range(4)]
    launching = StepTime(overhead=1.0, seconds_per_flop=0.0)
    (unit,) = plan_units(alone, device_type="cpu")
    assert launching.unit_seconds(unit) == pytest.approx(config.steps)
    arithmetic = StepTime(overhead=0.0, seconds_per_flop=1e-9)
    assert arithmetic.unit_seconds(unit) == pytest.approx(4e-9 * config.flops_exact)


def test_two_slots_halve_the_time_of_equal_work(config: ProbeConfig) -> None:
    runs = [replace(config, batch_sequences=200 + batch) for batch in range(8)]
    step = StepTime(overhead=0.0, seconds_per_flop=1e-6)
    one, two = (step.sweep_seconds(runs, Capacity("cpu", slots)) for slots in (1, 2))
    assert (one - two) == pytest.approx(sum(run.flops_exact for run in runs) * 1e-6 / 2)
    assert step.sweep_seconds([], Capacity("cpu", 2)) == 0.0
