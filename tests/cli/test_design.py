"""`scalecli design` from a fit to the specification of a sweep."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from scalecli.cli.app import app
from scalecli.export.schemas import document_schema

RUNS = Path(__file__).parents[1] / "data" / "porian_openwebtext2" / "isoflop_points.csv"


def run(*words: str | Path) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("design") / "tuned.fit.json"
    result = run("fit", RUNS, "--where", "hparams == 'tuned'", "--draws", "200", "--out", file)
    assert result.exit_code == 0, result.stderr
    return file


def test_design_document_and_specification(fit: Path, tmp_path: Path) -> None:
    spec = tmp_path / "next.toml"
    words = ["--fit", fit, "--answer", "params", "--at", "flops=1e22", "--budget", "1e20", "--spec", spec]
    result = run("design", *words, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    Draft202012Validator(document_schema("design")).validate(found)
    assert [plan["name"] for plan in found["plans"]] == ["information", "isoflop", "ladder"]
    assert found["plans"][0]["width"] < found["answer"]["width"]
    assert len(tomllib.loads(spec.read_text())["runs"]) == len(found["runs"])


def test_hours_are_a_budget(fit: Path) -> None:
    words = ["design", "--fit", fit, "--at", "params=7B,tokens=1.4T", "--hours", "3h"]
    assert run(*words).exit_code == 2
    found = json.loads(run(*words, "--flops-per-second", "1e15", "--json").stdout)
    assert found["budget_flops"] == pytest.approx(3 * 3600 * 1e15)
    assert sum(row["hours"] for row in found["runs"]) <= 3


def test_wrong_questions_have_exit_codes(fit: Path) -> None:
    base = ["design", "--fit", fit, "--at", "params=7B,tokens=1.4T"]
    assert run(*base).exit_code == 2
    assert run(*base, "--budget", "1e20", "--hours", "3h", "--flops-per-second", "1e15").exit_code == 2
    assert run(*base, "--budget", "1e20", "--answer", "batch").exit_code == 10
    assert run(*base, "--budget", "1e9").exit_code == 10
    assert run("design", "--fit", fit, "--at", "params=7B", "--budget", "1e20").exit_code == 10
