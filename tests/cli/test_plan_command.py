"""`scalecli plan` and `scalecli critical-batch` from the command line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from scalecli.cli.app import app
from scalecli.export.schemas import document_schema

TARGET = ("plan", "--params", "1B", "--tokens-per-param", "20")


def run(*words: str | Path) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def plan(*words: str | Path) -> Any:
    result = run(*TARGET, *words, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    Draft202012Validator(document_schema("plan")).validate(document)
    return document


def test_without_runs_the_plan_is_a_spread_of_published_rules() -> None:
    document = plan()
    batch = document["batch"]["tokens"]
    assert batch["low"] < batch["value"] < batch["high"]
    assert "W-FOLKLORE" in {warning["code"] for warning in document["warnings"]}
    kinds = {(preset["source"], preset["quantity"]) for preset in document["presets"]}
    assert {("StepLaw", "optimum"), ("Zhang", "critical"), ("Kaplan", "critical")} <= kinds
    assert document["memory"]["fits"] is None
    assert document["cost"] is None


def test_the_tables_read_the_same_without_json() -> None:
    result = run(
        *TARGET, "--from", "batch=512k,lr=3e-4,params=1B,tokens=20B,beta2=0.95", "--batch-tokens", "2M"
    )
    assert result.exit_code == 0, result.stderr
    assert "Your setting, moved" in result.stdout
    assert "square root" in result.stdout
    assert "StepLaw" in result.stdout


def test_one_good_setting_is_moved_with_its_rules_side_by_side() -> None:
    document = plan("--from", "batch=512k,lr=3e-4,params=250M,tokens=5B,weight_decay=0.1")
    moved = document["moved"]
    assert {"steplaw2025", "bi2024", "malladi2022", "marek2025", "wang2024"} <= {
        entry["source"] for entry in moved
    }
    peak = document["learning_rate"]["peak"]
    assert peak["low"] < peak["value"] < peak["high"]
    assert document["provenance"]["options"]["setting"]["params"] == 2.5e8


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--objective", "speed"), 2),
        (("--fix", "time"), 2),
        (("--batch-schedule", "random"), 2),
        (("--objective", "time"), 40),
        (("--max-batch-tokens", "100"), 40),
        (("--workload", "vision"), 2),
        (("--probe", "nothing.json"), 40),
        (("--batch-tokens", "512"), 40),
        (("--from", "batch=1M,lr=3e-4"), 40),
        (("--from", "batch=20,lr=3e-4,params=1B,tokens=20B,optimizer=adm"), 10),
    ],
)
def test_wrong_use_has_its_code_and_one_line(words: tuple[str, ...], code: int) -> None:
    result = run(*TARGET, *words, "--json")
    assert result.exit_code == code
    assert result.stdout == ""
    assert json.loads(result.stderr.strip().splitlines()[-1])["error"]["code"] == code


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Steps to five targets over nine batches; B_crit = 2e7 L^-4."""
    path = tmp_path_factory.mktemp("critical") / "steps.csv"
    random = np.random.default_rng(1)
    lines = ["loss,batch_tokens,steps,schedule,params,tokenizer"]
    for loss in (3.6, 3.3, 3.0, 2.8, 2.6):
        for batch in np.geomspace(2**12, 2**21, 9).round():
            count = 5e3 / loss * (1 + 2e7 * loss**-4 / batch) * math.exp(0.02 * random.normal())
            lines.append(f"{loss},{batch:.0f},{count:.1f},constant,1000000,bytes")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_critical_batches_become_a_law_and_a_plan(steps: Path, tmp_path: Path) -> None:
    rows, fit = tmp_path / "critical.csv", tmp_path / "critical.fit.json"
    result = run("critical-batch", steps, "--rows", rows, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    Draft202012Validator(document_schema("critical-batch")).validate(document)
    for target in document["targets"]:
        assert target["status"] == "identified"
        found = target["critical"][0]
        assert found["low"] <= found["tokens"] <= found["high"]
        assert found["tokens"] == pytest.approx(2e7 * target["loss"] ** -4, rel=0.15)
    fitted = run("fit", rows, "--law", "critical-batch-tokens", "--draws", "50", "--out", fit)
    assert fitted.exit_code == 0, fitted.stderr
    planned = plan("--fit", fit, "--objective", "max-extra-tokens=10%", "--batch-schedule", "critical")
    critical = planned["batch"]["critical_tokens"]
    assert critical["definition"].startswith("hyperbola")
    assert planned["batch"]["tokens"]["value"] == pytest.approx(0.1 * critical["value"])
    stages = planned["batch"]["schedule"]
    assert len(stages) > 1
    assert stages[-1]["batch_tokens"] == planned["batch"]["sequences"] * 2048


def test_not_identified_is_an_answer_on_the_terminal_too(steps: Path) -> None:
    result = run("critical-batch", steps, "--where", "batch_tokens < 30000")
    assert result.exit_code == 0, result.stderr
    assert "not identified" in result.stdout
    assert "add larger batches" in " ".join(result.stdout.split())
