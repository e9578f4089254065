"""`scalecli compare` on fits of two training recipes."""

from __future__ import annotations

import json
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
def fits(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Tuned for every size, and one setting for all sizes (Porian et al. 2024)."""
    folder = tmp_path_factory.mktemp("fits")
    wanted = {"tuned": "hparams == 'tuned'", "base": "hparams == 'base' and decay == 'chinchilla'"}
    files = []
    for name, where in wanted.items():
        files.append(folder / f"{name}.fit.json")
        result = run("fit", RUNS, "--where", where, "--draws", "100", "--out", files[-1])
        assert result.exit_code == 0, result.stderr
    return files


def test_comparison_document(fits: list[Path]) -> None:
    result = run("compare", *fits, "--target", "1e22", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    Draft202012Validator(document_schema("comparison")).validate(found)
    first = found["multipliers"][0]
    assert first["value"] > 1, "untuned small models need more compute than tuned ones"
    assert found["range"][1] >= 1e22
    assert set(found["shared_exponents"]["exponents"]) == {"alpha", "beta"}
    assert found["target"]["at"] == 1e22


def test_swapped_fits_swap_the_answer(fits: list[Path]) -> None:
    one, two = (json.loads(run("compare", *order, "--json").stdout) for order in (fits, fits[::-1]))
    assert [c["value"] for c in one["crossovers"]] == pytest.approx([c["value"] for c in two["crossovers"]])
    swapped = {"first": "second", "second": "first"}
    assert [swapped[c["better_above"]] for c in one["crossovers"]] == [
        c["better_above"] for c in two["crossovers"]
    ]


def test_another_axis(fits: list[Path]) -> None:
    result = run("compare", *fits, "--along", "tokens", "--at", "params=50M")
    assert result.exit_code == 0, result.stderr
    assert "what the second needs to match the first" in result.stdout


def test_wrong_questions_have_exit_codes(fits: list[Path], tmp_path: Path) -> None:
    assert run("compare", *fits, "--along", "tokens").exit_code == 10
    assert run("compare", fits[0], tmp_path / "none.fit.json").exit_code == 10
    assert run("compare", fits[0]).exit_code == 2
