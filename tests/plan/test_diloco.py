"""DiLoCo in the plan, against the tables of its paper."""

from __future__ import annotations

import pytest

from scalecli.errors import PlanError
from scalecli.fitters.fit import Fit
from scalecli.plan.diloco import outer_learning_rate
from scalecli.plan.document import Plan
from scalecli.plan.plan import PlanOptions, make_plan
from scalecli.plan.target import Wish


def planned(replicas: int, *fits: Fit, **wish: object) -> Plan:
    return make_plan(Wish(params=1e9, tokens=2e10, replicas=replicas, **wish), fits, PlanOptions())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("replicas", "batch", "rate"),
    [
        (1, 0.01361 * 1e9**0.435, 74620.6 * 1e9**-0.945),
        (2, 0.00769 * 1e9**0.479, 3978.82 * 1e9**-0.780),
        (4, 0.00535 * 1e9**0.510, 4512.99 * 1e9**-0.789),
        (8, 0.01859 * 1e9**0.455, 618986 * 1e9**-1.102),
    ],
)
def test_tables_eight_and_nine(replicas: int, batch: float, rate: float) -> None:
    own = next(p for p in planned(replicas).presets if p.source == f"DiLoCo M={replicas}")
    assert own.batch_tokens == pytest.approx(2048 * batch)
    assert own.learning_rate == pytest.approx(rate, rel=1e-4)


def test_only_its_own_laws_count_and_the_others_stand_beside_them() -> None:
    plan = planned(4)
    said = [p.batch_tokens for p in plan.presets if p.source.startswith(("DiLoCo M=", "DiLoCo joint"))]
    assert plan.batch.tokens is not None
    assert (plan.batch.tokens.low, plan.batch.tokens.high) == (min(said), max(said))  # type: ignore[type-var]
    assert {"StepLaw", "DeepSeek"} <= {p.source for p in plan.presets}


def test_numbers_of_replicas_that_were_not_trained_have_the_joint_law_alone() -> None:
    plan = planned(3)
    assert [p.source for p in plan.presets if p.source.startswith("DiLoCo ")] == [
        "DiLoCo joint",
        "DiLoCo data-parallel",
    ]
    assert plan.batch.sequences is not None
    assert plan.batch.sequences % 3 == 0


def test_outer_rates_by_replicas() -> None:
    assert [outer_learning_rate(m).value for m in (1, 2, 4, 8)] == [0.4, 0.6, 0.6, 0.8]
    between = outer_learning_rate(6)
    assert between.low == 0.6
    assert between.high == 0.8
    assert 0.6 < between.value < 0.8
    assert outer_learning_rate(64).value == 0.8


def test_synchronisations_are_counted() -> None:
    plan = planned(2)
    (line,) = [line for line in plan.lines if line.name == "synchronisations"]
    assert plan.batch.steps is not None
    assert line.value == -(-plan.batch.steps // 30)


def test_a_landscape_of_another_algorithm_is_a_warning(fits: dict[str, Fit]) -> None:
    plan = planned(2, fits["landscape"], fits["loss"])
    assert "W-ALGORITHM-MISMATCH" in {warning.code for warning in plan.warnings}


def test_no_rule_for_fixed_data() -> None:
    with pytest.raises(PlanError, match="fixed data"):
        make_plan(Wish(params=1e9, tokens=2e10, replicas=2), [], PlanOptions(budget="data"))


def test_other_intervals_than_the_papers_are_counted_and_warned_of() -> None:
    plan = planned(2, sync_every=100)
    (line,) = [line for line in plan.lines if line.name == "synchronisations"]
    assert plan.batch.steps is not None
    assert line.value == -(-plan.batch.steps // 100)
    assert "W-DILOCO-INTERVAL" in {warning.code for warning in plan.warnings}


def test_its_laws_hold_at_twenty_tokens_a_parameter() -> None:
    assert all(p.valid for p in planned(2).presets if p.source.startswith("DiLoCo"))
    long = make_plan(Wish(params=1e9, tokens=2e11, replicas=2), [], PlanOptions())
    assert not any(p.valid for p in long.presets if p.source.startswith("DiLoCo"))
