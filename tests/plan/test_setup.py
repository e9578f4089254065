"""Runs that were trained otherwise than the target will be: each difference is a warning with its code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from scalecli.errors import PlanError
from scalecli.fitters.fit import Fit
from scalecli.plan.document import Plan
from scalecli.plan.plan import PlanOptions, make_plan
from scalecli.plan.target import Wish

RECIPE = {"optimizer": "adamw", "schedule": "cosine", "tokenizer": "bytes", "loss_kind": "validation"}
Maker = Callable[..., Fit]


def planned(*fits: Fit, **wish: object) -> Plan:
    return make_plan(Wish(params=1e9, tokens=2e10, **wish), fits, PlanOptions())  # type: ignore[arg-type]


def codes(plan: Plan) -> set[str]:
    return {warning.code for warning in plan.warnings}


@pytest.mark.parametrize("name", RECIPE)
def test_fits_that_disagree_on_the_recipe(name: str, make_fit: Maker, loss_law: Any, landscape: Any) -> None:
    one = make_fit(loss_law, 0.01, setup=RECIPE)
    other = make_fit(landscape, 0.01, setup=RECIPE | {name: "lion"})
    assert "W-SETUP-MISMATCH" in codes(planned(one, other))
    assert "W-SETUP-MISMATCH" not in codes(planned(one, make_fit(landscape, 0.01, setup=RECIPE)))


def test_another_optimizer_than_that_of_the_runs(make_fit: Maker, landscape: Any) -> None:
    fit = make_fit(landscape, 0.01, setup=RECIPE)
    assert "W-SETUP-MISMATCH" in codes(planned(fit, optimizer="muon"))
    assert "W-SETUP-MISMATCH" not in codes(planned(fit, optimizer="adamw"))


@pytest.mark.parametrize("name", ["tokenizer", "schedule", "loss_kind", "optimizer"])
def test_a_target_that_is_trained_otherwise(name: str, make_fit: Maker, landscape: Any) -> None:
    fit = make_fit(landscape, 0.01, setup=RECIPE)
    other = planned(fit, recipe={name: "other"})
    (warning,) = [w for w in other.warnings if w.code == "W-SETUP-MISMATCH"]
    assert f"{name} differs (landscape-two-stage: {RECIPE[name]}, the target: other)" in warning.message
    assert "W-SETUP-MISMATCH" not in codes(planned(fit, recipe={name: RECIPE[name]}))


def test_a_recipe_that_is_not_compared_is_refused() -> None:
    with pytest.raises(PlanError, match="colour"):
        planned(recipe={"colour": "blue"})


def test_another_sequence_length(make_fit: Maker, landscape: Any) -> None:
    fit = make_fit(landscape, 0.01, setup=RECIPE | {"sequence_length": 512.0})
    assert "W-SEQUENCE-LENGTH" in codes(planned(fit))
    assert "W-SEQUENCE-LENGTH" not in codes(planned(fit, sequence_length=512))


def test_batches_that_look_like_sequences(make_fit: Maker, landscape: Any) -> None:
    setup = RECIPE | {"sequence_length": 512.0}
    wrong = make_fit(landscape, 0.01, {"batch_tokens": (8.0, 256.0)}, setup=setup)
    right = make_fit(landscape, 0.01, {"batch_tokens": (8.0 * 512, 256.0 * 512)}, setup=setup)
    assert "W-BATCH-UNIT" in codes(planned(wrong, sequence_length=512))
    assert "W-BATCH-UNIT" not in codes(planned(right, sequence_length=512))


def test_the_plan_exports_what_the_runs_held_fixed(make_fit: Maker, landscape: Any) -> None:
    plan = planned(make_fit(landscape, 0.01, setup=RECIPE | {"beta2": 0.99, "weight_decay": 0.02}))
    assert plan.optimizer.beta2 == 0.99
    assert plan.optimizer.weight_decay == 0.02
    assert plan.learning_rate.schedule == "cosine"
    assert all(line.source == "runs" for line in plan.lines if line.name in ("beta2", "weight_decay"))


def test_mup_runs_give_multipliers_for_the_target_width(make_fit: Maker, landscape: Any) -> None:
    mup = RECIPE | {"parametrization": "mup"}
    plan = planned(make_fit(landscape, 0.01, setup=mup | {"base_width": 64.0}))
    width = plan.target.shape["width"]
    assert {group.name: group.multiplier for group in plan.learning_rate.groups} == {
        "embedding, vectors": 1.0,
        "hidden matrices": pytest.approx(64 / width),
        "output": 1.0,
    }
    assert "W-MUP-BASE-WIDTH" in codes(planned(make_fit(landscape, 0.01, setup=mup)))


@pytest.mark.parametrize(
    ("optimizer", "known"), [("adamw", True), ("muon", True), ("lion", True), ("sgd", False)]
)
def test_published_rates_are_adamws(optimizer: str, known: bool) -> None:
    plan, usual = planned(optimizer=optimizer), planned()
    assert ("W-RATE-NOT-MOVED" in codes(plan)) is not known
    assert (plan.learning_rate.peak is not None) is known
    if optimizer == "lion":
        assert plan.learning_rate.peak is not None
        assert usual.learning_rate.peak is not None
        ratio = usual.learning_rate.peak.value / plan.learning_rate.peak.value
        assert 3 <= ratio <= 10
