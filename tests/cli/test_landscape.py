"""Landscapes from the command line: what a grid gives, and what is caught where it is used wrongly."""

from __future__ import annotations

import json
import tomllib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from scalecli.cli.app import app
from scalecli.export.schemas import document_schema
from scalecli.fitters.laws.landscape import Landscape

TRUTH = Landscape(
    E=1.7, A=400.0, alpha=0.34, B=1000.0, beta=0.35, lr_scale=5.0, lr_params=-0.6, lr_tokens=0.2, batch_scale=1.0,
    batch_params=0.0, batch_tokens=0.57, curvature_lr=0.03, curvature_cross=-0.008, curvature_batch=0.02,
    saturation=0.15, asymmetry=0.6,
)  # fmt: skip
AT = {"params": 1e9, "tokens": 3e10}
RATES, BATCHES = 2.0 ** np.arange(-11, -4, 1.0), 2.0 ** np.arange(15, 22, 1.5)


def run(*words: str | Path) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def document(*words: str | Path) -> Any:
    result = run(*words, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def codes(found: Any) -> set[str]:
    return {warning["code"] for warning in found["warnings"]}


@pytest.fixture(scope="module")
def grid() -> pd.DataFrame:
    """Six settings of a known landscape, with a little noise."""
    rows = [
        (params, params * ratio, batch, rate)
        for params in (6e7, 1.6e8, 4.3e8)
        for ratio in (10, 60)
        for batch in BATCHES
        for rate in RATES
    ]
    frame = pd.DataFrame(rows, columns=["params", "tokens", "batch_tokens", "learning_rate"])
    loss = TRUTH.predict({name: frame[name].to_numpy() for name in frame})
    frame["loss"] = loss + 0.001 * np.random.default_rng(0).standard_normal(len(frame))
    return frame[frame["loss"] < loss.min() + 1.5].reset_index(drop=True)


def fit_table(folder: Path, frame: pd.DataFrame, *words: str) -> tuple[Any, Path]:
    """Fit a table; the fit's document, and the file it is in."""
    runs, file = folder / "runs.csv", folder / "fit.json"
    frame.to_csv(runs, index=False)
    return document("fit", runs, "--law", "landscape", "--draws", "40", "--out", file, *words), file


@pytest.fixture
def fitted(tmp_path: Path) -> Any:
    return partial(fit_table, tmp_path)


@pytest.fixture(scope="module")
def usual(grid: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fit of the whole grid."""
    return fit_table(tmp_path_factory.mktemp("usual"), grid)[1]


def best_at(file: Path) -> Any:
    at = ",".join(f"{name}={value:g}" for name, value in AT.items())
    return document("predict", file, "--at", at)["points"][0]


def test_a_prediction_without_batch_and_rate_says_which_are_best(usual: Path) -> None:
    found = document(
        "predict", usual, "--at", "params=1e9,tokens=3e10", "--at", "params=1e9,tokens=3e10,batch_tokens=2M"
    )
    Draft202012Validator(document_schema("prediction")).validate(found)
    best, at_batch = found["points"]
    truth = {
        "batch_tokens": float(TRUTH.optimal_batch_tokens(**AT)),
        "learning_rate": float(TRUTH.optimal_learning_rate(**AT)),
    }
    for name, value in truth.items():
        knob = best["optimum"][name]
        assert knob["low"] < value < knob["high"]
        assert knob["value"] == pytest.approx(value, rel=0.1)
        assert knob["flat_range"][0] < knob["value"] < knob["flat_range"][1]
        assert best["at"][name] == knob["value"]
    assert best["value"] == pytest.approx(float(TRUTH.tuned_loss(**AT)), rel=0.005)
    assert set(at_batch["optimum"]) == {"learning_rate"}
    retuned = float(TRUTH.optimal_learning_rate_at(**AT, batch_tokens=2e6))
    assert at_batch["optimum"]["learning_rate"]["value"] == pytest.approx(retuned, rel=0.1)
    assert "optimum (90% intervals)" in run("predict", usual, "--at", "params=1e9,tokens=3e10").stdout


def test_other_columns_for_size_and_batch_are_the_same_grid(
    grid: pd.DataFrame, fitted: Any, usual: Path
) -> None:
    theirs = pd.DataFrame(
        {
            "N": grid["params"],
            "D": grid["tokens"],
            "bs": grid["batch_tokens"] / 2048,
            "seq": 2048,
            "lr": grid["learning_rate"],
            "loss": grid["loss"],
        }
    )
    names = "tokens=D,batch_sequences=bs,sequence_length=seq,learning_rate=lr"
    for count in ("params_non_embedding", "params_active"):
        found, file = fitted(theirs, "--map", f"{count}=N,{names}")
        assert best_at(file)["optimum"] == best_at(usual)["optimum"]
        assert found["provenance"]["setup"]["params_kind"] == count
        assert "W-DERIVED" in codes(found)


def test_recipes_mixed_in_one_table_are_told_and_keep_their_own_level(
    grid: pd.DataFrame, fitted: Any
) -> None:
    worse = grid.assign(schedule="wsd", loss=lambda frame: frame["loss"] + 0.05)
    found, file = fitted(pd.concat([grid.assign(schedule="cosine"), worse]))
    best = best_at(file)["optimum"]
    assert "W-MIXED-RECIPE" in codes(found)
    assert found["groups"] == 12
    assert best["batch_tokens"]["value"] == pytest.approx(float(TRUTH.optimal_batch_tokens(**AT)), rel=0.15)
    assert best["learning_rate"]["value"] == pytest.approx(float(TRUTH.optimal_learning_rate(**AT)), rel=0.15)


def test_seeds_and_repeated_rows_are_no_settings_of_their_own(grid: pd.DataFrame, fitted: Any) -> None:
    found, file = fitted(pd.concat([grid.assign(seed=0), grid.assign(seed=1), grid[::5].assign(seed=1)]))
    assert found["groups"] == 6
    assert best_at(file)["optimum"]["batch_tokens"]["value"] == pytest.approx(
        float(TRUTH.optimal_batch_tokens(**AT)), rel=0.1
    )


def test_diverged_runs_end_a_grid(grid: pd.DataFrame, fitted: Any) -> None:
    here = (grid["params"] == 6e7) & (grid["tokens"] == 6e8)
    best = grid.loc[grid[here]["loss"].idxmin(), "learning_rate"]
    high = here & (grid["learning_rate"] > best)
    cut, _ = fitted(grid[~high])
    assert "highest learning rate" in _message(cut, "W-EDGE-LEARNING-RATE")
    lost, _ = fitted(grid.assign(status=np.where(high, "diverged", "ok")))
    assert not any("highest" in w["message"] for w in lost["warnings"] if w["code"] == "W-EDGE-LEARNING-RATE")
    every, _ = fitted(grid.assign(status=np.where(here, "diverged", "ok"), loss=grid["loss"].where(~here)))
    assert f"all {here.sum()} runs diverged in 1 of 6" in _message(every, "W-ALL-DIVERGED")


def _message(found: Any, code: str) -> str:
    return next(str(warning["message"]) for warning in found["warnings"] if warning["code"] == code)


def test_rates_that_all_diverged_are_refused_and_lower_ones_proposed(
    grid: pd.DataFrame, tmp_path: Path
) -> None:
    file = tmp_path / "runs.csv"
    grid.assign(status="diverged").to_csv(file, index=False)
    result = run("fit", file, "--law", "landscape")
    assert result.exit_code == 11
    assert "lower learning rates" in result.stderr


def test_an_optimum_beyond_the_grid_is_refused_with_its_side_and_designed_for(
    grid: pd.DataFrame, tmp_path: Path
) -> None:
    best = TRUTH.optimal_learning_rate(grid["params"].to_numpy(), grid["tokens"].to_numpy())
    file, spec = tmp_path / "runs.csv", tmp_path / "next.toml"
    grid[grid["learning_rate"] < best / 2].to_csv(file, index=False)
    for law in ("landscape", "landscape-two-stage"):
        result = run("fit", file, "--law", law)
        assert result.exit_code == 21
        assert "the highest in 6" in result.stderr
        assert "scalecli design --runs" in result.stderr
    found = document("design", "--runs", file, "--spec", spec)
    Draft202012Validator(document_schema("design")).validate(found)
    assert len(found["edges"]) >= 12
    proposed = tomllib.loads(spec.read_text())["runs"]
    tried = grid[grid["learning_rate"] < best / 2].groupby(["params", "tokens"])["learning_rate"].max()
    for setting in tried.index:
        rates = [r["learning_rate"] for r in proposed if np.allclose((r["params"], r["tokens"]), setting)]
        assert max(rates) > tried[setting]
    assert run("design", "--runs", file, "--budget", "1").exit_code == 10


def test_a_grid_without_edges_has_nothing_beyond(grid: pd.DataFrame, tmp_path: Path) -> None:
    near = TRUTH.optimal_batch_tokens(grid["params"].to_numpy(), grid["tokens"].to_numpy())
    wide = grid.assign(loss=TRUTH.predict({name: grid[name].to_numpy() for name in TRUTH.inputs}))
    wide[(np.abs(np.log(wide["batch_tokens"] / near)) < 2)].to_csv(tmp_path / "runs.csv", index=False)
    result = run("design", "--runs", tmp_path / "runs.csv")
    assert result.exit_code == 10
    assert "in no setting" in result.stderr
    assert run("design").exit_code == 2


def test_one_batch_says_nothing_of_the_best_batch(grid: pd.DataFrame, fitted: Any) -> None:
    found, file = fitted(grid[grid["batch_tokens"] == BATCHES[2]])
    assert "W-ONE-BATCH" in codes(found)
    best = best_at(file)
    assert best["optimum"]["batch_tokens"] is None
    assert best["optimum"]["learning_rate"]["value"] > 0
    plan = document("plan", "--params", "1e9", "--tokens", "3e10", "--fit", file)
    assert {"W-BATCH-NOT-IDENTIFIED", "W-FOLKLORE", "W-RATE-AT-OTHER-BATCH"} <= codes(plan)


def test_sequences_for_tokens_are_told(grid: pd.DataFrame, fitted: Any) -> None:
    assert "W-BATCH-UNIT" in codes(fitted(grid.assign(batch_tokens=grid["batch_tokens"] / 2048))[0])


def test_a_target_far_beyond_the_runs_is_uncalibrated(usual: Path) -> None:
    plan = document("plan", "--params", "70B", "--tokens", "10T", "--fit", usual)
    assert "W-UNCALIBRATED-INTERVAL" in codes(plan)
    marked = {line["name"] for line in plan["lines"] if "uncalibrated" in (line["warning"] or "")}
    assert {"batch", "learning rate"} <= marked
    assert "tokens 388× beyond the runs" in _message(plan, "W-UNCALIBRATED-INTERVAL")
    assert plan["presets"]


def test_recommendations_are_judged_by_settings_that_were_held_out(
    grid: pd.DataFrame, tmp_path: Path
) -> None:
    file = tmp_path / "runs.csv"
    words = ["validate", file, "--law", "landscape", "--draws", "20", "--hold-out-largest", "params:1"]
    grid.to_csv(file, index=False)
    found = document(*words)
    Draft202012Validator(document_schema("validation")).validate(found)
    judged = found["recommendation"]
    assert (judged["settings"], judged["outside"]) == (2, 0)
    assert judged["worst_excess"] < 5e-4
    assert [point["params"] for point in judged["points"]] == pytest.approx([4.3e8, 4.3e8])
    assert "judged by their runs" in run(*words).stdout


def test_the_recorded_grid_from_runs_to_plan(tmp_path: Path) -> None:
    runs, file = Path(__file__).parents[1] / "data" / "cpu_landscape" / "runs.csv", tmp_path / "fit.json"
    found = document("fit", runs, "--law", "landscape", "--draws", "40", "--out", file)
    assert "W-SMALL-PROXIES" in codes(found)
    assert not {"W-MIXED-RECIPE", "W-EDGE-LEARNING-RATE", "W-EDGE-BATCH", "W-BATCH-UNIT"} & codes(found)
    assert found["parameters"]["batch_tokens"]["value"] == pytest.approx(0.55, abs=0.1)
    assert found["parameters"]["lr_params"]["value"] < 0
    words = [
        "plan",
        "--params",
        "1M",
        "--vocab",
        "256",
        "--tokens",
        "30M",
        "--sequence-length",
        "32",
        "--fit",
        file,
    ]
    plan = document(*words, "--recipe", "schedule=cosine")
    assert "schedule differs" in _message(plan, "W-SETUP-MISMATCH")
    assert "that hold-outs went" in _message(plan, "W-UNCALIBRATED-INTERVAL")
    rate, batch = plan["learning_rate"], plan["batch"]
    assert rate["decay_tokens"] == pytest.approx(0.2 * 30e6, rel=0.01)
    assert rate["warmup_tokens"] == pytest.approx(1e6, rel=0.01)
    assert rate["flat_range"][0] < rate["peak"]["value"] < rate["flat_range"][1]
    assert batch["flat_range_tokens"][0] < batch["tokens"]["value"] < batch["flat_range_tokens"][1]
    worst = max(batch["tradeoff"], key=lambda row: row["excess_loss"])
    assert worst["excess_compute_fraction"] > 0.1
    assert any(not preset["valid"] for preset in plan["presets"])
    assert "within 0.1 % of the loss" in run(*words).stdout
