"""Robustness over rate and batch: grids whose excess is known, and token ratios of optimizers that are told apart."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from scalecli.cli.app import app
from scalecli.data.tables import RunTable, read_runs
from scalecli.errors import DataError, TooFewRuns
from scalecli.fitters.compare.sensitivity import sensitivity
from scalecli.fitters.critical.frontier import critical_batches_by


def grid(
    recipe: str, curvature: float, *, params: float = 1e6, best: float = 1e-2, seeds: int = 1, reach: int = 2
) -> list[dict[str, Any]]:
    """A bowl about (best, 4096 tokens): loss 2 + curvature times squared octaves; diverged two octaves above."""
    return [
        {
            "optimizer": recipe, "params": params, "tokens": 1e8 * (1 + 0.01 * b), "learning_rate": best * 2.0**r,
            "batch_tokens": 4096 * 2.0**b, "loss": 2 + curvature * (r * r + b * b), "status": "ok", "seed": seed,
        }
        for r in range(-reach, reach + 1)
        for b in (-1, 0, 1)
        for seed in range(seeds)
    ]  # fmt: skip


def table(tmp_path: Path, rows: list[dict[str, Any]]) -> RunTable:
    path = tmp_path / "runs.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return read_runs(path, keep_status=("ok", "diverged"))


def test_the_excess_of_known_bowls_and_the_robust_one_first(tmp_path: Path) -> None:
    found = sensitivity(table(tmp_path, [*grid("sharp", 0.1, best=1e-3), *grid("flat", 0.02)]), "optimizer")
    means = {recipe["recipe"]: recipe["sensitivity"]["value"] for recipe in found["recipes"]}
    assert [recipe["recipe"] for recipe in found["recipes"]] == ["flat", "sharp"]
    assert means["sharp"] == pytest.approx(0.1 * (2 + 2 / 3))  # mean of r^2 over -2..2 and of b^2 over -1..1
    assert means["flat"] == pytest.approx(0.02 * (2 + 2 / 3))
    assert not found["warnings"]
    flat = found["recipes"][0]
    assert (flat["rate_octaves"], flat["batch_octaves"]) == (
        2.0,
        2.0,
    )  # 1 % of the loss is one octave to each side


def test_a_run_that_diverged_counts_as_guessing(tmp_path: Path) -> None:
    rows = grid("adamw", 0.1)
    for row in rows:
        row["vocab_size"] = 100
        if row["learning_rate"] > 0.03:
            row.update(loss=float("nan"), status="diverged")
    (recipe,) = sensitivity(table(tmp_path, rows), "optimizer")["recipes"]
    assert recipe["diverged"] == 3
    known = sum(0.1 * (r * r + b * b) for r in (-2, -1, 0, 1) for b in (-1, 0, 1))
    assert recipe["sensitivity"]["value"] == pytest.approx((known + 3 * (math.log(100) - 2)) / 15)


def test_intervals_are_over_sizes_and_lengths(tmp_path: Path) -> None:
    rows = [row for params in (1e6, 2e6, 4e6) for row in grid("adamw", 0.1 * params / 1e6, params=params)]
    (recipe,) = sensitivity(table(tmp_path, rows), "optimizer")["recipes"]
    span = recipe["sensitivity"]
    assert recipe["settings"] == 3
    assert span["low"] < span["value"] < span["high"]


def test_grids_that_reach_less_far_are_told_and_too_small_ones_refused(tmp_path: Path) -> None:
    found = sensitivity(table(tmp_path, [*grid("wide", 0.1), *grid("narrow", 0.1, reach=1)]), "optimizer")
    assert [warning["code"] for warning in found["warnings"]] == ["W-GRIDS-DIFFER"]
    near = sensitivity(
        table(tmp_path, [*grid("wide", 0.1), *grid("narrow", 0.1, reach=1)]), "optimizer", reach=1.0
    )
    assert not near["warnings"]
    with pytest.raises(TooFewRuns, match="4 points"):
        sensitivity(table(tmp_path, grid("adamw", 0.1, reach=0)), "optimizer")


def steps(recipe: str, s_min: float, e_min: float, batches: tuple[float, ...]) -> list[dict[str, Any]]:
    return [
        {
            "optimizer": recipe,
            "loss": 3.0,
            "batch_tokens": batch,
            "steps": s_min + e_min / batch,
            "schedule": "constant",
        }
        for batch in batches
    ]


BATCHES = (1e3, 4e3, 1.6e4, 6.4e4, 2.56e5)


def test_each_optimizer_has_its_own_critical_batch_and_tokens_are_compared_at_equal_batches(
    tmp_path: Path,
) -> None:
    """Muon with half the steps at every batch large and small: two tokens of AdamW for one, everywhere."""
    rows = [
        *steps("adamw", 1000, 2e7, BATCHES),
        *steps("muon", 500, 1e7, BATCHES),
        *steps("lamb", 500, 2e7, BATCHES),
    ]
    found = critical_batches_by(table(tmp_path, rows), "optimizer", reference="adamw")
    crit = {recipe["recipe"]: recipe["targets"][0]["critical"][0]["tokens"] for recipe in found["recipes"]}
    assert crit["adamw"] == pytest.approx(2e4, rel=0.02)
    assert crit["muon"] == pytest.approx(2e4, rel=0.02)
    assert crit["lamb"] == pytest.approx(4e4, rel=0.02)
    ratios = {
        name: [ratio["token_ratio"] for ratio in found["ratios"] if ratio["recipe"] == name]
        for name in ("muon", "lamb")
    }
    assert ratios["muon"] == pytest.approx([2.0] * 5)
    assert ratios["lamb"] == sorted(ratios["lamb"])  # the gain grows with the batch
    assert 1 < ratios["lamb"][0] < ratios["lamb"][-1] < 2


def test_token_ratios_are_as_sure_as_steps_scatter_about_their_curves(tmp_path: Path) -> None:
    """The interval holds the truth, 2, at about the nominal rate, and two batches leave it open."""
    rng = np.random.default_rng(0)
    inside = []
    for world in range(40):
        rows = [*steps("adamw", 1000, 2e7, BATCHES), *steps("muon", 500, 1e7, BATCHES)]
        noisy = [row | {"steps": row["steps"] * np.exp(0.05 * rng.standard_normal())} for row in rows]
        folder = tmp_path / str(world)
        folder.mkdir()
        found = critical_batches_by(table(folder, noisy), "optimizer")["ratios"]
        inside += [ratio["low"] < 2 < ratio["high"] for ratio in found]
    assert 0.8 < np.mean(inside) < 0.97
    few = [*steps("adamw", 1000, 2e7, BATCHES[:2]), *steps("muon", 500, 1e7, BATCHES[:2])]
    open_ = critical_batches_by(table(tmp_path, few), "optimizer")["ratios"]
    assert {ratio["low"] for ratio in open_} == {None}


def test_one_recipe_or_an_unknown_reference_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to compare"):
        critical_batches_by(table(tmp_path, steps("adamw", 1000, 2e7, BATCHES)), "optimizer")
    both = table(tmp_path, [*steps("adamw", 1000, 2e7, BATCHES), *steps("muon", 500, 1e7, BATCHES)])
    with pytest.raises(DataError, match="sgd"):
        critical_batches_by(both, "optimizer", reference="sgd")


def test_from_the_command_line(tmp_path: Path) -> None:
    table(tmp_path, [*grid("sharp", 0.1), *grid("flat", 0.02)])
    told = CliRunner().invoke(app, ["sensitivity", str(tmp_path / "runs.csv")])
    assert told.exit_code == 0, told.stderr
    assert told.stdout.index("flat") < told.stdout.index("sharp")
    table(tmp_path, [*steps("adamw", 1000, 2e7, BATCHES), *steps("muon", 500, 1e7, BATCHES)])
    told = CliRunner().invoke(app, ["critical-batch", str(tmp_path / "runs.csv"), "--by", "optimizer"])
    assert told.exit_code == 0, told.stderr
    assert "Token ratio at equal loss" in told.stdout
