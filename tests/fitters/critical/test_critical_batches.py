"""Critical batches from steps to targets, on problems whose critical batch is known in closed form."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from scalecli.data.tables import RunTable, read_runs
from scalecli.errors import DataError
from scalecli.fitters.critical.argmin import fewest_samples
from scalecli.fitters.critical.definitions import OVERHEAD, SATURATED
from scalecli.fitters.critical.hyperbola import CriticalAt, critical_at
from scalecli.fitters.critical.report import critical_batches
from scalecli.fitters.critical.steps import StepsToTarget, steps_to_targets
from scalecli.fitters.fit import FitOptions, Interval, fit_law
from scalecli.fitters.laws.critical_batch_loss import CriticalBatchLoss
from scalecli.fitters.laws.critical_batch_params_tokens import CriticalBatchParamsTokens
from scalecli.fitters.laws.noise_scale import NoiseScale


def table_of(tmp_path: Path, rows: list[dict[str, Any]]) -> RunTable:
    path = tmp_path / "steps.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return read_runs(path)


def hyperbola_rows(
    s_min: float, b_crit: float, loss: float, noise: float = 0.0, seed: int = 0
) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    return [
        {
            "loss": loss,
            "batch_tokens": batch,
            "steps": s_min * (1 + b_crit / batch) * math.exp(noise * random.normal()),
            "schedule": "constant",
        }
        for batch in np.geomspace(2**11, 2**19, 9)
    ]


def quadratic_steps(
    batch: float, *, dimension: int, noise: float, start: float, end: float, seed: int
) -> int:
    """Steps of SGD on |w|^2 / 2 whose gradients have covariance noise/dimension, at a twentieth of the best rate.

    With the noise scale B(L) = noise / 2L known at every step, the best rate is 1 / (1 + B(L) / batch).
    """
    random = np.random.default_rng(seed)
    weight = np.full(dimension, math.sqrt(2 * start / dimension))
    steps, scatter = 0, math.sqrt(noise / dimension / batch)
    while (loss := 0.5 * float(weight @ weight)) > end:
        rate = 0.05 / (1 + noise / (2 * loss) / batch)
        weight = weight - rate * (weight + scatter * random.normal(size=dimension))
        steps += 1
    return steps


@pytest.mark.parametrize(("start", "end"), [(8.0, 1.0), (4.0, 0.5)])
def test_a_quadratic_with_known_noise_scale(start: float, end: float) -> None:
    """dS = -dL / 2L (1 + B(L) / B) integrates to the hyperbola, with B_crit a mean of the noise scale on the way; at
    the share r of the best rate S_min is smaller by 1 - r + r^2 / 2, and B_crit larger."""
    noise = 4000.0
    critical = noise / 2 * (1 / end - 1 / start) / math.log(start / end) / (1 - 0.05 + 0.05**2 / 2)
    batches = np.geomspace(critical / 16, critical * 16, 9)
    steps = [
        np.mean(
            [quadratic_steps(b, dimension=400, noise=noise, start=start, end=end, seed=s) for s in range(2)]
        )
        for b in batches
    ]
    found = critical_at(StepsToTarget(end, batches, np.array(steps), None))
    assert found.identified, found.reason
    assert_inside(critical, found.B_crit)
    assert found.S_min is not None
    assert found.S_min.value == pytest.approx(math.log(start / end) / (2 * 0.05), rel=0.1)


def assert_inside(truth: float, found: Interval | None) -> None:
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low <= truth <= found.high
    assert found.high < 1.1 * found.low


def regression_steps(batch: int, dimension: int, target: float, seed: int) -> float:
    """Steps of SGD on noise-free linear regression with Gaussian inputs, at a tenth of its best rate; the last one in
    part, as far as the loss had to fall."""
    random = np.random.default_rng(seed)
    weight = np.full(dimension, 1 / math.sqrt(dimension))
    rate = 0.1 / (1 + (dimension + 1) / batch)
    steps, loss, before = 0, 1.0, 1.0
    while loss > target:
        inputs = random.normal(size=(batch, dimension))
        weight = weight - rate * inputs.T @ (inputs @ weight) / batch
        steps, loss, before = steps + 1, float(weight @ weight), loss
    return steps - math.log(target / loss) / math.log(before / loss)


def test_linear_regression_with_known_critical_batch() -> None:
    """E|w|^2 falls by 1 - 2r + r^2 (1 + (d + 1) / B) a step: with r a tenth of the best, B_crit = (d + 1) / 0.905."""
    dimension = 60
    batches = np.array([4, 8, 16, 32, 64, 128, 256, 512, 1024])
    steps = [np.mean([regression_steps(int(b), dimension, 0.05, s) for s in range(3)]) for b in batches]
    found = critical_at(StepsToTarget(0.05, batches.astype(float), np.array(steps), None))
    assert found.identified, found.reason
    assert_inside((dimension + 1) / 0.905, found.B_crit)


def test_several_targets_give_the_law_over_the_loss(tmp_path: Path) -> None:
    truth = CriticalBatchLoss(B_star=1e7, alpha=0.25)
    losses = [3.6, 3.4, 3.2, 3.0, 2.9, 2.8]
    rows = [
        row
        for loss in losses
        for row in hyperbola_rows(1e3 / loss, float(truth.predict({"loss": np.array([loss])})[0]), loss, 0.01)
    ]
    document = critical_batches(table_of(tmp_path, rows))
    assert [target["loss"] for target in document["targets"]] == losses
    assert all(target["status"] == "identified" for target in document["targets"])
    found = document["rows"]
    fit = fit_law(
        CriticalBatchLoss,
        {"loss": np.array([row["loss"] for row in found])},
        np.array([row["critical_batch_tokens"] for row in found]),
        options=FitOptions(draws=20),
    )
    assert fit.law.alpha == pytest.approx(0.25, rel=0.1)
    # at the hyperbola's least tokens
    assert found[0]["tokens"] == pytest.approx(1e3 / 3.6 * found[0]["critical_batch_tokens"], rel=0.1)


def test_sizes_are_measured_apart_and_give_the_law_over_size_and_tokens(tmp_path: Path) -> None:
    """B_crit = 5 N^0.1 D^0.5 at the tokens of each target; the same losses at three sizes are no common curve."""
    rows = []
    for params in (1e6, 4e6, 1.6e7):
        for tokens, loss in ((1e8, 3.4), (4e8, 3.0), (1.6e9, 2.8)):
            critical = 5 * params**0.1 * tokens**0.5
            rows += [
                row | {"params": params} for row in hyperbola_rows(tokens / critical, critical, loss, 0.003)
            ]
    document = critical_batches(table_of(tmp_path, rows))
    assert len(document["targets"]) == 9
    found = document["rows"]
    assert {row["params"] for row in found} == {1e6, 4e6, 1.6e7}
    fit = fit_law(
        CriticalBatchParamsTokens,
        {name: np.array([row[name] for row in found]) for name in ("params", "tokens")},
        np.array([row["critical_batch_tokens"] for row in found]),
        options=FitOptions(draws=20),
    )
    assert (fit.law.a, fit.law.b) == pytest.approx((0.1, 0.5), abs=0.02)


def test_every_figure_stores_its_definition_and_they_differ(tmp_path: Path) -> None:
    (target,) = critical_batches(table_of(tmp_path, hyperbola_rows(1e3, 4e4, 3.0)))["targets"]
    figures = {figure["definition"].split(":")[0]: figure for figure in target["critical"]}
    assert figures["hyperbola"]["tokens"] == pytest.approx(4e4, rel=1e-3)
    assert figures["20 % overhead"]["tokens"] == pytest.approx(0.2 * 4e4 + 1.2 * 2**11, rel=1e-3)
    assert "argmin of samples" not in figures  # the hyperbola has none inside


@pytest.mark.parametrize(("b_crit", "says"), [(1e8, "add larger"), (50.0, "add smaller")])
def test_batches_on_one_side_identify_nothing_and_say_where_to_add(
    b_crit: float, says: str, tmp_path: Path
) -> None:
    (target,) = critical_batches(table_of(tmp_path, hyperbola_rows(1e3, b_crit, 3.0, 0.01)))["targets"]
    assert target["status"] == "not identified"
    assert says in target["reason"]
    assert not [figure for figure in target["critical"] if figure["definition"].startswith("hyperbola")]


def test_one_batch_size_identifies_nothing() -> None:
    found = critical_at(StepsToTarget(3.0, np.array([1e5]), np.array([1e3]), None))
    assert isinstance(found, CriticalAt)
    assert not found.identified


def test_intervals_cover_the_truth() -> None:
    """Of 400 noisy worlds, 90 % intervals hold B_crit in 85 to 95 %; so do those of S_min and E_min."""
    batches, held = np.geomspace(2**11, 2**19, 9), np.zeros(3)
    for seed in range(400):
        noise = np.exp(0.05 * np.random.default_rng(seed).normal(size=9))
        steps = 1e3 * (1 + 4e4 / batches) * noise
        found = critical_at(StepsToTarget(3.0, batches, steps, None), draws=500)
        for index, (interval, truth) in enumerate(
            ((found.B_crit, 4e4), (found.S_min, 1e3), (found.E_min, 4e7))
        ):
            assert interval is not None
            assert interval.low is not None
            assert interval.high is not None
            held[index] += interval.low <= truth <= interval.high
    assert (held / 400 > 0.85).all(), held / 400
    assert (held / 400 < 0.95).all(), held / 400


def test_decays_of_fixed_horizon_are_refused(tmp_path: Path) -> None:
    rows = [row | {"schedule": "cosine"} for row in hyperbola_rows(1e3, 4e4, 3.0)]
    with pytest.raises(DataError, match="cosine"):
        steps_to_targets(table_of(tmp_path, rows))


def test_an_unknown_schedule_is_said(tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k != "schedule"} for row in hyperbola_rows(1e3, 4e4, 3.0)]
    assert "W-SCHEDULE-UNKNOWN" in [n.code for n in steps_to_targets(table_of(tmp_path, rows))[1]]


def test_final_losses_are_no_targets(tmp_path: Path) -> None:
    rows = [row | {"loss": 3.0 + 0.01 * i} for i, row in enumerate(hyperbola_rows(1e3, 4e4, 3.0))]
    with pytest.raises(DataError, match="share their target"):
        steps_to_targets(table_of(tmp_path, rows))


def test_the_best_rate_is_chosen_and_an_edge_is_told(tmp_path: Path) -> None:
    rows = []
    for row in hyperbola_rows(1e3, 4e4, 3.0):
        for rate, slower in ((1e-3, 1.3), (2e-3, 1.0), (4e-3, 1.2)):
            rows.append(row | {"learning_rate": rate, "steps": row["steps"] * slower})
    (found,), notices = steps_to_targets(table_of(tmp_path, rows))
    assert found.unbracketed == ()
    assert found.steps == pytest.approx([1e3 * (1 + 4e4 / b) for b in found.batch_tokens])
    assert [notice.code for notice in notices] == ["W-ONE-SEED"]
    lower = [row for row in rows if row["learning_rate"] < 4e-3 or row["batch_tokens"] > 1e5]
    (found,), notices = steps_to_targets(table_of(tmp_path, lower))
    assert len(found.unbracketed or ()) == 6
    assert [notice.code for notice in notices] == ["W-RATE-EDGE", "W-ONE-SEED"]
    (seeded,), notices = steps_to_targets(table_of(tmp_path, [*rows, *rows[:3]]))
    assert seeded.seeded
    assert not notices


def test_argmin_of_samples_of_two_time_scales() -> None:
    """K(B) = A B / (B - c) has its fewest samples at 2 c (Sato and Iiduka 2022)."""
    batches = np.geomspace(64, 2048, 11)
    assert fewest_samples(batches, 1e4 * batches / (batches - 50)) == pytest.approx(100, rel=0.05)
    assert fewest_samples(batches, 1e3 * (1 + 500 / batches)) is None


def test_the_noise_scale_is_a_ratio_beside_the_critical_batch(tmp_path: Path) -> None:
    rows = [row | {"noise_scale_tokens": 400.0} for row in hyperbola_rows(1e3, 4e4, 3.0)]
    (target,) = critical_batches(table_of(tmp_path, rows))["targets"]
    assert target["noise_scale_over_critical"] == pytest.approx(0.01, rel=0.01)


def test_regimes_begin_and_end_where_a_fifth_is_lost(tmp_path: Path) -> None:
    """Steps at the end of linear scaling, and where no larger batch saves more than a sixth of them."""
    document = critical_batches(table_of(tmp_path, hyperbola_rows(1000.0, 4e4, loss=3.0)))
    by_definition = {each["definition"]: each["tokens"] for each in document["targets"][0]["critical"]}

    def steps(batch: float) -> float:
        return 1000.0 * (1 + 4e4 / batch)

    base = 2.0**11
    linear, flat = by_definition[OVERHEAD], by_definition[SATURATED]
    assert steps(linear) == pytest.approx(1.2 * steps(base) * base / linear, rel=1e-3)
    assert steps(flat) == pytest.approx(1.2 * 1000.0, rel=1e-3)


def test_a_law_of_the_noise_scale_gives_the_ratio_with_its_interval(tmp_path: Path) -> None:
    losses = np.linspace(2.5, 4.0, 12)
    noisy = NoiseScale(B_star=1e5, alpha=0.25).predict({"loss": losses})
    noisy *= np.exp(0.05 * np.random.default_rng(0).normal(size=12))
    law = fit_law(NoiseScale, {"loss": losses}, noisy, options=FitOptions(draws=100))
    (target,) = critical_batches(table_of(tmp_path, hyperbola_rows(1e3, 4e4, 3.0)), noise=law)["targets"]
    scale = target["noise_scale_tokens"]
    assert scale["low"] < 1e5 / 3.0**4 < scale["high"]
    assert target["noise_scale_over_critical"] == pytest.approx(1e5 / 3.0**4 / 4e4, rel=0.1)
    other = fit_law(CriticalBatchLoss, {"loss": losses}, noisy, options=FitOptions(draws=0))
    with pytest.raises(DataError, match="noise scale"):
        critical_batches(table_of(tmp_path, hyperbola_rows(1e3, 4e4, 3.0)), noise=other)
