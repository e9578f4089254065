"""Arms, trajectories, ladders, oracles, questions and rivals from the command line, on runs with a known law."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from scalecli.cli.app import app
from scalecli.data.store import Store
from scalecli.export.schemas import document_schema
from scalecli.fitters.laws.chinchilla import Chinchilla
from scalecli.fitters.laws.trajectory import Trajectory

PLAIN = Chinchilla(E=1.8, A=480.0, B=2100.0, alpha=0.35, beta=0.37)
BETTER_FAR_OUT = Chinchilla(E=1.7, A=800.0, B=2100.0, alpha=0.35, beta=0.37)
CURVES = Trajectory(A=22.0, alpha=0.076, B=75.0, beta=0.67, B_star=4e8, alpha_B=0.205)
SPEED = 4e13
"""FLOP/s of the runs."""


def run(*words: str | Path) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def told(schema: str, *words: str | Path) -> Any:
    result = run(*words, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    Draft202012Validator(document_schema(schema)).validate(document)
    return document


def warned(document: Any) -> set[str]:
    return {warning["code"] for warning in document["warnings"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`runs.csv` of two optimizers, and a fit of each from one joint search."""
    where = tmp_path_factory.mktemp("arms")
    size, ratio = (axis.ravel() for axis in np.meshgrid(np.geomspace(2e7, 1e9, 6), [5.0, 20.0, 80.0]))
    x = {"params": size, "tokens": size * ratio}
    noise = np.random.default_rng(0)
    frames = [
        pd.DataFrame(
            {
                **x,
                "loss": law.predict(x) * np.exp(0.001 * noise.standard_normal(len(size))),
                "optimizer": arm,
                "device_hours": 6 * size * size * ratio / SPEED / 3600,
            }
        )
        for arm, law in (("adamw", PLAIN), ("muon", BETTER_FAR_OUT))
    ]
    pd.concat(frames).to_csv(where / "runs.csv", index=False)
    out = where / "{arm}.fit.json"
    found = told("arms", "fit", where / "runs.csv", "--arms", "optimizer", "--draws", "100", "--out", out)
    assert set(found["shared"]) == {"alpha", "beta"}
    assert found["p_value"] > 0.05
    return where


def test_arms_need_a_place_for_each_and_a_law(folder: Path) -> None:
    fit = ("fit", folder / "runs.csv", "--arms", "optimizer")
    assert run(*fit, "--out", folder / "one.json").exit_code == 2
    assert run(*fit, "--law", "auto").exit_code == 2


def test_a_fit_tells_device_hours(folder: Path) -> None:
    place = told("prediction", "predict", folder / "adamw.fit.json", "--at", "params=1e9,tokens=2e10")[
        "points"
    ][0]
    assert place["device_hours"] == pytest.approx(6 * 1e9 * 2e10 / SPEED / 3600, rel=0.01)
    by_hours = told(
        "comparison",
        "compare",
        folder / "adamw.fit.json",
        folder / "muon.fit.json",
        "--along",
        "device_hours",
    )
    assert by_hours["shared_by_construction"] == ["alpha", "beta"]


def test_a_plan_beyond_a_crossover_is_warned_of(folder: Path) -> None:
    plan = ("plan", "--fit", folder / "adamw.fit.json", "--rival", folder / "muon.fit.json")
    assert "W-BEYOND-CROSSOVER" in warned(told("plan", *plan, "--params", "70B", "--tokens", "14T"))
    assert "W-BEYOND-CROSSOVER" not in warned(told("plan", *plan, "--params", "100M", "--tokens", "2B"))


def test_a_law_answers_its_own_questions(folder: Path) -> None:
    ask = ("predict", folder / "adamw.fit.json", "--ask", "optimal_params", "--at", "flops=1e21")
    (answer,) = told("prediction", *ask)["points"]
    assert answer["low"] <= PLAIN.optimal_params(1e21) <= answer["high"]
    assert run(*ask, "--solve", "tokens").exit_code == 2


def test_a_training_is_told_from_the_loss_curves_of_a_store(tmp_path: Path) -> None:
    with Store.open(tmp_path / "runs.db") as store:
        for size in np.geomspace(1e6, 6e7, 5):
            for batch in (2e4, 1e5, 5e5):
                _train(store, float(size), batch)
    at = ("--at", "params=1e9,batch_tokens=5e5")
    found = told("trajectory", "trajectory", tmp_path / "runs.db", *at, "--loss", "5.0")
    (reached,) = found["losses"]
    assert reached["critical_batch_tokens"]["value"] == pytest.approx(
        CURVES.critical_batch_tokens(5.0), rel=0.1
    )
    assert reached["S_min"]["value"] == pytest.approx(CURVES.min_steps(5.0, 1e9), rel=0.1)
    exported = run("runs", "export", tmp_path / "runs.db", "--readings", "-o", tmp_path / "curves.csv")
    assert exported.exit_code == 0, exported.stderr
    assert len(pd.read_csv(tmp_path / "curves.csv")) == 15 * 9


def _train(store: Store, size: float, batch: float) -> None:
    """A run of 20,000 steps with a reading at eight places before."""
    steps = np.geomspace(500, 2e4, 9).round()
    x = {"params": np.full(9, size), "steps": steps, "batch_tokens": np.full(9, batch)}
    loss = CURVES.predict(x) * np.exp(0.001 * np.random.default_rng(int(size + batch)).standard_normal(9))
    name = f"{size:.0f}-{batch:.0f}"
    readings = [
        {"kind": "step", "run_id": name, "step": int(at), "loss": value}
        for at, value in zip(steps[:-1], loss[:-1].tolist(), strict=True)
    ]
    end = {
        "params": size,
        "batch_tokens": batch,
        "steps": 20_000,
        "tokens": 2e4 * batch,
        "loss": float(loss[-1]),
    }
    lines = [*readings, {"kind": "result", "run_id": name, "status": "ok", **end}]
    file = store.attempts / f"{name}.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    store.ingest(file)


def test_shapes_off_the_front_of_a_ladder_are_named(tmp_path: Path) -> None:
    rows = [
        {"params": size, "width": width, "depth": depth, "tokens": 20 * size, "loss": loss * factor}
        for size, loss in ((1e7, 3.6), (4e7, 3.2), (16e7, 2.9))
        for width, depth, factor in ((256, 12, 1.0), (768, 2, 1.03))
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "ladder.csv", index=False)
    found = told("ladder-check", "validate", tmp_path / "ladder.csv", "--ladder", "flops")
    off = [rung["shape"] for rung in found["rungs"] if rung["excess"] > 0.01]
    assert [shape["width"] for shape in off] == [768, 768, 768]
    assert "W-LADDER" in warned(found)


@pytest.mark.parametrize(("epochs", "scaled"), [("50", "width"), ("350", "depth")])
def test_cnn_ladders_scale_what_their_length_asks_for(epochs: str, scaled: str) -> None:
    found = told("cnn-ladder", "probe", "cnn-ladder", "--epochs", epochs, "--rungs", "3")
    assert found["scaled_by"] == scaled
    grown = [rung[scaled] for rung in found["rungs"]]
    assert grown == sorted(set(grown))
    other = {"width": "depth", "depth": "width"}[scaled]
    assert len({rung[other] for rung in found["rungs"]}) == 1


def test_runs_of_a_solved_model_have_its_exponents(tmp_path: Path) -> None:
    file = tmp_path / "runs.csv"
    simulated = told("simulation", "runs", "simulate", "chinchilla", "--noise", "0.001", "-o", file)
    fitted = told("fit", "fit", file, "--law", "chinchilla", "--draws", "100")["parameters"]
    for name, truth in simulated["truth"].items():
        assert fitted[name.split()[0]]["value"] == pytest.approx(truth, rel=0.1)


def test_checkpoints_are_left_out_but_the_last(tmp_path: Path) -> None:
    rows = [
        {"name": f"m{size:g}-{ratio:g}", "params": size, "tokens": share * ratio * size, "loss": loss}
        for size in np.geomspace(2e7, 1e9, 5)
        for ratio in (5.0, 20.0, 80.0)
        for share in np.linspace(0.2, 1.0, 5)
        for loss in PLAIN.predict({"params": np.array([size]), "tokens": np.array([share * ratio * size])})
        / share**0.02
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "runs.csv", index=False)
    whole = told("fit", "fit", tmp_path / "runs.csv", "--draws", "50")
    last = told("fit", "fit", tmp_path / "runs.csv", "--final", "name", "--draws", "50")
    assert "W-CHECKPOINTS" in warned(whole)
    assert last["rows"]["used"] == 15
    assert last["parameters"]["alpha"]["value"] == pytest.approx(PLAIN.alpha, abs=0.005)
