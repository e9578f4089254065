"""The best run of every setting, and the warning that a loss law goes through untuned runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from scalecli.cli.app import app
from scalecli.data.tables import RunTable
from scalecli.fitters.frontier import best_of_settings
from scalecli.fitters.laws.chinchilla import Chinchilla

TRUTH = Chinchilla(E=1.7, A=400.0, B=1200.0, alpha=0.34, beta=0.31)


def sweep() -> pd.DataFrame:
    """A grid of rates at every size and length; tokens are rounded differently by every batch."""
    rows = []
    for size in np.logspace(6, 8, 4):
        for tokens in np.logspace(8, 10, 4):
            for batch, rounding in ((512, 1.0), (1024, 1.01)):
                for rate in (1e-3, 2e-3, 4e-3):
                    best = TRUTH.predict({"params": np.array(size), "tokens": np.array(tokens)})
                    off = 0.1 * np.log(rate / 2e-3) ** 2 + 0.05 * (batch == 1024)
                    rows.append((size, tokens * rounding, batch, rate, float(best) + off))
    return pd.DataFrame(rows, columns=["params", "tokens", "batch_tokens", "learning_rate", "loss"])


def test_the_best_of_every_setting_is_kept_and_the_others_are_counted() -> None:
    frame = sweep()
    runs = RunTable(frame, np.arange(len(frame)), len(frame), (), "test", "0")
    kept = best_of_settings(runs)
    assert len(kept) == 16
    assert set(kept.frame["learning_rate"]) == {2e-3}
    assert set(kept.frame["batch_tokens"]) == {512}
    assert kept.dropped[-1].count == len(frame) - 16


def test_replicas_that_train_apart_are_settings_of_their_own(tmp_path: Path) -> None:
    apart = [
        sweep().assign(replicas=count, loss=lambda runs, count=count: runs["loss"] + 0.01 * np.log2(count))
        for count in (1, 2, 4)
    ]
    frame = pd.concat(apart, ignore_index=True)
    runs = RunTable(frame, np.arange(len(frame)), len(frame), (), "test", "0")
    kept = best_of_settings(runs)
    assert kept.frame["replicas"].value_counts().to_dict() == {1: 16, 2: 16, 4: 16}
    path = tmp_path / "best.csv"
    kept.frame.to_csv(path, index=False)
    result = CliRunner().invoke(app, ["fit", str(path), "--law", "diloco", "--draws", "20", "--json"])
    assert "W-UNTUNED-RUNS" not in result.stdout


def test_a_sweep_is_warned_of_and_tuned_recovers_the_law(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    sweep().to_csv(path, index=False)

    def fit(*words: str) -> dict[str, object]:
        result = CliRunner().invoke(app, ["fit", str(path), "--draws", "20", *words, "--json"])
        assert result.exit_code == 0, result.stderr
        found: dict[str, object] = json.loads(result.stdout)
        return found

    whole, tuned = fit(), fit("--tuned")
    assert "W-UNTUNED-RUNS" in {warning["code"] for warning in whole["warnings"]}  # type: ignore[index, attr-defined]
    assert "W-UNTUNED-RUNS" not in {warning["code"] for warning in tuned["warnings"]}  # type: ignore[index, attr-defined]
    for name in ("E", "A", "B", "alpha", "beta"):
        assert tuned["parameters"][name]["value"] == pytest.approx(getattr(TRUTH, name), rel=1e-3)  # type: ignore[index]


def test_gaps_in_columns_that_the_law_does_not_read_are_no_error(tmp_path: Path) -> None:
    frame = sweep()
    frame.loc[0, "tokens"] = np.nan
    path = tmp_path / "runs.csv"
    frame.to_csv(path, index=False)
    result = CliRunner().invoke(app, ["fit", str(path), "--law", "power", "--draws", "20", "--json"])
    assert result.exit_code == 0, result.stderr
