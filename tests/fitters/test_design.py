"""Designs whose promises are kept: what they predict is what training the runs and fitting again gives."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from scalecli.data.tables import read_runs
from scalecli.errors import DataError, FitError
from scalecli.fitters.design.answer import answer_of
from scalecli.fitters.design.candidates import candidates_for
from scalecli.fitters.design.edges import edge_runs
from scalecli.fitters.design.report import design_runs, sweep_spec_text
from scalecli.fitters.design.select import choose_settings, information
from scalecli.fitters.fit import Fit, FitOptions, fit_law
from scalecli.fitters.law import Array
from scalecli.fitters.laws.chinchilla import Chinchilla
from scalecli.fitters.laws.landscape_two_stage import LandscapeTwoStage
from scalecli.fitters.laws.power import Power
from scalecli.fitters.speed import Speed

TRUTH = Chinchilla(E=1.7, A=400.0, B=1200.0, alpha=0.34, beta=0.31)
NOISE = 0.003
TARGET = {"params": 7e9, "tokens": 1.4e11}
BUDGET = 1e20


def measure(x: dict[str, Array], seed: int) -> Array:
    noise = NOISE * np.random.default_rng(seed).standard_normal(len(x["params"]))
    return np.asarray(TRUTH.predict(x) * np.exp(noise))


def fit_to(x: dict[str, Array], seed: int) -> Fit:
    return fit_law(Chinchilla, x, measure(x, seed), options=FitOptions(draws=400, diagnose=False))


def ladder() -> dict[str, Array]:
    size, ratio = np.meshgrid(np.geomspace(1e7, 3e8, 8), [5.0, 20.0, 80.0])
    return {"params": size.ravel(), "tokens": (size * ratio).ravel()}


@pytest.fixture(scope="module")
def fit() -> Fit:
    return fit_to(ladder(), 0)


def test_the_promised_width_is_what_a_refit_gives(fit: Fit) -> None:
    document = design_runs(fit, answer="loss", at=TARGET, budget=BUDGET)
    before, promised = document["answer"]["width"], document["plans"][0]["width"]
    assert promised < 0.7 * before
    x = ladder()
    runs = document["plans"][0]["runs"]
    more = {name: np.concatenate([x[name], [run[name] for run in runs]]) for name in x}
    widths = []
    for seed in range(3):
        low, high = answer_of(fit_to(more, seed), "loss", TARGET).interval(0.9)
        widths.append(np.log(high / low))
    assert np.mean(widths) == pytest.approx(promised, rel=0.35)


def test_chosen_runs_beat_the_usual_plans(fit: Fit) -> None:
    for answer, at in (("loss", TARGET), ("params", {"flops": 1e22})):
        document = design_runs(fit, answer=answer, at=at, budget=BUDGET)
        widths = {plan["name"]: plan["width"] for plan in document["plans"]}
        assert widths["information"] <= min(widths["isoflop"], widths["ladder"])
        assert document["best"] == "information"
        assert all(width <= document["answer"]["width"] for width in widths.values())


def test_every_plan_keeps_to_the_budget(fit: Fit) -> None:
    document = design_runs(fit, answer="loss", at=TARGET, budget=BUDGET, speed=Speed.constant(1e15))
    for plan in document["plans"]:
        assert plan["flops"] <= BUDGET * (1 + 1e-9)
        assert plan["flops"] == pytest.approx(sum(6 * run["params"] * run["tokens"] for run in plan["runs"]))
        assert all(run["hours"] == pytest.approx(run["flops"] / 1e15 / 3600) for run in plan["runs"])


def test_no_exchange_of_one_run_is_better(fit: Fit) -> None:
    answer = answer_of(fit, "loss", TARGET)
    candidates = candidates_for(fit, BUDGET / 4)
    known = information(fit, answer, candidates)
    chosen = choose_settings(known, candidates.flops, BUDGET, 6)
    best = known.after(chosen)
    affordable = BUDGET - candidates.flops[chosen].sum()
    for i, run in enumerate(chosen):
        others = chosen[:i] + chosen[i + 1 :]
        for rival in np.flatnonzero(candidates.flops <= affordable + candidates.flops[run]):
            assert known.after([*others, int(rival)]) >= best * (1 - 1e-6)


def test_gains_are_differences_of_variance(fit: Fit) -> None:
    candidates = candidates_for(fit, BUDGET / 4)
    known = information(fit, answer_of(fit, "loss", TARGET), candidates)
    gains = known.gains([3, 17])
    for run in (0, 17, 40):
        assert known.after([3, 17]) - known.after([3, 17, run]) == pytest.approx(gains[run], rel=1e-6)


def test_more_budget_is_never_worse(fit: Fit) -> None:
    widths = [
        design_runs(fit, answer="params", at={"flops": 1e22}, budget=budget)["plans"][0]["width"]
        for budget in (1e18, 1e19, 1e20)
    ]
    assert widths == sorted(widths, reverse=True)


def test_answers_at_a_compute_are_at_its_optimum(fit: Fit) -> None:
    law, flops = fit.law, 1e22
    best = {"params": float(law.optimal_params(flops)), "tokens": float(law.optimal_tokens(flops))}
    assert answer_of(fit, "loss", {"flops": flops}).value == pytest.approx(answer_of(fit, "loss", best).value)
    assert answer_of(fit, "params", {"flops": flops}).value == pytest.approx(best["params"])


def test_questions_without_an_answer(fit: Fit) -> None:
    with pytest.raises(DataError, match="no optimal batch"):
        answer_of(fit, "batch", TARGET)
    with pytest.raises(DataError, match="flops is missing"):
        answer_of(fit, "params", TARGET)
    with pytest.raises(DataError, match="there is no answer"):
        answer_of(fit, "happiness", TARGET)
    with pytest.raises(DataError, match="at a point; tokens is missing"):
        answer_of(fit, "loss", {"params": 7e9})
    x = ladder()
    bare = fit_law(Chinchilla, x, measure(x, 0), options=FitOptions(draws=0, diagnose=False))
    with pytest.raises(FitError, match="in 0 of 0 draws"):
        answer_of(bare, "loss", TARGET)


def test_a_budget_below_any_run_is_an_error(fit: Fit) -> None:
    with pytest.raises(DataError, match="cheapest setting"):
        design_runs(fit, answer="loss", at=TARGET, budget=1e12)


def test_a_law_without_costs_cannot_be_designed_for() -> None:
    x = {"tokens": np.geomspace(1e8, 1e11, 12)}
    loss = 50 * x["tokens"] ** -0.12 * np.exp(0.001 * np.random.default_rng(0).standard_normal(12))
    fit = fit_law(Power.over("tokens"), x, loss, options=FitOptions(draws=60, diagnose=False))
    with pytest.raises(DataError, match="does not say what a run costs"):
        design_runs(fit, answer="loss", at={"tokens": 1e12}, budget=1e20)


def test_the_specification_lists_every_run(fit: Fit) -> None:
    document = design_runs(fit, answer="loss", at=TARGET, budget=BUDGET)
    read = tomllib.loads(sweep_spec_text(document["runs"]))["runs"]
    assert [run["params"] for run in read] == pytest.approx(
        [run["params"] for run in document["runs"]], rel=1e-5
    )
    assert all(set(run) == {"params", "tokens"} for run in read)


def test_runs_beyond_the_edge_of_a_grid(tmp_path: Path) -> None:
    """The optimum, 1e-2, lies above all rates tried; batches have theirs inside the grid."""
    rows = ["params,tokens,batch_tokens,learning_rate,loss"]
    for batch in (1e4, 2e4, 4e4, 8e4):
        for rate in (1e-3, 2e-3, 4e-3):
            loss = 3 + 0.1 * np.log(rate / 1e-2) ** 2 + 0.05 * np.log(batch / 3e4) ** 2
            rows.append(f"1e7,1e9,{batch},{rate},{loss}")
    file = tmp_path / "grid.csv"
    file.write_text("\n".join(rows))
    found = edge_runs(read_runs(file))
    assert [run["learning_rate"] for run in found] == pytest.approx([8e-3, 1.6e-2])
    assert {run["batch_tokens"] for run in found} <= {2e4, 4e4}
    assert all(run["flops"] == pytest.approx(6e16) for run in found)


def test_a_landscape_gets_whole_grids() -> None:
    size, ratio, rate, batch = (
        a.ravel()
        for a in np.meshgrid(
            [1e7, 3e7, 1e8, 3e8], [20.0, 80.0], 2.0 ** np.arange(-2, 3), 2.0 ** np.arange(-2, 3)
        )
    )
    tokens = size * ratio
    best_rate, best_batch = 0.3 * size**-0.3, 30 * tokens**0.4
    x = {
        "params": size,
        "tokens": tokens,
        "learning_rate": best_rate * rate,
        "batch_tokens": best_batch * batch,
    }
    excess = 0.04 * np.log(rate) ** 2 + 0.01 * np.log(batch) ** 2
    loss = TRUTH.predict(x) + excess
    loss = loss * np.exp(0.001 * np.random.default_rng(0).standard_normal(len(loss)))
    fit = fit_law(LandscapeTwoStage, x, loss, options=FitOptions(draws=60, diagnose=False))
    document = design_runs(fit, answer="batch", at={"params": 3e9, "tokens": 6e10}, budget=1e20, most=3)
    runs = document["plans"][0]["runs"]
    assert len(runs) % 9 == 0
    assert len({(run["params"], run["tokens"]) for run in runs}) <= 3
    first = runs[:9]
    assert len({run["learning_rate"] for run in first}) == len({run["batch_tokens"] for run in first}) == 3
    assert sum(run["flops"] for run in runs) == pytest.approx(document["plans"][0]["flops"])
    assert document["plans"][0]["width"] < 0.9 * document["answer"]["width"]
