"""Approaches 1, 2 and 3 on the same runs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from scalecli.fitters.fit import FitOptions, fit_law
from scalecli.fitters.laws.chinchilla import Chinchilla
from scalecli.fitters.laws.isoflop import IsoFlop
from scalecli.fitters.laws.power_floor import PowerFloor

LAW = Chinchilla(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.32)
OPTIONS = FitOptions(draws=100)
ALL = {"chinchilla", "envelope", "isoflop", "isoflop-cubic"}


def _isoflops(noise: float) -> tuple[dict[str, np.ndarray], np.ndarray]:
    flops = np.repeat(np.geomspace(1e18, 1e21, 9), 13)
    params = LAW.optimal_params(flops) * np.tile(np.geomspace(1 / 16, 16, 13), 9)
    params = np.power(10.0, np.round(np.log10(params), 1))  # a ladder of sizes: the same at every budget
    x = {"flops": flops, "params": params, "tokens": flops / 6 / params}
    return x, LAW.predict(x) * np.exp(noise * np.random.default_rng(0).standard_normal(len(flops)))


def test_all_four_find_the_optimum_of_clean_runs() -> None:
    x, loss = _isoflops(noise=0.0005)
    fit = fit_law(Chinchilla, {name: x[name] for name in Chinchilla.inputs}, loss, options=OPTIONS)
    answers = {answer["law"]: answer for answer in fit.diagnostics["approaches"]}
    assert set(answers) == ALL
    for answer in answers.values():
        assert answer["flops"] == pytest.approx(1e22)
        best = answer["optimal_params"]
        assert best["value"] == pytest.approx(LAW.optimal_params(1e22), rel=0.12)
        assert best["low"] <= best["value"] <= best["high"]
        assert answer["exponent"] == pytest.approx(LAW.beta / (LAW.alpha + LAW.beta), abs=0.02)


def test_a_procedure_is_shown_beside_the_joint_fit() -> None:
    x, loss = _isoflops(noise=0.0005)
    fit = fit_law(IsoFlop, {name: x[name] for name in IsoFlop.required}, loss, options=OPTIONS)
    assert {answer["law"] for answer in fit.diagnostics["approaches"]} == ALL


def test_disagreement_is_a_warning_with_the_factor(public: Callable[[str], pd.DataFrame]) -> None:
    """Kaplan's cosine with whole-model FLOPs (Porian et al. 2024): the joint law and the vertices part ways."""
    points = public("porian_openwebtext2/isoflop_points.csv")
    points = points[(points.warmup == "long") & (points.flop_count == "standard")]
    x = {name: points[name].to_numpy(float) for name in Chinchilla.inputs}
    fit = fit_law(Chinchilla, x, points.loss.to_numpy(), groups=points.params.to_numpy(), options=OPTIONS)
    sizes = [answer["optimal_params"]["value"] for answer in fit.diagnostics["approaches"]]
    assert sizes == sorted(sizes)
    (warning,) = [notice.message for notice in fit.warnings if notice.code == "W-APPROACHES-DISAGREE"]
    assert f"a factor {sizes[-1] / sizes[0]:.3g}" in warning
    assert "chinchilla and isoflop" in warning


def test_runs_without_budgets_leave_only_those_that_can_answer() -> None:
    random = np.random.default_rng(0)
    x = {"params": np.exp(random.uniform(17, 23, 60)), "tokens": np.exp(random.uniform(20, 26, 60))}
    fit = fit_law(Chinchilla, x, LAW.predict(x), options=OPTIONS)
    assert "isoflop" not in {answer["law"] for answer in fit.diagnostics["approaches"]}


def test_laws_of_one_column_have_no_best_size() -> None:
    x = {"params": np.geomspace(1e6, 1e9, 12)}
    fit = fit_law(PowerFloor, x, 1.7 + 400 * x["params"] ** -0.34, options=OPTIONS)
    assert fit.diagnostics["approaches"] == []
