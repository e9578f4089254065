"""Published results from public runs (sources and recipes: the READMEs in tests/data)."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest

from scalecli.fitters.fit import FitOptions, fit_law
from scalecli.fitters.laws.chinchilla import Chinchilla
from scalecli.fitters.laws.chinchilla_tied import ChinchillaTied
from scalecli.fitters.laws.power import Power
from scalecli.fitters.objective import LossName, row_loss
from scalecli.fitters.problem import Data
from scalecli.fitters.solver import solve

Public = Callable[[str], pd.DataFrame]


def test_gadre_recipe(public: Public) -> None:
    """E + a N^-alpha + b 6^(-alpha/2) (M N)^-alpha, least squares on five points: four sizes at M = 20, and 10.6M at
    320. M N are the tokens, so this is Chinchilla with tied exponents and B = b 6^(-alpha/2)."""
    frame = public("gadre_c4_small/runs.csv")
    ratio = frame["tokens_per_param"].round()
    smallest = frame["params"] == frame["params"].min()
    five = frame[(ratio == 20) | (smallest & (ratio == 320))]
    assert len(five) == 5
    y = five["loss_c4_val"].to_numpy()
    x = {name: five[name].to_numpy(dtype=float) for name in ("params", "tokens")}
    # weights y^2 turn residuals of the logarithm into those of the loss itself, which the authors fitted
    found = solve(ChinchillaTied, Data(x, y, y**2), row_loss(LossName.least_squares, 1.0), {})
    floor, size_scale, data_scale, alpha = found.raw
    assert [floor, size_scale, data_scale * 6 ** (alpha / 2), alpha] == pytest.approx(
        [1.508, 113.7, 189.5, 0.2425], rel=5e-3
    )


def test_free_chinchilla_on_all_runs(public: Public) -> None:
    frame = public("gadre_c4_small/runs.csv")
    x = {name: frame[name].to_numpy(dtype=float) for name in ("params", "tokens")}
    fit = fit_law(
        Chinchilla,
        x,
        frame["loss_c4_val"].to_numpy(),
        groups=frame["params"].to_numpy(),
        options=FitOptions(draws=200),
    )
    parameters = fit.document()["parameters"]
    published = {"E": 1.137, "A": 51.2, "alpha": 0.187, "B": 221.0, "beta": 0.256}
    for name, value in published.items():
        assert parameters[name]["value"] == pytest.approx(value, rel=5e-3)
    assert "W-FEW-GROUPS" in {notice.code for notice in fit.warnings}


def test_clark_dense_law(public: Public) -> None:
    """L = (N / N_c)^-alpha over the five dense sizes that are public: alpha 0.081."""
    frame = public("routed_lm/curves.csv")
    dense = frame[(frame["router_type"] == "Dense") & (frame["flop_increase"] == 1)]
    last = dense.sort_values("step").groupby("run").tail(1)
    mean = last.groupby("params_active")["loss_validation"].mean()
    x = {"params": mean.index.to_numpy(dtype=float)}
    fit = fit_law(Power, x, mean.to_numpy(), options=FitOptions(loss="least-squares", draws=100))
    assert fit.law.alpha == pytest.approx(0.081, abs=5e-4)
