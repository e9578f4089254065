"""The plan as a whole: what it rests on, what it says, and that uncertainty is carried into it."""

from __future__ import annotations

import math
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from typing import Any

import pytest

from scalecli.errors import PlanError
from scalecli.fitters.calibrate import Validation
from scalecli.fitters.fit import Fit
from scalecli.fitters.laws.chinchilla import Chinchilla
from scalecli.fitters.laws.landscape import Landscape
from scalecli.fitters.laws.surge import Surge
from scalecli.fitters.reach import Reach
from scalecli.plan.batch import BatchWish
from scalecli.plan.ceiling import BatchCeiling, RateCeiling
from scalecli.plan.document import Plan
from scalecli.plan.moving import parse_setting
from scalecli.plan.objectives import Objective, parse_objective
from scalecli.plan.plan import PlanOptions, make_plan
from scalecli.plan.rules.setting import Setting
from scalecli.plan.target import Wish

WISH = Wish(params=1e9, tokens=2e10)
SETTING = parse_setting({"batch": "512k", "lr": "3e-4", "params": "1B", "tokens": "20B"})


def planned(*fits: Fit, wish: Wish = WISH, goal: str = "tokens", **options: object) -> Plan:
    batch = BatchWish(objective=parse_objective(goal))
    return make_plan(wish, fits, PlanOptions(**{"batch": batch, **options}))  # type: ignore[arg-type]


def codes(plan: Plan) -> set[str]:
    return {warning.code for warning in plan.warnings}


def width(interval: object) -> float:
    return math.log(interval.high / interval.low)  # type: ignore[attr-defined]


# Without fits


def test_without_runs_the_catalogue_answers_as_a_spread_and_says_so() -> None:
    plan = planned()
    said = [p.batch_tokens for p in plan.presets if p.quantity == "optimum" and p.batch_tokens]
    assert plan.batch.tokens is not None
    assert (plan.batch.tokens.low, plan.batch.tokens.high) == (min(said), max(said))
    assert plan.learning_rate.peak is not None
    assert width(plan.learning_rate.peak) > math.log(4)
    assert "W-FOLKLORE" in codes(plan)
    assert plan.loss is None
    assert any(not p.valid for p in plan.presets)


def test_a_critical_size_is_no_part_of_the_folklore() -> None:
    plan = planned()
    critical = max(p.batch_tokens or 0 for p in plan.presets if p.quantity == "critical")
    assert plan.batch.tokens is not None
    assert plan.batch.tokens.high is not None
    assert plan.batch.tokens.high < critical


def test_budgets_have_their_own_rules() -> None:
    data, compute = planned(budget="data"), planned(budget="compute")
    assert data.batch.tokens is not None
    assert compute.batch.tokens is not None
    assert data.batch.tokens.low == pytest.approx(
        0.58 * 2e10**0.571
    )  # StepLaw and Power Lines vary tokens freely
    assert data.batch.tokens.high == pytest.approx(0.0306 * 2e10**0.383 * 2048)
    assert compute.batch.tokens.low < data.batch.tokens.value < compute.batch.tokens.high  # type: ignore[operator]


def test_published_critical_sizes_answer_for_objectives_in_one_definition() -> None:
    """Zhang's 20 %-overhead size at 1B parameters, 1.23M counted from 256 x 512 tokens, is a hyperbola of 5.3M."""
    plan = planned(goal="max-extra-tokens=10%")
    said = {(p.source, p.definition): p.hyperbola_tokens for p in plan.presets if p.quantity == "critical"}
    assert said["Zhang", "overhead"] == pytest.approx((1.227e6 - 1.2 * 256 * 512) / 0.2, rel=0.01)
    critical, batch = plan.batch.critical_tokens, plan.batch.tokens
    assert critical is not None
    assert batch is not None
    assert (critical.low, critical.high) == (min(said.values()), max(said.values()))  # type: ignore[type-var]
    assert batch.value == pytest.approx(0.1 * critical.value)
    (line,) = [line for line in plan.lines if line.name == "critical batch"]
    assert (line.source, str(line.warning).split()[0]) == ("presets", "folklore")
    assert all(row.extra_tokens_fraction is not None for row in plan.batch.tradeoff)


def test_least_time_without_runs_needs_devices_only() -> None:
    with pytest.raises(PlanError, match="devices"):
        planned(goal="time")


def test_one_rule_has_no_spread_and_the_line_says_so() -> None:
    plan = planned(wish=replace(WISH, replicas=16))  # no fit for 16 replicas: the joint law alone
    (line,) = [line for line in plan.lines if line.name == "batch"]
    assert (line.low, line.high) == (None, None)
    assert line.no_interval == "one rule has no spread"


def test_rates_of_published_rules_are_moved_to_the_batch_that_is_run() -> None:
    """Under the square root a rule's rate would double over four times its batch; as measured it grows by a quarter."""
    small, large = (planned(batch=BatchWish(tokens=tokens)) for tokens in (2.5e5, 1e6))
    rates = [plan.learning_rate.peak for plan in (small, large)]
    assert rates[0] is not None
    assert rates[1] is not None
    assert 1.1 < rates[1].value / rates[0].value < 2


@pytest.mark.parametrize("tokens", [3e7, 1e8, 1.7e8])
def test_rules_leave_a_short_run_its_updates(tokens: float) -> None:
    plan = planned(wish=Wish(params=1e8, tokens=tokens))
    assert plan.batch.steps is not None
    assert plan.batch.steps >= 200  # ten memories of a second moment of 0.95
    assert "W-FEW-UPDATES" not in codes(plan)
    assert {line.source for line in plan.lines if line.name == "batch ceiling"} == {"hoffer2017"}


def test_small_batches_come_with_what_the_loss_does_not_see() -> None:
    assert "W-SMALL-BATCH-FORGETS" in codes(planned(batch=BatchWish(tokens=1e5)))
    assert "W-SMALL-BATCH-FORGETS" not in codes(planned(batch=BatchWish(tokens=1e6)))


@pytest.mark.parametrize("workload", ["fine-tuning", "video-diffusion"])
def test_other_workloads_have_their_own_rules(workload: Any) -> None:
    plan = planned(wish=Wish(params=3e9, tokens=5e9, workload=workload))
    assert plan.presets
    assert not {p.source for p in plan.presets} & {"StepLaw", "DeepSeek", "Kaplan"}
    assert plan.learning_rate.peak is not None
    if workload == "fine-tuning":
        assert plan.learning_rate.peak.low == pytest.approx(1e-6)
        assert plan.learning_rate.peak.high == pytest.approx(2e-5)
        assert plan.learning_rate.schedule == "constant"
        assert plan.learning_rate.final == plan.learning_rate.peak.value
        assert {line.source for line in plan.lines if line.name == "runs to give up early"} == {"pareja2024"}
    else:
        (size,) = [line for line in plan.lines if line.name == "best size for this compute"]
        assert size.value == pytest.approx(1.5787 * (6 * 3e9 * 5e9) ** 0.4146, rel=1e-3)


# With fits


def test_the_landscape_decides_and_its_truth_is_inside(fits: dict[str, Fit], landscape: Any) -> None:
    plan = planned(fits["landscape"], fits["loss"])
    batch, rate = plan.batch.tokens, plan.learning_rate.peak
    assert batch is not None
    assert rate is not None
    assert batch.value == pytest.approx(float(landscape.optimal_batch_tokens(1e9, 2e10)), rel=0.1)
    run = plan.batch.sequences * plan.batch.sequence_length  # type: ignore[operator]
    truth = float(landscape.optimal_learning_rate_at(1e9, 2e10, run))
    assert rate.value == pytest.approx(truth, rel=0.1)
    assert plan.batch.flat_range_tokens is not None
    assert plan.batch.flat_range_tokens[0] < batch.value < plan.batch.flat_range_tokens[1]
    assert "W-FOLKLORE" not in codes(plan)
    assert plan.presets


@pytest.mark.parametrize("tokens", [2e5, 8e6])
def test_the_flat_range_of_the_rate_is_that_of_the_batch_that_is_run(
    fits: dict[str, Fit], tokens: float
) -> None:
    rate = planned(fits["landscape"], fits["loss"], batch=BatchWish(tokens=tokens)).learning_rate
    assert rate.peak is not None
    assert rate.flat_range is not None
    assert rate.flat_range[0] < rate.peak.value < rate.flat_range[1]


def test_wider_fits_make_a_wider_plan(
    fits: dict[str, Fit], landscape: Any, loss_law: Any, make_fit: Any
) -> None:
    sure = planned(fits["landscape"], fits["loss"], goal="max-extra-tokens=5%")
    unsure = planned(make_fit(landscape, 0.06), make_fit(loss_law, 0.03), goal="max-extra-tokens=5%")
    for part in (lambda p: p.batch.tokens, lambda p: p.learning_rate.peak, lambda p: p.loss):
        assert width(part(unsure)) > 2 * width(part(sure))


def test_the_draws_of_the_loss_law_reach_the_batch(
    fits: dict[str, Fit], loss_law: Any, make_fit: Any
) -> None:
    sure = planned(fits["landscape"], fits["loss"], goal="max-extra-tokens=5%")
    unsure = planned(fits["landscape"], make_fit(loss_law, 0.2), goal="max-extra-tokens=5%")
    assert width(unsure.batch.tokens) > width(sure.batch.tokens)


def test_excess_is_told_in_tokens_and_in_compute(fits: dict[str, Fit]) -> None:
    rows = planned(fits["landscape"], fits["loss"]).batch.tradeoff
    assert len(rows) == 6
    best = min(rows, key=lambda row: row.excess_loss or 0)
    for row in rows:
        assert row.extra_tokens_fraction is not None
        assert row.excess_compute_fraction is not None
        assert row.extra_tokens_fraction >= (best.extra_tokens_fraction or 0)
        assert row.excess_loss is not None
        by_size, by_tokens = 0.34 * 400 * 1e9**-0.34, 0.31 * 1200 * 2e10**-0.31
        assert row.excess_compute_fraction == pytest.approx(
            row.excess_loss / ((by_size + by_tokens) / 2), rel=0.01, abs=1e-6
        )
        assert row.steps == pytest.approx(2e10 / row.batch_tokens * (1 + row.extra_tokens_fraction), rel=1e-2)


@pytest.mark.parametrize("goal", ["tokens", "max-extra-tokens=30%", "exchange=1"])
def test_other_batches_are_counted_from_the_one_that_is_run(fits: dict[str, Fit], goal: str) -> None:
    plan = planned(fits["landscape"], fits["loss"], goal=goal)
    _run_is_a_row(plan)
    _run_is_a_row(planned(fits["landscape"], fits["loss"], batch=BatchWish(tokens=1.1e6)))


def _run_is_a_row(plan: Plan) -> None:
    run = plan.batch.sequences * plan.batch.sequence_length  # type: ignore[operator]
    steps = {row.batch_tokens: row.steps for row in plan.batch.tradeoff}
    assert steps[run] == plan.batch.steps


def test_a_fit_is_asked_in_the_count_of_parameters_that_its_runs_have(landscape: Any, make_fit: Any) -> None:
    counted = make_fit(landscape, 0.02, setup={"params_kind": "params_non_embedding"})
    plan = planned(counted)
    assert plan.learning_rate.peak is not None
    run = plan.batch.sequences * plan.batch.sequence_length  # type: ignore[operator]
    size = plan.target.params_non_embedding
    assert size < 0.9 * plan.target.params
    truth = float(landscape.optimal_learning_rate_at(size, 2e10, run))
    assert plan.learning_rate.peak.value == pytest.approx(truth)
    assert plan.loss is not None
    assert plan.loss.value == pytest.approx(float(landscape.tuned_loss(size, 2e10)))


def test_a_budget_buys_a_size_with_an_interval_and_says_what_it_counts(loss_law: Any, make_fit: Any) -> None:
    wish = Wish(flops=1e20)
    plan = planned(make_fit(loss_law, 0.01), wish=wish)
    (size,) = [line for line in plan.lines if line.name == "params"]
    assert size.low is not None
    assert size.high is not None
    assert isinstance(size.value, float)
    assert size.low < size.value < size.high
    assert "W-PARAMS-COUNT" not in codes(plan)
    counted = make_fit(loss_law, 0.01, setup={"params_kind": "params_non_embedding"})
    assert "W-PARAMS-COUNT" in codes(planned(counted, wish=wish))


def test_a_landscape_alone_knows_the_loss_and_what_tokens_are_worth(
    fits: dict[str, Fit], landscape: Any
) -> None:
    alone, both = (planned(*given, goal="max-extra-tokens=5%") for given in
                   ([fits["landscape"]], [fits["landscape"], fits["loss"]]))  # fmt: skip
    assert alone.loss is not None
    assert alone.loss.value == pytest.approx(float(landscape.tuned_loss(1e9, 2e10)))
    assert "W-NO-LOSS-FIT" not in codes(alone)
    assert alone.batch.tokens is not None
    assert both.batch.tokens is not None
    assert alone.batch.tokens.value == pytest.approx(both.batch.tokens.value)  # one truth in both


def test_largest_batch_within_extra_tokens_costs_just_those(fits: dict[str, Fit]) -> None:
    plan = planned(fits["landscape"], fits["loss"], goal="max-extra-tokens=5%")
    best = planned(fits["landscape"], fits["loss"])
    assert plan.batch.tokens is not None
    assert best.batch.tokens is not None
    assert plan.batch.tokens.value > 1.5 * best.batch.tokens.value
    nearest = min(
        plan.batch.tradeoff, key=lambda row: abs(math.log(row.batch_tokens / plan.batch.tokens.value))
    )  # type: ignore[union-attr]
    assert nearest.extra_tokens_fraction == pytest.approx(0.05, abs=0.02)


def test_runs_of_one_batch_size_leave_the_batch_to_folklore(
    make_fit: Any, landscape: Any, loss_law: Any
) -> None:
    one_batch = replace(landscape, curvature_batch=0.0, curvature_cross=0.0)
    plan = planned(make_fit(one_batch, 0.02), make_fit(loss_law, 0.01))
    assert {"W-BATCH-NOT-IDENTIFIED", "W-FOLKLORE", "W-RATE-AT-OTHER-BATCH"} <= codes(plan)
    assert plan.batch.flat_range_tokens is None
    assert plan.learning_rate.peak is not None
    assert plan.learning_rate.peak.value == pytest.approx(float(landscape.optimal_learning_rate(1e9, 2e10)))


def test_growth_of_the_batch_at_fixed_data_and_fixed_compute(fits: dict[str, Fit]) -> None:
    lines = {line.name: line.value for line in planned(fits["landscape"], fits["loss"]).lines}
    assert lines["batch over data"] == pytest.approx(0.57)
    assert lines["batch over compute"] == pytest.approx(0.57 / 2)


def test_the_two_stage_answer_stands_beside_the_joint_one(
    fits: dict[str, Fit], make_fit: Any, landscape: Any
) -> None:
    shared = {field.name: getattr(landscape, field.name) for field in dataclass_fields(landscape)}
    joint = Landscape(**shared | {"saturation": 0.3, "asymmetry": 0.5})
    agreeing = planned(make_fit(joint, 0.02), fits["landscape"], fits["loss"])
    assert {"batch by two stages", "learning rate by two stages"} <= {line.name for line in agreeing.lines}
    assert "W-LANDSCAPES-DISAGREE" not in codes(agreeing)
    apart = replace(landscape, batch_scale=3 * landscape.batch_scale)
    assert "W-LANDSCAPES-DISAGREE" in codes(
        planned(make_fit(joint, 0.02), make_fit(apart, 0.02), fits["loss"])
    )


def test_an_optimum_of_adamw_is_none_of_another_optimizer(
    make_fit: Any, landscape: Any, loss_law: Any
) -> None:
    fits = [make_fit(landscape, 0.02, setup={"optimizer": "adamw", "beta2": 0.95}), make_fit(loss_law, 0.01)]
    own, muon, lion, sgd = (
        planned(*fits, wish=replace(WISH, optimizer=name)) for name in ("adamw", "muon", "lion", "sgd")
    )
    assert own.learning_rate.peak is not None
    assert muon.learning_rate.peak == own.learning_rate.peak  # liu2025: the same rate under matched updates
    assert lion.learning_rate.peak is not None
    assert lion.learning_rate.peak.high < own.learning_rate.peak.value / 2  # type: ignore[operator]
    assert sgd.learning_rate.peak is None
    assert "W-RATE-NOT-MOVED" in codes(sgd)
    assert (own.optimizer.beta2, lion.optimizer.beta2, sgd.optimizer.beta2) == (0.95, 0.99, None)
    assert own.learning_rate.flat_range is not None
    assert lion.learning_rate.flat_range is None


def test_a_stable_rate_of_a_probe_is_a_ceiling_that_moves_like_a_rate(fits: dict[str, Fit]) -> None:
    free = planned(fits["landscape"], fits["loss"])
    assert free.learning_rate.peak is not None
    run = free.batch.sequences * 2048  # type: ignore[operator]
    stable = Setting(
        batch_tokens=run, learning_rate=free.learning_rate.peak.value / 2, params=1e9, tokens=2e10
    )
    ceiling = RateCeiling(setting=stable, reason="no spike in the probe", source="stability.json")
    capped = planned(fits["landscape"], fits["loss"], rate_ceilings=(ceiling,))
    assert capped.learning_rate.peak is not None
    assert capped.learning_rate.peak.value == pytest.approx(stable.learning_rate)
    assert "W-RATE-CEILING" in codes(capped)


def test_two_fits_for_one_question_are_refused(fits: dict[str, Fit]) -> None:
    with pytest.raises(PlanError, match="both"):
        planned(fits["critical"], fits["critical_tokens"])


# Critical batches


@pytest.mark.parametrize(
    ("goal", "share"), [("max-extra-tokens=20%", 0.2), ("exchange=1", 1.0), ("exchange=4", 2.0)]
)
def test_objectives_on_the_hyperbola_have_closed_forms(fits: dict[str, Fit], goal: str, share: float) -> None:
    plan = planned(fits["critical"], goal=goal)
    assert plan.batch.critical_tokens is not None
    assert plan.batch.tokens is not None
    assert plan.batch.tokens.value == pytest.approx(share * plan.batch.critical_tokens.value)
    assert width(plan.batch.tokens) == pytest.approx(width(plan.batch.critical_tokens))


def test_a_critical_batch_is_a_limit_with_its_definition_and_never_the_batch(fits: dict[str, Fit]) -> None:
    plan, without = planned(fits["critical_tokens"]), planned()
    assert plan.batch.tokens == without.batch.tokens
    assert plan.batch.critical_tokens is not None
    assert plan.batch.critical_tokens.value == pytest.approx(20 * 2e10**0.47, rel=0.15)
    assert plan.batch.critical_tokens.definition.startswith("hyperbola")
    (line,) = [line for line in plan.lines if line.name == "batch at 20 % overhead"]
    base = plan.batch.sequences * plan.batch.sequence_length  # type: ignore[operator]
    assert line.value == pytest.approx(0.2 * plan.batch.critical_tokens.value + 1.2 * base)


def test_past_the_critical_batch_is_a_warning(fits: dict[str, Fit]) -> None:
    assert "W-BATCH-PAST-CRITICAL" in codes(planned(fits["critical"], batch=BatchWish(tokens=2e6)))
    assert "W-BATCH-PAST-CRITICAL" not in codes(planned(fits["critical"], batch=BatchWish(tokens=2e5)))


def test_the_critical_batch_over_the_loss_needs_a_loss_law(fits: dict[str, Fit]) -> None:
    alone = planned(fits["critical_loss"])
    assert alone.batch.critical_tokens == planned().batch.critical_tokens  # that of published rules
    assert "W-CRITICAL-INPUT" in codes(alone)
    both = planned(fits["critical_loss"], fits["loss"])
    assert both.loss is not None
    assert both.batch.critical_tokens is not None
    assert both.batch.critical_tokens.value == pytest.approx(2e8 * both.loss.value ** (-1 / 0.21), rel=0.1)


def test_a_noise_scale_is_told_as_a_ratio_and_never_as_the_batch(fits: dict[str, Fit]) -> None:
    plan = planned(fits["noise_scale"], fits["critical_loss"], fits["loss"])
    assert plan.batch.tokens == planned(fits["critical_loss"], fits["loss"]).batch.tokens
    (ratio,) = [line for line in plan.lines if line.name == "noise scale over critical batch"]
    assert ratio.value == pytest.approx(0.01, rel=0.1)


# Ceilings and wishes


def test_a_wished_batch_is_kept_and_a_ceiling_holds(fits: dict[str, Fit], landscape: Any) -> None:
    wished = planned(fits["landscape"], fits["loss"], batch=BatchWish(tokens=1e6))
    assert wished.batch.sequences == round(1e6 / 2048)
    capped = planned(
        fits["landscape"],
        fits["loss"],
        batch=BatchWish(ceilings=(BatchCeiling(tokens=2e5, reason="stale memories"),)),
    )
    assert capped.batch.tokens is not None
    assert capped.batch.tokens.value == 2e5
    assert capped.batch.sequences * 2048 <= 2e5  # type: ignore[operator]
    (line,) = [line for line in capped.lines if line.name == "batch ceiling"]
    assert (line.rule, line.source) == ("stale memories", "you")
    assert str(line.warning).startswith("binding")
    rate = float(landscape.optimal_learning_rate_at(1e9, 2e10, capped.batch.sequences * 2048))  # type: ignore[operator]
    assert capped.learning_rate.peak is not None
    assert capped.learning_rate.peak.value == pytest.approx(rate, rel=0.1)


def test_sequences_given_for_tokens_are_caught() -> None:
    with pytest.raises(PlanError, match="less than one sequence"):
        planned(batch=BatchWish(tokens=512.0))


def test_a_good_setting_in_sequences_is_told() -> None:
    told = parse_setting({"batch": "256", "lr": "3e-4", "params": "1B", "tokens": "20B"})
    assert "W-BATCH-UNIT" in codes(planned(setting=told))
    assert "W-BATCH-UNIT" not in codes(planned(setting=SETTING))


def test_too_few_updates_are_a_warning() -> None:
    assert "W-FEW-UPDATES" in codes(planned(batch=BatchWish(tokens=4e8)))
    assert "W-FEW-UPDATES" not in codes(planned(batch=BatchWish(tokens=4e6)))


# One good setting


def test_a_setting_at_its_own_scale_and_batch_stays() -> None:
    plan = planned(setting=SETTING, batch=BatchWish(tokens=512e3))
    assert plan.learning_rate.peak is not None
    assert plan.learning_rate.peak.value == pytest.approx(3e-4)
    assert plan.learning_rate.peak.low == pytest.approx(3e-4)
    assert {entry.rule for entry in plan.moved} >= {"size and tokens stay"}


def test_a_larger_batch_takes_the_middle_of_rules_that_disagree() -> None:
    plan = planned(setting=SETTING, batch=BatchWish(tokens=4 * 512e3))
    rates = [entry.value for entry in plan.moved if entry.quantity == "learning_rate"]
    assert plan.learning_rate.peak is not None
    assert plan.learning_rate.peak.high == pytest.approx(6e-4)  # the square root
    assert plan.learning_rate.peak.low == pytest.approx(3e-4 * 4 ** (math.log(3) / math.log(1024)))
    assert len(rates) == 3


def test_a_larger_model_moves_batch_and_rate_by_published_slopes() -> None:
    plan = planned(setting=SETTING, wish=Wish(params=4e9, tokens=8e10))
    assert plan.batch.tokens is not None
    assert plan.batch.tokens.low == pytest.approx(512e3 * 4**0.281)  # DiLoCo
    assert plan.batch.tokens.high == pytest.approx(512e3 * 4**0.703)  # Porian
    assert plan.learning_rate.peak is not None
    assert plan.learning_rate.peak.value < 3e-4


def test_the_rest_of_the_setting_moves_along_and_the_optimizer_follows() -> None:
    rich = parse_setting(
        {
            "batch": "512k",
            "lr": "3e-4",
            "params": "1B",
            "tokens": "20B",
            "beta2": "0.95",
            "weight_decay": "0.1",
        }
    )
    plan = planned(setting=rich, batch=BatchWish(tokens=128e3))
    run = plan.batch.sequences * 2048  # type: ignore[operator]
    assert plan.optimizer.beta2 == pytest.approx(0.95 ** (run / 512e3))
    rate, decay = plan.learning_rate.peak.value, plan.optimizer.weight_decay  # type: ignore[union-attr]
    assert run / (rate * decay) == pytest.approx(512e3 / (3e-4 * 0.1))  # type: ignore[operator]
    assert plan.optimizer.beta1 == 0.9


def test_fits_win_over_a_setting_but_show_it(fits: dict[str, Fit]) -> None:
    plan = planned(fits["landscape"], fits["loss"], setting=SETTING)
    assert plan.batch.tokens == planned(fits["landscape"], fits["loss"]).batch.tokens
    assert plan.moved


def test_sgd_moves_linearly_and_no_rate_comes_from_it_to_adamw() -> None:
    sgd = parse_setting({"batch": "512k", "lr": "0.1", "params": "1B", "tokens": "20B", "optimizer": "sgd"})
    wish = Wish(params=1e9, tokens=2e10, optimizer="sgd")
    plan = planned(setting=sgd, wish=wish, batch=BatchWish(tokens=4 * 512e3))
    assert plan.learning_rate.peak is not None
    assert plan.learning_rate.peak.value == pytest.approx(0.4)
    other = planned(setting=sgd, wish=replace(wish, optimizer="adamw"), batch=BatchWish(tokens=4 * 512e3))
    assert "W-RATE-NOT-MOVED" in codes(other)
    assert not any(entry.quantity in ("beta2", "weight_decay") for entry in other.moved)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch": "1M", "lr": "3e-4"}, "needs params, tokens"),
        (
            {"batch": "1M", "lr": "3e-4", "params": "1B", "tokens": "20B", "temperature": "1"},
            "no 'temperature'",
        ),
        ({"batch": "1M", "lr": "high", "params": "1B", "tokens": "20B"}, "learning_rate"),
        ({"batch": "0", "lr": "3e-4", "params": "1B", "tokens": "20B"}, "has to be positive"),
    ],
)
def test_a_setting_that_is_none_is_refused(values: dict[str, str], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        parse_setting(values)


@pytest.mark.parametrize("workload", ["fine-tuning", "video-diffusion"])
def test_a_setting_of_a_workload_without_rules_over_scale_is_kept_and_said_to_be(workload: Any) -> None:
    plan = planned(wish=Wish(params=3e9, tokens=5e9, workload=workload), setting=SETTING)
    assert plan.batch.tokens.value > 0
    (*_, kept) = [entry for entry in plan.moved if entry.quantity == "batch_tokens"]
    if workload == "fine-tuning":  # its rules name a batch, and no slope
        assert kept.value == SETTING.batch_tokens
        assert f"in {workload} training" in (kept.warning or "")


def test_a_budget_that_no_rule_of_a_workload_is_stated_for_is_refused() -> None:
    with pytest.raises(PlanError, match="no published rule of fine-tuning training is stated for fixed data"):
        planned(wish=Wish(params=3e9, tokens=5e9, workload="fine-tuning"), budget="data")


def test_a_surge_fit_is_one_of_the_rules(make_fit: Any) -> None:
    surge = make_fit(Surge(lr_max=1e-3, B_noise=1e6), 0.05, {"batch_tokens": (1e4, 8e6)})
    plan = planned(surge, setting=SETTING, batch=BatchWish(tokens=8 * 512e3))
    (rule,) = [entry for entry in plan.moved if entry.source == "li2024surge"]
    law, run = Surge(lr_max=1e-3, B_noise=1e6), plan.batch.sequences * 2048  # type: ignore[operator]
    assert rule.value == pytest.approx(3e-4 * law.relative_rate(run) / law.relative_rate(512e3), rel=0.02)
    assert rule.value < 3e-4 < 3e-4 * math.sqrt(8)  # beyond its peak the rate falls where the root rises
    rates = [entry.source for entry in plan.moved if entry.quantity == "learning_rate"]
    assert "malladi2022" not in rates  # and where it was measured to fall, the root is no answer


def test_a_surge_fit_without_a_setting_is_said_to_be_of_no_use(make_fit: Any) -> None:
    surge = make_fit(Surge(lr_max=1e-3, B_noise=1e6), 0.05, {"batch_tokens": (1e4, 8e6)})
    assert "W-SURGE-UNUSED" in codes(planned(surge))
    assert "W-SURGE-UNUSED" not in codes(planned(surge, setting=SETTING))


def test_the_root_counts_for_little_from_a_batch_beyond_the_peak(make_fit: Any) -> None:
    surge = make_fit(Surge(lr_max=1e-3, B_noise=1e5), 0.05, {"batch_tokens": (1e4, 8e6)})
    plan = planned(surge, setting=SETTING, batch=BatchWish(tokens=65536))
    (root,) = [
        entry for entry in plan.moved if (entry.quantity, entry.source) == ("learning_rate", "malladi2022")
    ]
    assert "does not hold" in (root.warning or "")


# Devices


def test_least_time_is_looked_for_among_batches_that_many_devices_run() -> None:
    """Least time gives each of 512 devices as many sequences as another (1M tokens and up), and no row is faster."""
    wish = Wish(params=7e10, tokens=1.4e12, accelerator="h100-80g", count=512)
    plan = planned(wish=wish, goal="time")
    days = {row.batch_tokens: row.days for row in plan.batch.tradeoff}
    run = plan.batch.sequences * 2048  # type: ignore[operator]
    assert plan.batch.tokens is not None
    assert run >= 512 * 2048
    assert run % (512 * 2048) == 0
    assert plan.batch.tokens.value == pytest.approx(run)
    assert days[run] == min(row.days for row in plan.batch.tradeoff)  # type: ignore[type-var]


def test_least_time_on_devices_is_no_slower_than_least_tokens(fits: dict[str, Fit]) -> None:
    wish = Wish(params=1e9, tokens=2e10, accelerator="h100-80g", count=8)
    plan = planned(fits["landscape"], fits["loss"], wish=wish, goal="time")
    days = {row.batch_tokens: row.days for row in plan.batch.tradeoff}
    run = plan.batch.sequences * 2048  # type: ignore[operator]
    assert all(value is not None for value in days.values())
    best = planned(fits["landscape"], fits["loss"], wish=wish)
    assert "smallest batch at full speed" in {line.name for line in best.lines}
    assert days[run] <= min(row.days for row in best.batch.tradeoff) * 1.05  # type: ignore[type-var, operator]


def test_least_time_without_devices_is_refused(fits: dict[str, Fit]) -> None:
    with pytest.raises(PlanError, match="devices"):
        planned(fits["landscape"], fits["loss"], goal="time")


@pytest.mark.parametrize("text", ["", "speed", "tokens=3", "exchange", "exchange=-1", "max-extra-tokens=x%"])
def test_objectives_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="one of tokens, time"):
        parse_objective(text)


def test_objectives_read_back() -> None:
    assert str(Objective()) == "tokens"
    assert parse_objective("exchange=0.5") == Objective(goal="exchange", amount=0.5)


# Extrapolation


def test_each_axis_is_measured_by_what_hold_outs_validated(make_fit: Any, loss_law: Any) -> None:
    reach = {
        "params": Reach(1e7, 2.5e8, 5.0),
        "tokens": Reach(1e9, 1e10, 1.5),
        "tokens_per_param": Reach(5.0, 100.0, 1.0),
    }
    fit = replace(make_fit(loss_law, 0.01), validation=Validation(10, 0.01, 0.9, reach))
    plan = planned(fit)
    (line,) = [line for line in plan.lines if line.name.startswith("extrapolation")]
    assert "params 4× beyond the runs, 0.8 of the 5×" in str(line.value)
    assert "tokens 2× beyond the runs, 1.33 of the 1.5×" in str(line.value)
    assert "tokens_per_param within the runs" in str(line.value)
    (warning,) = [w.message for w in plan.warnings if w.code == "W-UNCALIBRATED-INTERVAL"]
    assert "tokens 2×" in warning
    assert "params" not in warning
    (loss,) = [line for line in plan.lines if line.name == "loss"]
    assert str(loss.warning).startswith("uncalibrated")


def test_within_the_validated_reach_nothing_is_marked(make_fit: Any, loss_law: Any) -> None:
    reach = {"params": Reach(1e7, 5e8, 5.0), "tokens": Reach(1e9, 1e10, 4.0)}
    plan = planned(replace(make_fit(loss_law, 0.01), validation=Validation(10, 0.01, 0.9, reach)))
    assert "W-UNCALIBRATED-INTERVAL" not in codes(plan)


def test_the_level_of_the_plan_is_that_of_all_its_intervals(fits: dict[str, Fit]) -> None:
    usual, narrow = (
        planned(fits["landscape"], fits["loss"]),
        planned(fits["landscape"], fits["loss"], interval=0.5),
    )
    for part in (lambda p: p.batch.tokens, lambda p: p.learning_rate.peak, lambda p: p.loss):
        assert width(part(narrow)) < 0.6 * width(part(usual))


def test_kaplans_allocation_is_a_named_baseline() -> None:
    plan = make_plan(Wish(params=1.3e9, tokens=8.64e19 / (6 * 1.3e9)), [], PlanOptions())
    (line,) = [line for line in plan.lines if line.name == "params by Kaplan's allocation"]
    assert line.value == pytest.approx(1.3e9, rel=1e-6)


def test_a_rival_recipe_that_wins_at_the_target_is_told(make_fit: Any) -> None:
    spread = {"params": (1e7, 1e8), "tokens": (1e8, 1e10), "flops": (6e15, 6e18)}
    own = make_fit(Chinchilla(E=2.0, A=200.0, B=800.0, alpha=0.34, beta=0.31), 0.001, spread)
    steep = make_fit(Chinchilla(E=1.7, A=400.0, B=2100.0, alpha=0.36, beta=0.34), 0.001, spread)
    same = make_plan(WISH, [own], PlanOptions(rival=own))
    assert "W-BEYOND-CROSSOVER" not in codes(same)
    assert "W-BEYOND-CROSSOVER" in codes(make_plan(WISH, [own], PlanOptions(rival=steep)))
    assert "W-NO-LOSS-FIT" in codes(make_plan(WISH, [], PlanOptions(rival=steep)))
