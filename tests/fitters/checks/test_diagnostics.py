"""Diagnostics find faults that were put there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from scalecli.fitters.fit import Fit, FitOptions, fit_law
from scalecli.fitters.law import names
from scalecli.fitters.laws.chinchilla import Chinchilla
from scalecli.fitters.laws.power import Power
from scalecli.fitters.objective import LossName, RowLoss, row_loss
from scalecli.fitters.problem import Data
from scalecli.fitters.solver import solve

OPTIONS = FitOptions(draws=150)
HUBER = row_loss(LossName.huber, 1e-3)


def codes(fit: Fit) -> set[str]:
    return {notice.code for notice in fit.warnings}


@pytest.fixture(scope="module")
def good(runs: Any) -> Fit:
    x, y, model = runs
    return fit_law(Chinchilla, x, y, groups=model, options=OPTIONS)


def alone(x: dict[str, Any], y: Any, loss: RowLoss = HUBER) -> dict[str, float]:
    """The parameters of a fit from scratch."""
    return dict(
        zip(names(Chinchilla), solve(Chinchilla, Data(x, y, np.ones(len(y))), loss, {}).raw, strict=True)
    )


def test_good_runs_raise_no_alarm(good: Fit) -> None:
    assert not codes(good) & {"W-UNDER-TUNED", "W-FRAGILE", "W-ILL-CONDITIONED", "W-AT-BOUND"}
    headline = good.diagnostics["headline"]
    assert headline["low"] < headline["value"] < headline["high"]
    assert "tokens per parameter" in headline["name"]


def test_a_wrong_size_is_the_most_influential_run(make_runs: Callable[..., Any]) -> None:
    """The Huber loss does not protect against a wrong N: its run is found by leaving it out."""
    x, y, model = make_runs(rows=60, models=12, shared=0.001, own=0.001)
    wrong = int(np.argmax(x["params"] * x["tokens"]))
    x = x | {"params": x["params"].copy()}
    x["params"][wrong] /= 1000
    fit = fit_law(Chinchilla, x, y, groups=model, options=OPTIONS)
    assert fit.diagnostics["row_left_out"][0]["row"] == str(wrong + 1)


def test_under_tuned_group_is_named(runs: Any) -> None:
    x, y, model = runs
    y = np.where(model == 4, y * 1.06, y)
    fit = fit_law(Chinchilla, x, y, groups=model, options=OPTIONS)
    (group,) = fit.diagnostics["under_tuned"]
    assert group["group"] == "4"
    assert group["excess"] == pytest.approx(0.06, abs=0.02)
    assert "W-UNDER-TUNED" in codes(fit)


def test_large_losses_that_bend_the_fit_are_told(runs: Any) -> None:
    """Runs far from the others in both columns decide the answer; dropping them shows it."""
    x, y, _ = runs
    odd = np.argsort(-y)[:3]
    y = y.copy()
    y[odd] *= 1.25
    fit = fit_law(Chinchilla, x, y, options=FitOptions(draws=150, loss="least-squares"))
    path = {step["dropped"]: step["headline"] for step in fit.diagnostics["largest_dropped"]}
    assert set(path) == {1, 3, 5, 10, 20}
    clean = fit_law(Chinchilla, x, runs[1], options=FitOptions(draws=0, loss="least-squares"))
    told, true = fit.diagnostics["headline"]["value"], clean.diagnostics["headline"]["value"]
    assert abs(np.log(path[3] / true)) < 0.3 * abs(np.log(told / true))


def test_flatness_is_the_range_of_near_optimal_sizes(good: Fit) -> None:
    for row in good.diagnostics["flatness"]:
        least = good.law.predict(
            {"params": row["optimal_params"], "tokens": row["flops"] / 6 / row["optimal_params"]}
        )
        for edge in row["params"]:
            excess = good.law.predict({"params": edge, "tokens": row["flops"] / 6 / edge}) / least - 1
            assert excess == pytest.approx(row["loss_excess"], rel=0.1)


def test_sensitivity_to_delta_is_the_fit_at_that_delta(good: Fit, runs: Any) -> None:
    x, y, _ = runs
    for row in good.diagnostics["delta"]:
        loss = HUBER.with_delta(row["delta"] or np.inf)
        assert row["parameters"]["alpha"] == pytest.approx(alone(x, y, loss)["alpha"], abs=1e-4)


def test_left_out_group_is_the_fit_without_it(good: Fit, runs: Any) -> None:
    x, y, model = runs
    row = good.diagnostics["group_left_out"][0]
    rest = model != int(row["group"])
    found = alone({name: column[rest] for name, column in x.items()}, y[rest])
    assert row["parameters"]["E"] == pytest.approx(found["E"], rel=1e-5)
    assert len(good.diagnostics["group_left_out"]) == 5


def test_parameters_that_are_not_told_apart_are_named() -> None:
    """Tokens that vary by half only: beta and B trade against the floor."""
    random = np.random.default_rng(0)
    size = np.exp(random.uniform(np.log(1e7), np.log(1e10), 80))
    x = {"params": size, "tokens": 1e10 * np.exp(0.2 * random.uniform(-1, 1, 80))}
    y = Chinchilla(E=1.8, A=400.0, B=2000.0, alpha=0.34, beta=0.36).predict(x)
    fit = fit_law(Chinchilla, x, y * np.exp(0.002 * random.standard_normal(80)), options=OPTIONS)
    assert "the runs leave beta open" in " ".join(notice.message for notice in fit.warnings)
    assert fit.status.value == "at_bound"


def test_one_column_laws_watch_the_prediction_ahead() -> None:
    size = np.geomspace(1e7, 1e10, 20)
    y = 12 * size**-0.08 * np.exp(0.002 * np.random.default_rng(0).standard_normal(20))
    fit = fit_law(Power, {"params": size}, y, options=OPTIONS)
    headline = fit.diagnostics["headline"]
    assert headline["name"] == "loss at 10 times the largest scale"
    assert headline["value"] == pytest.approx(fit.law.predict({"params": np.array([1e11])})[0])
    assert fit.diagnostics["flatness"] == []
