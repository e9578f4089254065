"""Rules that move one setting: each against the numbers or identities of its own source."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalecli.data.catalogue import sources
from scalecli.errors import DataError, PlanError
from scalecli.fitters.fit import FitOptions, fit_law
from scalecli.fitters.laws.surge import Surge
from scalecli.plan.rules.half_life import beta2_half_life, ema_half_life
from scalecli.plan.rules.linear import linear
from scalecli.plan.rules.momentum import momentum
from scalecli.plan.rules.moved import Moved
from scalecli.plan.rules.optimizer import change_optimizer
from scalecli.plan.rules.scale import scale_by_published
from scalecli.plan.rules.setting import Setting
from scalecli.plan.rules.small_batch import small_batch
from scalecli.plan.rules.square_root import square_root
from scalecli.plan.rules.surge import surge
from scalecli.plan.rules.updates import least_updates, same_updates
from scalecli.plan.rules.weight_decay import constant_timescale, timescale, timescale_power_law
from scalecli.plan.rules.width import width_groups, width_transfer

TABLES = Path(__file__).parents[1] / "data"
SETTING = Setting(
    batch_tokens=5e5, learning_rate=3e-4, params=1e9, tokens=2e10, beta1=0.9, beta2=0.95, epsilon=1e-8,
    weight_decay=0.1, ema_decay=0.9999, width=1024.0,
)  # fmt: skip
ratios = st.floats(1e-3, 1e3)


def named(moved: list[Moved], quantity: str) -> Moved:
    (only,) = [entry for entry in moved if entry.quantity == quantity]
    return only


def test_linear_is_imagenet_in_an_hour() -> None:
    """Goyal et al.: 0.1 at 256 images is 3.2 at 8192; 16k was worse."""
    assert linear(0.1, 32, past_critical=False).value == pytest.approx(3.2)
    assert linear(0.1, 32, past_critical=False).warning is None
    assert linear(0.1, 64, past_critical=False).warning is not None
    assert "critical" in str(linear(0.1, 2, past_critical=True).warning)


def test_square_root_moves_betas_and_epsilon_with_the_rate() -> None:
    moved = square_root(SETTING, 3e-4, 4.0, past_critical=False)
    assert named(moved, "learning_rate").value == pytest.approx(6e-4)
    assert named(moved, "beta1").value == pytest.approx(0.6)
    assert named(moved, "beta2").value == pytest.approx(0.8)
    assert named(moved, "epsilon").value == pytest.approx(5e-9)
    assert all(entry.warning for entry in square_root(SETTING, 3e-4, 4.0, past_critical=True))


def test_square_root_has_no_beta_where_nothing_would_be_remembered() -> None:
    beta1 = named(square_root(SETTING, 3e-4, 16.0, past_critical=False), "beta1")
    assert beta1.value is None
    assert beta1.warning is not None


@given(ratios, ratios)
def test_square_root_of_two_moves_is_that_of_their_product(first: float, second: float) -> None:
    once = square_root(SETTING, 1e-3, first * second, past_critical=False)
    rate = square_root(SETTING, 1e-3, first, past_critical=False)[0].value
    assert rate is not None
    twice = square_root(SETTING, rate, second, past_critical=False)
    assert twice[0].value == pytest.approx(once[0].value)


def test_small_batches_grow_threefold_over_1024() -> None:
    moved = small_batch(1.7e-3, 1024, 1024 * 512)
    assert moved.value == pytest.approx(5.1e-3)
    assert moved.warning is None
    assert small_batch(1.7e-3, 4096, 4096 * 512).warning is not None


def test_the_two_rules_for_adam_disagree_tenfold_over_1024() -> None:
    """The square root says 32, the measurement 3."""
    root = square_root(SETTING, 1.0, 1024, past_critical=False)[0].value
    measured = small_batch(1.0, 1024, 1e5).value
    assert root is not None
    assert measured is not None
    assert root / measured == pytest.approx(32 / 3)


def best_rates() -> dict[str, np.ndarray]:
    with (TABLES / "small_batch_lm" / "best_by_batch_size.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {
        "batch_tokens": np.array([512 * float(row["batch_size_sequences"]) for row in rows]),
        "learning_rate": np.array([float(row["lr"]) for row in rows]),
    }


def test_surge_finds_the_peak_of_a_measured_grid_and_falls_behind_it() -> None:
    """Marek et al. tuned 1 to 4096 sequences: the best rate is at 256 of them, lower at 64 and at 1024."""
    grid = best_rates()
    kept = {name: column[2:] for name, column in grid.items()}
    fit = fit_law(Surge, kept, kept["learning_rate"], options=FitOptions(draws=50))
    peak = fit.law.B_noise
    assert 64 * 512 < peak < 1024 * 512
    down = surge(7e-3, 256 * 512, 2048 * 512, fit)
    assert down.value is not None
    assert down.value < 7e-3
    assert down.warning is None
    assert surge(7e-3, 256 * 512, 1e8, fit).warning is not None


@given(st.floats(1e3, 1e8), ratios)
def test_surge_is_symmetric_about_its_peak_and_never_above_it(noise: float, ratio: float) -> None:
    law = Surge(lr_max=1e-3, B_noise=noise)
    assert law.relative_rate(noise * ratio) == pytest.approx(law.relative_rate(noise / ratio))
    assert law.relative_rate(noise * ratio) <= 1 + 1e-12


def test_surge_far_below_the_peak_is_the_square_root() -> None:
    law = Surge(lr_max=1e-3, B_noise=1e9)
    assert law.relative_rate(4e3) / law.relative_rate(1e3) == pytest.approx(2, rel=1e-4)


@given(st.floats(0.9, 0.9999), st.floats(1e-2, 10))
def test_half_life_in_tokens_stays(beta: float, factor: float) -> None:
    moved = beta2_half_life(beta, factor)
    assert moved.value is not None
    assert math.log(0.5) / math.log(moved.value) * factor == pytest.approx(math.log(0.5) / math.log(beta))


def test_second_moment_of_single_sequences() -> None:
    """Marek et al.: 0.95 at 512 sequences is 0.9999 at one."""
    assert beta2_half_life(0.95, 1 / 512).value == pytest.approx(0.9999, abs=1e-6)
    assert beta2_half_life(0.95, 64).warning is not None


def test_average_of_weights() -> None:
    """Busbridge et al.: 0.9999 at 1024 is 0.9999^8 at 8192."""
    assert ema_half_life(0.9999, 8).value == pytest.approx(0.9999**8)


@given(st.floats(0.5, 0.99), st.floats(1e-3, 1.0))
def test_momentum_keeps_the_weight_of_a_sample(beta: float, factor: float) -> None:
    beta1, rate = momentum(0.1, beta, factor)
    assert beta1.value is not None
    assert rate.value is not None
    assert rate.value / (factor * (1 - beta1.value)) == pytest.approx(0.1 / (1 - beta))


def test_momentum_down_to_one_image() -> None:
    """Kosson et al.: 0.9 and 0.1 at 128 images are 0.99918 and 6.43e-6 at one."""
    beta1, rate = momentum(0.1, 0.9, 1 / 128)
    assert beta1.value == pytest.approx(0.9 ** (1 / 128))
    assert rate.value == pytest.approx(0.1 / 128 * (1 - 0.9 ** (1 / 128)) / 0.1)


@given(ratios, ratios, ratios)
def test_timescale_stays(batch: float, rate: float, tokens: float) -> None:
    moved = constant_timescale(SETTING, 5e5 * batch, 3e-4 * rate, 2e10 * tokens)
    assert moved is not None
    assert moved.value is not None
    before = timescale(5e5, 3e-4, 0.1, 2e10)
    assert timescale(5e5 * batch, 3e-4 * rate, moved.value, 2e10 * tokens) == pytest.approx(before)


def test_timescale_power_law_at_twenty_tokens_a_parameter() -> None:
    """Bergsma et al.: tau falls as (D/N)^-0.527, so that 16 times the tokens a parameter remember 4.3 times less."""
    moved = timescale_power_law(SETTING, 5e5, 3e-4, 1e9, 3.2e11)
    assert moved is not None
    assert moved.value is not None
    ratio = timescale(5e5, 3e-4, 0.1, 2e10) / timescale(5e5, 3e-4, moved.value, 3.2e11)
    assert ratio == pytest.approx(16**0.527)


def test_without_weight_decay_nothing_is_moved() -> None:
    plain = Setting(batch_tokens=5e5, learning_rate=3e-4, params=1e9, tokens=2e10)
    assert constant_timescale(plain, 1e6, 3e-4, 2e10) is None
    assert timescale_power_law(plain, 1e6, 3e-4, 1e9, 2e10) is None


def test_width_keeps_rate_times_decay_of_hidden_matrices() -> None:
    moved = {entry.quantity: entry.value for entry in width_transfer(SETTING, 4096)}
    assert moved["learning_rate_vectors"] == 3e-4
    assert moved["learning_rate_hidden"] == pytest.approx(3e-4 / 4)
    assert moved["learning_rate_hidden"] * moved["weight_decay_hidden"] == pytest.approx(3e-4 * 0.1)  # type: ignore[operator]
    assert [group.multiplier for group in width_groups(1024, 4096)] == [1.0, 0.25, 1.0]


def test_published_slopes_move_a_setting() -> None:
    batch = {m.rule.split(":")[0]: m.value for m in scale_by_published(SETTING, 4e9, 8e10, "batch_tokens")}
    assert batch["StepLaw"] == pytest.approx(5e5 * 4**0.571)
    assert batch["DeepSeek"] == pytest.approx(5e5 * 16**0.3271)
    assert batch["Porian"] == pytest.approx(5e5 * 4**0.703)
    rates = {m.rule.split(":")[0]: m.value for m in scale_by_published(SETTING, 4e9, 8e10, "learning_rate")}
    assert rates["StepLaw"] == pytest.approx(3e-4 * 4 ** (0.307 - 0.713))
    assert rates["DiLoCo data-parallel"] == pytest.approx(3e-4 * 4**-0.819)


def test_a_target_outside_the_measured_range_is_warned_about() -> None:
    far = scale_by_published(SETTING, 7e10, 1.4e12, "batch_tokens")
    assert all("target" in str(entry.warning) for entry in far)


def test_fewer_updates_are_said_with_the_tokens_that_would_keep_them() -> None:
    moved = same_updates(SETTING.steps, 1e6, 2e10)
    assert moved.value == pytest.approx(4e10)
    assert "20000 updates instead of 40000" in str(moved.warning).replace("2e+04", "20000").replace(
        "4e+04", "40000"
    )
    assert least_updates(0.95) == pytest.approx(200)


def test_optimizers() -> None:
    assert change_optimizer(1e-3, "adamw", "muon").value == 1e-3
    lion = change_optimizer(1e-3, "adamw", "lion")
    assert lion.low == pytest.approx(1e-4)
    assert lion.high == pytest.approx(1e-3 / 3)
    assert change_optimizer(1e-3, "sgd", "adamw").value is None
    with pytest.raises(DataError, match="adamw"):
        change_optimizer(1e-3, "adamv", "adamw")


def test_every_rule_cites_the_catalogue() -> None:
    moved = [
        linear(0.1, 2, past_critical=False), *square_root(SETTING, 1e-3, 2, past_critical=False),
        small_batch(1e-3, 2, 1e5), beta2_half_life(0.95, 2), ema_half_life(0.999, 2), *momentum(0.1, 0.9, 0.5),
        *width_transfer(SETTING, 2048), same_updates(1e4, 1e6, 1e10),
        *scale_by_published(SETTING, 2e9, 4e10, "batch_tokens"), change_optimizer(1e-3, "adamw", "muon"),
    ]  # fmt: skip
    assert {entry.source for entry in moved} <= set(sources())


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_tokens": 0.0},
        {"learning_rate": math.inf},
        {"beta2": 1.0},
        {"batch_tokens": 1e11},
        {"tokens": -1.0},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(PlanError, match="good setting"):
        Setting(**{"batch_tokens": 5e5, "learning_rate": 3e-4, "params": 1e9, "tokens": 2e10, **wrong})  # type: ignore[arg-type]
