"""A fit as users hold it: document, files, queries, predictions, seeds, weights, clusters."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalecli.errors import DataError, NoOptimum
from scalecli.fitters.estimate import Method, estimate
from scalecli.fitters.fit import Fit, FitOptions, fit_law
from scalecli.fitters.formula import formula_law
from scalecli.fitters.law import Array, values, with_values
from scalecli.fitters.laws.chinchilla import Chinchilla
from scalecli.fitters.laws.isoflop import IsoFlop
from scalecli.fitters.laws.power import Power
from scalecli.fitters.laws.power_floor import PowerFloor
from scalecli.fitters.objective import LossName, row_loss
from scalecli.fitters.problem import Data
from scalecli.fitters.resample import Clusters
from scalecli.fitters.solver import solve
from scalecli.fitters.weights import row_weights

HUBER = row_loss(LossName.huber, 1e-3)


@pytest.fixture(scope="module")
def fit(runs: Any) -> Fit:
    x, y, model = runs
    return fit_law(
        Chinchilla,
        x,
        y,
        groups=model,
        options=FitOptions(draws=200),
        provenance={"data_sha256": "ab"},
        rows_read=245,
        dropped=[("loss is an outlier", 5)],
    )


def test_document_has_the_promised_keys(fit: Fit) -> None:
    document = fit.document()
    assert document["schema"] == "scalecli/fit/1"
    assert document["law"] == "chinchilla"
    assert document["inputs"] == ["params", "tokens"]
    assert list(document["parameters"]) == ["E", "A", "B", "alpha", "beta"]
    for parameter in document["parameters"].values():
        assert parameter["low"] < parameter["value"] < parameter["high"]
        assert parameter["std"] > 0
    assert document["objective"]["name"] == "huber_log"
    assert document["objective"]["delta"] == 0.001
    assert document["rows"] == {
        "read": 245,
        "used": 240,
        "dropped": [{"reason": "loss is an outlier", "count": 5}],
    }
    assert document["groups"] == 30
    assert document["status"] == "converged"
    assert {"starts", "agree", "gradient_norm"} <= document["convergence"].keys()
    assert {"heldout_rows", "mean_abs_log_error", "coverage"} <= document["validation"].keys()
    assert {"data_sha256", "seed", "versions", "created_at"} <= document["provenance"].keys()
    assert not {"draws", "domain", "formula"} & document.keys()
    whole = fit.document(draws=True)
    assert len(whole["draws"]["values"]) == 200
    assert whole["domain"]["params"] == list(fit.domain["params"])
    assert "E + A N^-alpha" in whole["formula"]


def test_objective_is_a_sum_over_rows(fit: Fit, runs: Any) -> None:
    x, y, _ = runs
    residual = np.abs(np.log(fit.law.predict(x)) - np.log(y))
    rows = np.where(residual <= 1e-3, residual**2 / 2, 1e-3 * (residual - 5e-4))
    assert fit.objective["value"] == pytest.approx(rows.sum(), rel=1e-9)


def test_file_round_trip(fit: Fit, tmp_path: Path) -> None:
    path = tmp_path / "loss.fit.json"
    fit.write(path)
    again = Fit.read(path)
    assert again.document(draws=True) == fit.document(draws=True)
    at = {"params": np.array([7e9]), "tokens": np.array([1.4e12])}
    assert again.predict(at).high == pytest.approx(fit.predict(at).high, rel=1e-15)


def test_formula_round_trip(runs: Any, tmp_path: Path) -> None:
    x, y, model = runs
    law = formula_law("E + A*params**-a + B*tokens**-b; a in [0, 2]", columns=["params", "tokens"])
    fit = fit_law(law, x, y, groups=model, options=FitOptions(draws=20))
    fit.write(tmp_path / "own.fit.json")
    again = Fit.read(tmp_path / "own.fit.json")
    assert again.document(draws=True) == fit.document(draws=True)
    reference = fit_law(Chinchilla, x, y, groups=model, options=FitOptions(draws=0))
    assert fit.objective["value"] == pytest.approx(reference.objective["value"], rel=1e-8)


def broken(document: dict[str, Any], path: str, value: Any) -> str:
    place = document
    *parents, last = path.split(".")
    for part in parents:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema", "scalecli/fit/9"),
        ("law", "unheard-of"),
        ("law", 3),
        ("draws", ...),
        ("draws.values", [[1.0, 2.0]]),
        ("draws.values", "none"),
        ("draws.values", [[1.0, 2.0, 3.0, 4.0, float("nan")]]),
        ("draws.parameters", ["E"]),
        ("parameters.A", ...),
        ("parameters.A.value", "large"),
        ("parameters.A.value", True),
        ("domain.params", [1.0]),
        ("band", ...),
        ("band.noise", [0.0]),
        ("status", "fine"),
        ("warnings", ["bad"]),
        ("interval", None),
    ],
)
def test_damaged_documents_are_typed_errors(fit: Fit, tmp_path: Path, path: str, value: Any) -> None:
    file = tmp_path / "damaged.fit.json"
    file.write_text(broken(json.loads(json.dumps(fit.document(draws=True))), path, value))
    with pytest.raises(DataError):
        Fit.read(file)


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00", "[" * 100_000, '{"schema": NaN}'])
def test_files_that_are_no_fits(tmp_path: Path, text: str) -> None:
    file = tmp_path / "no.fit.json"
    file.write_text(text)
    with pytest.raises(DataError):
        Fit.read(file)


def test_missing_file_and_binary_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        Fit.read(tmp_path / "absent.json")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(DataError, match="not text"):
        Fit.read(tmp_path / "binary")
    with pytest.raises(DataError, match="cannot be read"):
        Fit.read(tmp_path)


def test_the_same_seed_gives_the_same_fit(runs: Any) -> None:
    x, y, model = runs
    one, two, other = (
        fit_law(Chinchilla, x, y, groups=model, options=FitOptions(draws=30, seed=seed, diagnose=False))
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.draws, two.draws)
    assert one.band.multiplier == two.band.multiplier
    assert not np.array_equal(one.draws, other.draws)
    np.testing.assert_array_equal(values(one.law), values(other.law))


def test_draws_can_be_none(runs: Any) -> None:
    x, y, _ = runs
    fit = fit_law(Chinchilla, x, y, options=FitOptions(draws=0))
    assert fit.document()["parameters"]["E"] == {"value": fit.law.E, "low": None, "high": None, "std": None}
    assert np.isnan(fit.predict(x).low).all()
    assert Fit.from_document(json.loads(json.dumps(fit.document(draws=True)))).draws.shape == (0, 5)


def test_query_carries_the_uncertainty_of_anything(fit: Fit) -> None:
    found = fit.query(lambda law: law.optimal_tokens(1e24) / law.optimal_params(1e24))
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    wide = fit.query(lambda law: law.optimal_params(1e24), level=0.99)
    narrow = fit.query(lambda law: law.optimal_params(1e24), level=0.5)
    assert wide.low < narrow.low < narrow.high < wide.high  # type: ignore[operator]


def test_draws_without_an_answer_are_counted(fit: Fit) -> None:
    floor = float(np.quantile(fit.draws[:, 0], 0.75))
    reach = max(floor, fit.law.E) + 1e-3
    found = fit.query(lambda law: law.tokens_for_loss(reach, 1e15))
    assert found.missing == (fit.answers(lambda law: law.E + law.A * 1e15**-law.alpha) >= reach).sum() > 0
    with pytest.raises(NoOptimum):
        fit.query(lambda law: law.tokens_for_loss(0.5, 1e9))


def test_draws_too_large_to_square_have_a_finite_spread(fit: Fit) -> None:
    """A scale is the power law's value at one parameter and one token: with steep exponents hundreds of decades."""
    huge = replace(fit, draws=fit.draws.copy())
    huge.draws[:, 1] = np.where(np.arange(len(fit.draws)) % 2, 1e200, 3e200)
    spread = huge.document()["parameters"]["A"]["std"]
    assert spread == pytest.approx(1e200, rel=0.01)


def test_bundle_is_the_draws(fit: Fit) -> None:
    at = {"params": np.array([1e9, 2e9]), "tokens": np.array([2e10, 1e11])}
    bundle = fit.bundle().predict(at)
    assert bundle.shape == (200, 2)
    np.testing.assert_allclose(bundle[17], with_values(Chinchilla, fit.draws[17]).predict(at))


def test_extrapolation_is_distance_in_decades(fit: Fit) -> None:
    low, high = fit.domain["params"]
    inside = {"params": [np.sqrt(low * high)], "tokens": [np.sqrt(np.prod(fit.domain["tokens"]))]}
    assert fit.predict(inside).extrapolation == pytest.approx(0.0)
    beyond = inside | {"params": [100 * high]}
    assert fit.predict(beyond).extrapolation[0] >= 2.0
    corner = {"params": [high], "tokens": [fit.domain["tokens"][1]]}
    compute = 6 * high * fit.domain["tokens"][1]
    assert fit.predict(corner).extrapolation[0] == pytest.approx(np.log10(compute / fit.domain["flops"][1]))


def test_predictions_widen_with_level_and_distance(fit: Fit) -> None:
    near = {"params": [1e9], "tokens": [2e10]}
    far = {"params": [1e12], "tokens": [2e13]}

    def width(at: Any, level: float | None = None) -> float:
        found = fit.predict(at, level)
        assert found.low[0] < found.value[0] < found.high[0]
        return float(np.log(found.high / found.low)[0])

    assert width(near, 0.5) < width(near, 0.9) < width(near, 0.99)
    assert width(near) < width(far)


def test_trap_grouped_rows_are_not_independent(make_runs: Callable[..., Any], truth: Chinchilla) -> None:
    """With errors shared by the runs of a model, resampling rows covers far less than it promises."""
    worlds, watched = 25, [0, 1, 3]  # E, A and alpha, which differences between models decide
    inside = {"rows": 0, "models": 0}
    for seed in range(worlds):
        x, y, model = make_runs(seed=100 + seed)
        for kind, groups in (("rows", None), ("models", model)):
            data = Data(x, y, np.ones(len(y)))
            fitted = estimate(Chinchilla, data, Clusters.of(groups, len(y)), Method(HUBER, {}))
            low, high = np.quantile(fitted.draws(100, np.random.default_rng(seed)), [0.05, 0.95], axis=0)
            known = values(truth)
            inside[kind] += int(((low <= known) & (known <= high))[watched].sum())
    assert inside["rows"] <= 0.7 * 3 * worlds
    assert inside["models"] >= 0.8 * 3 * worlds


def test_few_groups_use_the_wild_bootstrap(make_runs: Callable[..., Any]) -> None:
    x, y, model = make_runs(models=6, rows=60)
    fit = fit_law(Chinchilla, x, y, groups=model, options=FitOptions(draws=200))
    assert "W-FEW-GROUPS" in {notice.code for notice in fit.warnings}
    assert len(fit.draws) == 200
    assert fit.query(lambda law: law.beta).low < 0.366 < fit.query(lambda law: law.beta).high  # type: ignore[operator]


def test_one_group_is_resampled_row_by_row_and_said_to_be(runs: Any) -> None:
    """Drawing the only group again and again would give the estimate each time: an interval of width zero."""
    x, y, _ = runs
    options = FitOptions(draws=100, diagnose=False)
    one = fit_law(Chinchilla, x, y, groups=np.zeros(len(y)), options=options)
    alone = fit_law(Chinchilla, x, y, options=options)
    assert "W-ONE-GROUP" in {notice.code for notice in one.warnings}
    np.testing.assert_array_equal(one.draws, alone.draws)
    assert one.draws.std(axis=0).min() > 0


def test_large_tables_take_one_step_draws_that_agree(make_runs: Callable[..., Any], monkeypatch: Any) -> None:
    x, y, model = make_runs(models=60, rows=600)
    fitted = estimate(Chinchilla, Data(x, y, np.ones(600)), Clusters.of(model, 600), Method(HUBER, {}))
    exact = fitted.draws(400, np.random.default_rng(0))
    monkeypatch.setattr("scalecli.fitters.estimate.MOST_WORK", 0)
    quick = fitted.draws(400, np.random.default_rng(0))
    np.testing.assert_allclose(quick.std(0)[[0, 3, 4]], exact.std(0)[[0, 3, 4]], rtol=0.35)
    left_out = fitted.without(fitted.clusters.label, 60, np.arange(3))
    assert left_out.shape == (3, 5)


def test_weights_follow_the_noise() -> None:
    x = {"params": np.arange(1.0, 5.0)}
    weights = row_weights(x, np.full(4, 3.0), np.array([0.01, 0.01, 0.1, 0.0])).rows
    assert weights.mean() == pytest.approx(1.0)
    assert weights[2] < 0.1 < weights[0] < weights[3]
    assert weights[3] == pytest.approx(2 * weights[0])
    with pytest.raises(DataError, match="row 2"):
        row_weights({"params": np.ones(2)}, np.full(2, 3.0), np.array([0.1, np.nan]))


def test_repeated_seeds_tell_the_noise() -> None:
    """Runs of high loss scatter more, and their repeats say so; single runs keep equal weights."""
    random = np.random.default_rng(0)
    x = {"params": np.repeat(np.geomspace(1e6, 1e9, 12), 4)}
    clean = PowerFloor(E=1.7, A=300.0, alpha=0.3).predict(x)
    y = clean * np.exp(0.002 * (clean / 3) ** 3 * random.standard_normal(48))
    weights = row_weights(x, y, None)
    assert weights.source == "repeated seeds"
    assert weights.rows[-4:].mean() > 2 * weights.rows[:4].mean()
    alone = {"params": np.geomspace(1e6, 1e9, 48)}
    assert row_weights(alone, y, None).source == "equal"


def test_noisy_rows_weigh_less() -> None:
    """Half of the runs evaluated on few batches: with their noise known, the fit is closer to the truth."""
    errors: dict[str, list[float]] = {"known": [], "unknown": []}
    for seed in range(12):
        random = np.random.default_rng(seed)
        x = {"params": np.exp(random.uniform(np.log(1e7), np.log(1e10), 80))}
        spread = np.where(np.arange(80) % 2, 0.001, 0.03)
        clean = PowerFloor(E=1.7, A=300.0, alpha=0.3).predict(x)
        y = clean * np.exp(spread * random.standard_normal(80))
        for kind, std in (("known", spread * clean), ("unknown", None)):
            found = solve(
                PowerFloor, Data(x, y, row_weights(x, y, std).rows), row_loss(LossName.least_squares, 1.0), {}
            )
            errors[kind].append(abs(found.raw[0] - 1.7))
    assert np.mean(errors["known"]) < 0.6 * np.mean(errors["unknown"])


def test_pinned_floor_shrinks_the_other_intervals(runs: Any) -> None:
    x, y, model = runs
    free = fit_law(Chinchilla, x, y, groups=model, options=FitOptions(draws=100, diagnose=False))
    pinned = fit_law(
        Chinchilla, x, y, groups=model, options=FitOptions(draws=100, pins={"E": 1.82}, diagnose=False)
    )
    assert pinned.law.E == 1.82
    assert pinned.draws[:, 3].std() < 0.6 * free.draws[:, 3].std()


def test_procedures_are_fits_too(truth: Chinchilla) -> None:
    """IsoFLOP minima: no objective, no search, and the same document."""
    budgets = np.repeat(np.geomspace(1e18, 1e21, 6), 11)
    size = np.asarray(truth.optimal_params(budgets)) * np.tile(np.geomspace(0.3, 3, 11), 6)
    x: dict[str, Array] = {"flops": budgets, "params": size}
    y = truth.predict({"params": size, "tokens": budgets / 6 / size})
    fit = fit_law(IsoFlop, x, y * np.exp(1e-4 * np.sin(np.arange(66.0))), options=FitOptions(draws=100))
    assert fit.law.b == pytest.approx(truth.beta / (truth.alpha + truth.beta), abs=0.02)
    assert fit.objective == {"name": "procedure", "delta": None, "value": None, "weights": "equal"}
    assert fit.validation is None
    assert Fit.from_document(json.loads(json.dumps(fit.document(draws=True)))).document() == fit.document()


def test_a_law_that_bends_where_it_was_not_fitted_is_told() -> None:
    """A power law without floor, fitted to runs that have one, misses the larger runs: its validation says so."""
    size = np.geomspace(1e6, 1e10, 60)
    y = PowerFloor(E=1.7, A=300.0, alpha=0.35).predict({"params": size})
    y = y * np.exp(0.001 * np.random.default_rng(0).standard_normal(60))
    wrong = fit_law(Power, {"params": size}, y, options=FitOptions(draws=100))
    right = fit_law(PowerFloor, {"params": size}, y, options=FitOptions(draws=100))
    assert wrong.band.multiplier > 3 > right.band.multiplier  # type: ignore[operator]
    assert wrong.validation.mean_abs_log_error > 10 * right.validation.mean_abs_log_error  # type: ignore[union-attr]
