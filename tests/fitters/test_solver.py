"""The search: exact derivatives, the best minimum, and the traps that other fitters fall into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import linprog, minimize
from scipy.special import huber

from scalecli.errors import FitError
from scalecli.fitters.generic import GenericProblem
from scalecli.fitters.law import Array, names, values
from scalecli.fitters.laws.chinchilla import Chinchilla
from scalecli.fitters.laws.gadre import Gadre
from scalecli.fitters.laws.kaplan import Kaplan
from scalecli.fitters.laws.power import Power
from scalecli.fitters.laws.power_floor import PowerFloor
from scalecli.fitters.newton import minimise
from scalecli.fitters.objective import LossName, row_loss
from scalecli.fitters.power_sum import PowerSumProblem
from scalecli.fitters.problem import Data, Problem, Targets, expand
from scalecli.fitters.solver import SEARCH_ROWS, solve

HUBER = row_loss(LossName.huber, 1e-3)
HOFFMANN = [*np.log([1.69, 406.4, 410.7]), 0.34, 0.28]
"""Published constants of approach 3, at which searches are started that then go nowhere."""


def table(runs: Any) -> Data:
    x, y, _ = runs
    return Data(x, y, np.ones(len(y)))


def copied_procedure(data: Data, start: list[float], *, mean: bool) -> Array:
    """The notebook that is copied everywhere: Huber(1e-3) of logsumexp by L-BFGS-B with finite differences."""
    log_n, log_d, log_y = np.log(data.x["params"]), np.log(data.x["tokens"]), np.log(data.y)

    def objective(theta: Array) -> float:
        e, a, b, alpha, beta = theta
        prediction = np.logaddexp(e, np.logaddexp(a - alpha * log_n, b - beta * log_d))
        rows = huber(1e-3, prediction - log_y)
        return float(rows.mean() if mean else rows.sum())

    found = minimize(objective, start, method="L-BFGS-B").x
    rows = huber(
        1e-3,
        np.logaddexp(found[0], np.logaddexp(found[1] - found[3] * log_n, found[2] - found[4] * log_d))
        - log_y,
    )
    return np.append(found, rows.sum())


@pytest.mark.parametrize("build", [PowerSumProblem.build, GenericProblem.build])
@pytest.mark.parametrize("law", [Chinchilla(E=1.7, A=400.0, B=900.0, alpha=0.3, beta=0.3)])
@pytest.mark.parametrize("name", list(LossName))
def test_expansion_is_the_derivative(
    build: Callable[..., Problem], law: Any, name: LossName, runs: Any
) -> None:
    data = table(runs)
    problem = build(type(law), data, row_loss(name, 1e-2), {})
    theta = problem.from_raw(values(law)[None])
    np.testing.assert_allclose(problem.to_raw(theta)[0], values(law), rtol=1e-12)
    one = np.zeros(1, dtype=np.intp)
    here = expand(problem, theta, data.targets(), one)
    for i in range(5):
        step = np.zeros((1, 5))
        step[0, i] = 1e-6
        ahead, behind = (expand(problem, theta + s, data.targets(), one) for s in (step, -step))
        slope = (ahead.value - behind.value)[0] / 2e-6
        assert slope == pytest.approx(here.gradient[0, i], rel=1e-5, abs=1e-7 * np.abs(here.gradient).max())
        if name is not LossName.absolute:  # whose curvature lies all in its kinks
            bend = (ahead.gradient - behind.gradient)[0] / 2e-6
            np.testing.assert_allclose(here.hessian[0, i], bend, atol=2e-3 * np.abs(here.hessian).max())
    assert (np.linalg.eigvalsh(here.majorizer[0]) > -1e-9).all()


def test_fast_and_generic_paths_agree(runs: Any) -> None:
    data = table(runs)
    fast = solve(Chinchilla, data, HUBER, {})
    generic = GenericProblem.build(Chinchilla, data, HUBER, {})
    found = minimise(generic, generic.from_raw(fast.raw[None] * 1.05), data.targets())
    assert found.value[0] == pytest.approx(fast.value, rel=1e-9)
    np.testing.assert_allclose(generic.to_raw(found.theta)[0], fast.raw, rtol=1e-5)


def test_every_start_finds_the_minimum_and_nothing_found_is_lower(make_runs: Callable[..., Any]) -> None:
    random = np.random.default_rng(0)
    for seed in range(4):
        data = table(make_runs(seed=seed, rows=60, models=12))
        found = solve(Chinchilla, data, HUBER, {})
        assert found.certificate.agree == found.certificate.starts == 24
        assert found.certificate.converged
        assert found.certificate.gradient_norm < 1e-8
        assert found.certificate.profile_gap >= 0
        grid = random.choice([0.0, 0.5, 1.0, 1.5, 2.0], (6, 2))
        scales = random.choice([0.0, 5.0, 10.0, 15.0, 20.0, 25.0], (6, 2))
        for exponents, logs in zip(grid, scales, strict=True):
            theirs = copied_procedure(data, [0.5, *logs, *exponents], mean=False)[-1]
            assert found.value <= theirs * (1 + 1e-12)


def test_trap_mean_instead_of_sum(runs: Any) -> None:
    """Averaged, the objective is so small that the optimizer stops at once (Besiroglu et al. 2024)."""
    data = table(runs)
    found = solve(Chinchilla, data, HUBER, {})
    averaged = copied_procedure(data, [0.5, 5.0, 5.0, 0.5, 0.5], mean=True)[-1]
    assert averaged > 1.05 * found.value


def test_trap_starting_at_published_constants(runs: Any) -> None:
    """The copied procedure 'confirms' the constants it starts from; ours never sees them, and finds the truth."""
    data = table(runs)
    stuck = copied_procedure(data, HOFFMANN, mean=True)
    assert np.exp(stuck[1]) == pytest.approx(406.4, rel=0.02)
    found = solve(Chinchilla, data, HUBER, {})
    assert found.value < 0.9 * stuck[-1]
    assert found.raw[4] == pytest.approx(0.366, abs=0.03)


def test_least_squares_is_scipys(runs: Any) -> None:
    data = table(runs)
    found = solve(
        PowerFloor,
        Data({"params": data.x["params"]}, data.y, data.weights),
        row_loss(LossName.least_squares, 1),
        {},
    )

    def cost(theta: Array) -> float:
        prediction = np.exp(theta[0]) + np.exp(theta[1] - theta[2] * (np.log(data.x["params"]) - 20))
        return float(0.5 * ((np.log(prediction) - np.log(data.y)) ** 2).sum())

    theirs = min(
        minimize(cost, [start, 0.0, 0.3], method="BFGS", options={"gtol": 1e-10}).fun
        for start in (-2.0, 0.0, 0.5)
    )
    assert found.value == pytest.approx(theirs, rel=1e-7)


def test_absolute_is_the_linear_programme(runs: Any) -> None:
    """log L = log A - alpha log x is linear: least absolute residuals are a linear programme."""
    x, y, _ = runs
    rows = len(y)
    design = np.stack([np.ones(rows), -np.log(x["params"])], axis=1)
    program = linprog(
        np.concatenate([np.zeros(2), np.ones(2 * rows)]),
        A_eq=np.hstack([design, np.eye(rows), -np.eye(rows)]),
        b_eq=np.log(y),
        bounds=[(None, None)] * 2 + [(0, None)] * (2 * rows),
    )
    data = Data({"params": x["params"]}, y, np.ones(rows))
    found = solve(Power, data, row_loss(LossName.absolute, 1e-3), {})
    assert found.value == pytest.approx(program.fun, rel=1e-5)


def test_envelope_lies_below(runs: Any) -> None:
    data = table(runs)
    envelope = solve(Chinchilla, data, row_loss(LossName.envelope, 1e-3), {})
    below = np.log(data.y) > envelope.problem.log_prediction(envelope.theta[None])[0]
    assert 0.85 < below.mean() < 0.96, "over-predictions cost ten times as much, so about 1 in 11 remains"


def test_a_floor_that_is_not_there_is_at_its_bound() -> None:
    x = {"params": np.geomspace(1e6, 1e10, 40)}
    y = 12.0 * x["params"] ** -0.08 * np.exp(-0.02 * np.log(x["params"] / 1e8) ** 2 / 10)
    found = solve(PowerFloor, Data(x, y, np.ones(40)), HUBER, {})
    assert [(bound.parameter, bound.side) for bound in found.bounds] == [("E", "lower")]


def test_pinned_parameters_stay(runs: Any, truth: Chinchilla) -> None:
    data = table(runs)
    for pins in (
        {"E": 1.82},
        {"A": 480.0},
        {"alpha": 0.348, "beta": 0.366},
        {"A": 480.0, "alpha": 0.348, "B": 2100.0},
    ):
        found = solve(Chinchilla, data, HUBER, pins)
        said = dict(zip(names(Chinchilla), found.raw, strict=True))
        assert all(said[name] == value for name, value in pins.items())
        np.testing.assert_allclose(found.raw[3:], [truth.alpha, truth.beta], atol=0.06)
        assert found.value >= solve(Chinchilla, data, HUBER, {}).value


def test_units_do_not_matter(runs: Any) -> None:
    """Parameters in millions and tokens in billions give the same fit."""
    data = table(runs)
    scaled = Data({"params": data.x["params"] / 1e6, "tokens": data.x["tokens"] / 1e9}, data.y, data.weights)
    ours, theirs = solve(Chinchilla, data, HUBER, {}), solve(Chinchilla, scaled, HUBER, {})
    assert theirs.value == pytest.approx(ours.value, rel=1e-10)
    np.testing.assert_allclose(theirs.raw[[0, 3, 4]], ours.raw[[0, 3, 4]], rtol=1e-5)


def test_draws_are_solved_as_if_alone(runs: Any) -> None:
    """Weights in one batch give what each resample gives by itself, from scratch."""
    data = table(runs)
    found = solve(Chinchilla, data, HUBER, {})
    weights = (
        np.random.default_rng(3)
        .multinomial(data.rows, np.full(data.rows, 1 / data.rows), size=40)
        .astype(float)
    )
    batch = minimise(found.problem, np.tile(found.theta, (40, 1)), Targets(np.log(data.y), weights))
    assert batch.converged.all()
    for draw in range(0, 40, 8):
        alone = solve(Chinchilla, Data(data.x, data.y, weights[draw]), HUBER, {})
        assert batch.value[draw] <= alone.value * (1 + 1e-9)


def test_many_rows_are_searched_on_a_part_and_polished_on_all(make_runs: Callable[..., Any]) -> None:
    data = table(make_runs(rows=3 * SEARCH_ROWS))
    found = solve(Chinchilla, data, HUBER, {})
    again = minimise(found.problem, found.theta[None] + 0.01, data.targets())
    assert again.value[0] == pytest.approx(found.value, rel=1e-10)


def test_terms_with_shared_exponents_keep_the_gadre_form(runs: Any) -> None:
    x, y, _ = runs
    columns = x | {"flops": 6 * x["params"] * x["tokens"]}
    fast = solve(Gadre, Data(columns, y, np.ones(len(y))), HUBER, {})
    generic = GenericProblem.build(Gadre, Data(columns, y, np.ones(len(y))), HUBER, {})
    found = minimise(generic, generic.from_raw(fast.raw[None]), Targets(np.log(y), np.ones(len(y))))
    assert found.value[0] == pytest.approx(fast.value, rel=1e-10)


def test_a_law_without_any_finite_start_is_an_error() -> None:
    x = {"params": np.geomspace(1e6, 1e9, 9), "tokens": np.full(9, np.nan)}
    with pytest.raises(FitError, match="no finite prediction"):
        solve(Kaplan, Data(x, np.linspace(4, 3, 9), np.ones(9)), HUBER, {})


def test_published_free_chinchilla_on_public_runs(public: Callable[[str], pd.DataFrame]) -> None:
    """31 runs of Gadre et al. 2024 (tests/data/gadre_c4_small/README.md)."""
    frame = public("gadre_c4_small/runs.csv")
    x = {name: frame[name].to_numpy(dtype=float) for name in ("params", "tokens")}
    found = solve(Chinchilla, Data(x, frame["loss_c4_val"].to_numpy(), np.ones(len(frame))), HUBER, {})
    assert found.certificate.agree == found.certificate.starts
    np.testing.assert_allclose(found.raw, [1.137, 51.2, 221.0, 0.187, 0.256], rtol=5e-3)
