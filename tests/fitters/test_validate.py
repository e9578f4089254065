"""Hold-out by scale: where the cut falls, what is scored, and how a law is chosen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scalecli.data.tables import RunTable, read_runs
from scalecli.errors import DataError, TooFewRuns
from scalecli.fitters.fit import FitOptions
from scalecli.fitters.law import Array
from scalecli.fitters.laws import law_named
from scalecli.fitters.laws.chinchilla import Chinchilla
from scalecli.fitters.laws.isoflop import IsoFlop
from scalecli.fitters.laws.kaplan import Kaplan
from scalecli.fitters.runs import fit_runs
from scalecli.fitters.validate.choose import choose_law, fit_best, validate_all
from scalecli.fitters.validate.ranks import rank_settings
from scalecli.fitters.validate.report import validation_document
from scalecli.fitters.validate.score import extrapolation_errors, validate_law
from scalecli.fitters.validate.split import hold_out_above, hold_out_levels, hold_out_share

DATA = Path(__file__).parents[1] / "data"
FAST = FitOptions(draws=50, diagnose=False)
TRUTH = Chinchilla(E=1.7, A=400.0, B=1200.0, alpha=0.34, beta=0.31)


def table_of(folder: Path, **columns: Array) -> RunTable:
    file = folder / "runs.csv"
    rows = zip(*columns.values(), strict=True)
    file.write_text("\n".join([",".join(columns), *(",".join(map(repr, map(float, row))) for row in rows)]))
    return read_runs(file)


def ladder() -> dict[str, Array]:
    size, ratio = np.meshgrid(np.geomspace(1e7, 1e9, 9), [5.0, 20.0, 80.0])
    return {"params": size.ravel(), "tokens": (size * ratio).ravel()}


@pytest.fixture
def chinchilla_runs(tmp_path: Path) -> RunTable:
    x = ladder()
    noise = np.exp(0.003 * np.random.default_rng(1).standard_normal(len(x["params"])))
    return table_of(tmp_path, **x, loss=TRUTH.predict(x) * noise)


@pytest.fixture(scope="module")
def gadre_runs() -> RunTable:
    return read_runs(DATA / "gadre_c4_small" / "runs.csv", map={"loss": "loss_c4_val"})


@pytest.fixture(scope="module")
def nmt_runs() -> RunTable:
    return read_runs(
        DATA / "nmt_data_curves" / "curves.csv",
        map={"tokens": "training_examples"},
        where="architecture == '6 Enc, 6 Dec'",
    )


def test_the_largest_fifth_by_compute_is_held_out(chinchilla_runs: RunTable) -> None:
    split = hold_out_share(chinchilla_runs)
    compute = [
        6 * t.columns(["params"])["params"] * t.columns(["tokens"])["tokens"]
        for t in (split.train, split.heldout)
    ]
    assert compute[0].max() < compute[1].min()
    assert len(split.heldout) == pytest.approx(0.2 * len(chinchilla_runs), abs=1)
    assert [drop.count for drop in split.train.dropped] == [len(split.heldout)]


def test_runs_of_one_budget_stay_together() -> None:
    runs = read_runs(DATA / "porian_openwebtext2" / "isoflop_points.csv", where="hparams == 'tuned'")
    split = hold_out_share(runs)
    trained, held = (set(part.frame["flops"]) for part in (split.train, split.heldout))
    assert not trained & held
    assert len(split.heldout) >= 0.2 * len(runs)


def test_the_largest_levels_of_any_axis(chinchilla_runs: RunTable) -> None:
    split = hold_out_levels(chinchilla_runs, "params", 2)
    assert len(np.unique(split.train.columns(["params"])["params"])) == 7
    assert len(split.heldout) == 6
    with pytest.raises(DataError, match="takes 9 values"):
        hold_out_levels(chinchilla_runs, "params", 9)


def test_compute_is_derived_for_the_cut(chinchilla_runs: RunTable) -> None:
    split = hold_out_above(chinchilla_runs, "flops", 1e18)
    x = split.train.columns(["params", "tokens"])
    assert (6 * x["params"] * x["tokens"] < 1e18).all()


def test_a_cut_outside_the_runs_is_an_error(chinchilla_runs: RunTable) -> None:
    with pytest.raises(TooFewRuns, match="0 of 27 runs to fit to"):
        hold_out_above(chinchilla_runs, "flops", 1e10)


def test_runs_of_one_scale_cannot_be_split(tmp_path: Path) -> None:
    table = table_of(tmp_path, params=np.full(5, 1e8), tokens=np.full(5, 1e9), loss=np.linspace(2, 3, 5))
    with pytest.raises(TooFewRuns):
        hold_out_share(table)


def test_runs_without_a_scale_need_an_axis(tmp_path: Path) -> None:
    table = table_of(tmp_path, learning_rate=np.linspace(1e-4, 1e-3, 8), loss=np.linspace(2, 3, 8))
    with pytest.raises(DataError, match="tells small runs from large"):
        hold_out_share(table)


def test_noise_free_extrapolation_is_exact(tmp_path: Path) -> None:
    x = ladder()
    table = table_of(tmp_path, **x, loss=TRUTH.predict(x))
    found = validate_law(hold_out_share(table), Chinchilla, options=FAST)
    assert found.mean_abs_log_error < 1e-7


def test_document_agrees_with_the_fit_to_the_training_runs(chinchilla_runs: RunTable) -> None:
    found = validate_law(hold_out_share(chinchilla_runs), Chinchilla, options=FAST)
    document = found.document()
    errors = np.array([np.log(point["predicted"] / point["measured"]) for point in document["points"]])
    inside = [point["low"] <= point["measured"] <= point["high"] for point in document["points"]]
    at = {name: np.array([point["at"][name] for point in document["points"]]) for name in Chinchilla.inputs}
    assert np.allclose([point["predicted"] for point in document["points"]], found.fit.law.predict(at))
    assert document["bias"] == pytest.approx(errors.mean())
    assert document["rms_log_error"] == pytest.approx(np.sqrt(np.mean(errors**2)))
    assert document["coverage"] == np.mean(inside)
    assert document["train_rows"] + document["heldout_rows"] == len(chinchilla_runs)


def test_bias_has_the_sign_of_predicted_over_measured(tmp_path: Path) -> None:
    x = ladder()
    loss = TRUTH.predict(x)
    large = 6 * x["params"] * x["tokens"] > 1e19
    table = table_of(tmp_path, **x, loss=np.where(large, loss * 1.1, loss))
    found = validate_law(hold_out_above(table, "flops", 1e19), Chinchilla, options=FAST)
    assert found.document()["bias"] == pytest.approx(-np.log(1.1), rel=1e-3)


def test_the_point_estimate_alone_makes_the_same_errors(chinchilla_runs: RunTable) -> None:
    split = hold_out_share(chinchilla_runs)
    full = validate_law(split, Chinchilla, options=FAST).log_error
    assert np.allclose(extrapolation_errors(split, Chinchilla, FAST), full)


def test_a_procedure_that_predicts_no_measurement_cannot_be_scored(chinchilla_runs: RunTable) -> None:
    with pytest.raises(DataError, match="no run measures"):
        validate_law(hold_out_share(chinchilla_runs), IsoFlop, options=FAST)


def test_two_axes_beat_one_on_real_runs(gadre_runs: RunTable) -> None:
    split = hold_out_share(gadre_runs)
    errors = {
        name: np.abs(extrapolation_errors(split, law_named(name), FAST)).mean()
        for name in ("chinchilla", "power:params", "power:tokens")
    }
    assert errors["chinchilla"] < 0.3 * min(errors["power:params"], errors["power:tokens"])


def test_all_laws_that_can_be_fitted_are_ranked_and_the_others_have_reasons(nmt_runs: RunTable) -> None:
    found, unusable = validate_all(hold_out_share(nmt_runs), options=FAST)
    ranked = [one.fit.law.name for one in found]
    assert {"power:tokens", "power-floor:tokens", "hestness"} <= set(ranked)
    errors = [one.mean_abs_log_error for one in found]
    assert errors == sorted(errors)
    reasons = {law.law: law.reason for law in unusable}
    assert reasons["isoflop"] == "predicts params_optimal, not loss"
    assert reasons["chinchilla"] == "the runs have no params"
    assert not set(ranked) & set(reasons)


def test_the_law_behind_the_runs_is_chosen(tmp_path: Path) -> None:
    size, ratio = np.meshgrid(np.geomspace(1e7, 1e9, 6), [5.0, 20.0, 80.0])
    x = {"params": size.ravel(), "tokens": (size * ratio).ravel()}
    truth = Kaplan(N_c=8e13, D_c=5e13, alpha_N=0.09, alpha_D=0.1)
    law, ranking = choose_law(table_of(tmp_path, **x, loss=truth.predict(x)))
    assert law is Kaplan
    assert ranking.laws[0].law is law


def test_the_choice_never_sees_the_held_out_runs(nmt_runs: RunTable) -> None:
    split = hold_out_share(nmt_runs)
    honest = validation_document(split, None, options=FAST)
    heldout = replace(split.heldout, frame=split.heldout.frame.assign(loss=[3.0] * len(split.heldout)))
    fooled = validation_document(replace(split, heldout=heldout), None, options=FAST)
    assert fooled["choice"] == honest["choice"]
    assert fooled["law"] == honest["law"]
    assert fooled["mean_abs_log_error"] > honest["mean_abs_log_error"]


def test_too_few_runs_to_choose(tmp_path: Path) -> None:
    table = table_of(
        tmp_path, params=np.array([1e7, 1e8]), tokens=np.array([1e9, 1e9]), loss=np.array([3.0, 2.5])
    )
    with pytest.raises(TooFewRuns):
        choose_law(table)


def test_the_ranking_is_on_record(tmp_path: Path) -> None:
    tokens = np.geomspace(1e8, 1e11, 12)
    table = table_of(tmp_path, tokens=tokens, loss=1.5 + 300 * tokens**-0.3)
    fit = fit_best(table, options=FAST)
    assert fit.provenance["choice"]["laws"][0]["law"] == fit.law.name
    assert law_named("power:tokens").name in [law["law"] for law in fit.provenance["choice"]["laws"]]


def test_settings_that_rank_alike_at_both_scales(tmp_path: Path) -> None:
    rows = ["optimizer,params,tokens,loss"]
    quality = {"a": 0.0, "b": 0.02, "c": 0.05, "d": 0.09, "e": 0.1}
    for name, worse in quality.items():
        for size, swapped in ((1e7, 0.0), (1e9, 0.06 if name == "a" else 0.0)):
            rows.append(f"{name},{size},{20 * size},{5 * size**-0.04 * np.exp(worse + swapped)}")
    file = tmp_path / "settings.csv"
    file.write_text("\n".join(rows))
    found = rank_settings(hold_out_levels(read_runs(file), "params", 1), ["optimizer"])
    assert found.correlation == pytest.approx(0.7)  # a falls from the first place to the third
    assert found.regret == pytest.approx(0.04)
    with pytest.raises(TooFewRuns, match="0 settings"):
        rank_settings(hold_out_levels(read_runs(file), "params", 1), ["params"])


def test_runs_of_different_kinds_are_not_pooled() -> None:
    runs = read_runs(DATA / "nmt_data_curves" / "curves.csv", map={"tokens": "training_examples"})
    with pytest.raises(DataError, match="5 kinds of architecture"):
        fit_runs(runs, law_named("power-floor:tokens"), options=FAST)


def test_tiny_proxies_are_flagged(chinchilla_runs: RunTable, tmp_path: Path) -> None:
    codes = [notice.code for notice in fit_runs(chinchilla_runs, Chinchilla, options=FAST).warnings]
    assert "W-SMALL-PROXIES" not in codes
    x = ladder()
    x["params"], x["tokens"] = x["params"] / 100, x["tokens"] / 100
    tiny = fit_runs(table_of(tmp_path, **x, loss=TRUTH.predict(x)), Chinchilla, options=FAST)
    (notice,) = [notice for notice in tiny.warnings if notice.code == "W-SMALL-PROXIES"]
    assert "15 of 27 runs have fewer than 1.25e+06 params" in notice.message
