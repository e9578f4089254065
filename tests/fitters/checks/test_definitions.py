"""What other counts of parameters and FLOPs make of a fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scalecli.data.tables import RunTable, read_runs
from scalecli.fitters.fit import FitOptions
from scalecli.fitters.laws import law_named
from scalecli.fitters.laws.chinchilla import Chinchilla
from scalecli.fitters.runs import fit_runs

OPTIONS = FitOptions(draws=100)
GADRE = Path(__file__).parents[2] / "data" / "gadre_c4_small" / "runs.csv"


def table(**columns: np.ndarray) -> RunTable:
    frame = pd.DataFrame(columns)
    return RunTable(frame, np.arange(len(frame)), len(frame), (), "test", "0")


def worlds() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Non-embedding sizes, totals that the embeddings of a fixed vocabulary inflate, and tokens."""
    sizes, tokens = (grid.ravel() for grid in np.meshgrid(np.logspace(5, 8, 8), np.logspace(8, 11, 6)))
    return sizes, sizes + 3e4 * sizes ** (1 / 3), tokens


def test_the_count_that_embeddings_inflate_moves_the_exponent_and_is_warned_of() -> None:
    sizes, totals, tokens = worlds()
    noise = np.exp(np.random.default_rng(0).normal(0, 1e-4, sizes.size))
    truth = Chinchilla(E=1.7, A=400.0, B=1200.0, alpha=0.34, beta=0.34)
    loss = truth.predict({"params": sizes, "tokens": tokens}) * noise
    runs = table(params=totals, params_non_embedding=sizes, tokens=tokens, loss=loss)
    fit = fit_runs(runs, Chinchilla, options=OPTIONS)
    (other,) = fit.diagnostics["definitions"]
    assert other["definition"] == "params = params_non_embedding"
    assert other["allocation_exponent"] == pytest.approx(0.5, abs=0.01)
    assert other["parameters"]["alpha"] == pytest.approx(0.34, abs=0.01)
    assert "W-DEFINITION" in {notice.code for notice in fit.warnings}


def test_counts_that_agree_are_one_definition() -> None:
    sizes, _, tokens = worlds()
    loss = 1.7 + 400 * sizes**-0.34 + 1200 * tokens**-0.31
    runs = table(params=sizes, params_non_embedding=sizes * 1.001, tokens=tokens, loss=loss)
    assert fit_runs(runs, Chinchilla, options=OPTIONS).diagnostics["definitions"] == []


def test_recorded_flops_stand_beside_six_nd() -> None:
    sizes, _, tokens = worlds()
    exact = 6 * sizes * tokens * (1 + 1e3 / sizes**0.5)
    runs = table(params=sizes, tokens=tokens, flops=exact, loss=3e3 * exact**-0.15)
    fit = fit_runs(runs, law_named("power:flops"), group="none", options=OPTIONS)
    (other,) = fit.diagnostics["definitions"]
    assert other["definition"] == "flops = 6 params tokens"
    assert other["allocation_exponent"] is None


def test_a_public_table_with_two_counts_reports_both() -> None:
    fit = fit_runs(read_runs(GADRE, map={"loss": "loss_c4_val"}), Chinchilla, options=OPTIONS)
    (other,) = fit.diagnostics["definitions"]
    assert other["definition"] == "params = params_non_embedding"
    assert other["parameters"]["E"] != pytest.approx(fit.law.E, rel=0.05)
