"""`scalecli validate` and the choice of laws from the command line, on public runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from scalecli.cli.app import app
from scalecli.export.schemas import document_schema

DATA = Path(__file__).parents[1] / "data"
GADRE = [str(DATA / "gadre_c4_small" / "runs.csv"), "--map", "loss=loss_c4_val"]
NMT = [
    str(DATA / "nmt_data_curves" / "curves.csv"),
    "--map",
    "tokens=training_examples",
    "--where",
    "architecture == '6 Enc, 6 Dec'",
]


def run(*words: str) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def document(name: str, *words: str) -> Any:
    result = run(*words, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    Draft202012Validator(document_schema(name)).validate(found)
    return found


def test_validation_document() -> None:
    found = document("validation", "validate", *GADRE, "--train-below", "flops=1e19", "--draws", "50")
    assert found["train"] == "flops below 1e+19"
    assert found["train_rows"] + found["heldout_rows"] == 31
    assert all(6 * p["at"]["params"] * p["at"]["tokens"] > 0.99e19 for p in found["points"])
    assert found["mean_abs_log_error"] < 0.1
    assert found["choice"] is None


def test_the_largest_models_held_out() -> None:
    found = document("validation", "validate", *GADRE, "--hold-out-largest", "params:1", "--draws", "50")
    assert {point["at"]["params"] for point in found["points"]} == {411616256.0}


def test_a_second_table_to_score_on(tmp_path: Path) -> None:
    rows = (DATA / "gadre_c4_small" / "runs.csv").read_text().splitlines()
    small, large = tmp_path / "small.csv", tmp_path / "large.csv"
    small.write_text("\n".join(rows[:-7]))
    large.write_text("\n".join([rows[0], *rows[-7:]]))
    found = document("validation", "validate", str(small), "--map", "loss=loss_c4_val", "--test", str(large))
    assert (found["train_rows"], found["heldout_rows"]) == (24, 7)


def test_ranking_document() -> None:
    found = document("validation-ranking", "validate", *NMT, "--law", "all", "--draws", "20")
    errors = [law["mean_abs_log_error"] for law in found["laws"]]
    assert errors == sorted(errors)
    assert {"chinchilla", "isoflop"} <= {law["law"] for law in found["unusable"]}


def test_auto_is_chosen_inside_the_training_runs() -> None:
    found = document("validation", "validate", *NMT, "--law", "auto", "--draws", "20")
    assert found["law"] == found["choice"]["laws"][0]["law"]
    assert found["heldout_rows"] >= 2


def test_fit_chooses_a_law() -> None:
    found = document("fit", "fit", *NMT, "--law", "auto", "--draws", "20")
    assert found["provenance"]["choice"]["laws"][0]["law"] == found["law"]


def test_fit_takes_a_formula_and_pins() -> None:
    text = "loss = E + A*params**-a + B*tokens**-b"
    found = document("fit", "fit", *GADRE, "--formula", text, "--draws", "20")
    named = document("fit", "fit", *GADRE, "--law", "chinchilla", "--draws", "20")
    assert found["objective"]["value"] == pytest.approx(named["objective"]["value"], rel=1e-6)
    pinned = document("fit", "fit", *GADRE, "--pin", "E=1.5", "--draws", "20")
    assert pinned["parameters"]["E"]["value"] == 1.5


def test_a_formula_is_validated_too() -> None:
    text = "E + A*params**-a + B*tokens**-b"
    found = document("validation", "validate", *GADRE, "--formula", text, "--draws", "20")
    assert found["law"] == "formula"


def test_small_proxies_are_left_out_on_request() -> None:
    everything = document("fit", "fit", *GADRE, "--draws", "0")
    large = document("fit", "fit", *GADRE, "--draws", "0", "--min-flops", "1e18", "--min-params", "50M")
    assert large["rows"]["used"] < everything["rows"]["used"]
    assert [drop["reason"] for drop in large["rows"]["dropped"]] == [
        "--where params >= 50000000.0",
        "--where flops >= 1e+18",
    ]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--train-below", "flops"], 2),
        (["--train-below", "flops=1e17,params=3"], 2),
        (["--hold-out-largest", "params"], 2),
        (["--train-below", "flops=1e17", "--hold-out-largest", "params:1"], 2),
        (["--train-below", "flops=1e30"], 11),
        (["--train-below", "depth=3"], 10),
        (["--hold-out-largest", "params:9"], 10),
        (["--law", "isoflop"], 10),
        (["--law", "no-such-law"], 10),
        (["--test", "no-such-file.csv"], 10),
    ],
)
def test_wrong_questions_have_exit_codes(words: list[str], code: int) -> None:
    result = run("validate", *GADRE, *words, "--json")
    assert result.exit_code == code, result.stderr
    assert result.stdout == ""
    assert json.loads(result.stderr.splitlines()[-1])["error"]["code"] == code


def test_all_laws_cannot_be_one_fit() -> None:
    assert run("fit", *GADRE, "--law", "all").exit_code == 2


def test_the_drawing_names_law_and_error() -> None:
    result = run("validate", *GADRE, "--draws", "20")
    assert "held-out runs" in result.stdout
    assert "mean |log error|" in result.stdout
