"""From a run table to a plan through the command line: documents, schemas, and the same numbers for a seed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

import scalecli
from scalecli.cli.app import app
from scalecli.cli.group import ScalecliGroup
from scalecli.data.schema import COLUMNS
from scalecli.data.tables import read_runs
from scalecli.export.formats import read_plan, render
from scalecli.export.schemas import document_names, document_schema

TABLES = Path(__file__).parents[1] / "data"
GADRE = TABLES / "gadre_c4_small" / "runs.csv"
PORIAN = TABLES / "porian_openwebtext2" / "isoflop_points.csv"


def document(*words: object) -> dict[str, Any]:
    """What a command prints under `--json`: one document on standard output and nothing else there."""
    result = CliRunner().invoke(app, [*(str(word) for word in words), "--json"])
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def validated(found: dict[str, Any], name: str) -> dict[str, Any]:
    schema = document_schema(name)
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(found)
    return found


@pytest.fixture(scope="module")
def loss_fit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fits") / "loss.fit.json"
    document("fit", GADRE, "--map", "loss=loss_c4_val", "--draws", 200, "--out", path)
    return path


def test_public_tables_fit_from_the_command_line_and_repeat_with_a_seed() -> None:
    for words in (
        ("fit", GADRE, "--map", "loss=loss_c4_val", "--seed", 3, "--draws", 100),
        (
            "fit",
            PORIAN,
            "--where",
            "hparams == 'tuned'",
            "--where",
            "loss_split == 'val'",
            "--seed",
            3,
            "--draws",
            100,
        ),
    ):
        first, second = validated(document(*words), "fit"), document(*words)
        assert first["status"] == "converged"
        assert first["parameters"] == second["parameters"]
        assert first["rows"]["read"] == first["rows"]["used"] + sum(
            d["count"] for d in first["rows"]["dropped"]
        )


def test_gadre_has_the_parameters_of_its_readme(loss_fit: Path) -> None:
    found = json.loads(loss_fit.read_text())["parameters"]
    expected = {"E": 1.137, "A": 51.2, "alpha": 0.187, "B": 221, "beta": 0.256}
    for name, value in expected.items():
        assert found[name]["value"] == pytest.approx(value, rel=5e-3)


def test_a_fit_file_has_draws_domain_and_formula(loss_fit: Path) -> None:
    stored = validated(json.loads(loss_fit.read_text()), "fit")
    assert stored["draws"]["parameters"] == ["E", "A", "B", "alpha", "beta"]
    assert len(stored["draws"]["values"]) == 200
    assert stored["domain"]["params"] == [10569312.0, 411616256.0]
    assert "N^-alpha" in stored["formula"]


def test_predictions_and_their_inverse_agree(loss_fit: Path) -> None:
    there = validated(document("predict", loss_fit, "--at", "params=1B,tokens=20B"), "prediction")["points"][
        0
    ]
    assert there["low"] < there["value"] < there["high"]
    back = document("predict", loss_fit, "--at", "params=1B", "--solve", "tokens", "--loss", there["value"])
    assert back["points"][0]["value"] == pytest.approx(20e9, rel=1e-6)


def test_a_plan_carries_the_loss_law_and_round_trips(loss_fit: Path, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    words = (
        "plan",
        "--params",
        "1B",
        "--tokens",
        "20B",
        "--fit",
        loss_fit,
        "--accelerator",
        "h100-80g",
        "--count",
        8,
    )
    made = validated(document(*words, "--out", path), "plan")
    predicted = document("predict", loss_fit, "--at", "params=1B,tokens=20B")["points"][0]
    assert made["loss"]["value"] == pytest.approx(predicted["value"])
    assert made["memory"]["fits"] is True
    assert made["batch"]["sequences"] * made["batch"]["sequence_length"] * made["batch"]["steps"] >= 20e9
    assert all(line["rule"] and line["source"] for line in made["lines"])
    assert json.loads(render(read_plan(path), "json")) == made
    assert "| learning rate |" in render(read_plan(path), "markdown")


def test_what_a_fit_says_brings_no_link_picture_or_html_into_a_report(tmp_path: Path) -> None:
    made = document("plan", "--params", "1B", "--tokens-per-param", 20)
    made["warnings"] = [{"code": "W-X", "message": "![a](http://b) <b>c</b> d|e\nf & `g`"}]
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(made))
    written = render(read_plan(path), "markdown")
    assert "- **W-X** !\\[a\\](http://b) &lt;b&gt;c&lt;/b&gt; d\\|e f &amp; \\`g\\`\n" in written


def test_without_an_accelerator_fit_and_cost_are_null_with_a_warning() -> None:
    made = validated(document("plan", "--params", "1B", "--tokens-per-param", 20), "plan")
    assert made["memory"]["fits"] is None
    assert made["cost"] is None
    assert "W-NO-ACCELERATOR" in {warning["code"] for warning in made["warnings"]}


def test_a_target_file_is_overruled_by_options(tmp_path: Path) -> None:
    path = tmp_path / "target.toml"
    path.write_text('params = "1B"\ntokens-per-param = 20\nsequence_length = 1024\n')
    made = document("plan", "--target", path, "--tokens-per-param", 40)
    assert made["target"]["tokens"] == 40e9
    assert made["batch"]["sequence_length"] == 1024


def test_runs_are_listed_shown_and_exported_whole(tmp_path: Path) -> None:
    listed = validated(document("runs", "list", GADRE, "--map", "loss=loss_c4_val"), "runs")
    assert listed["rows"] == {"read": 31, "used": 31, "dropped": []}
    out = tmp_path / "runs.jsonl"
    validated(document("runs", "export", GADRE, "--map", "loss=loss_c4_val", "-o", out), "runs-export")
    assert read_runs(out, require=["params", "tokens", "loss"]).columns(["loss"])["loss"].tolist() == [
        row["loss"] for row in listed["runs"]
    ]


def test_one_run_is_shown_and_columns_have_their_units(tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    table.write_text("run_id,params,loss\nabc,1000,3\nabd,2000,2.5\n")
    assert validated(document("runs", "show", table, "abd"), "run")["run"]["loss"] == 2.5
    row = document_schema("runs")["$defs"]["_Run"]["properties"]
    assert set(row) == set(COLUMNS)
    assert row["batch_tokens"]["description"].endswith("[tokens]")


def test_a_table_is_taken_into_a_store_once(tmp_path: Path) -> None:
    table, store = tmp_path / "old.csv", tmp_path / "runs.db"
    table.write_text("params,tokens,val_loss,status\n1000,2,3,finished\n2000,2,2.5,\n3000,2,,diverged\n")
    words = ("runs", "import", table, "--map", "loss=val_loss", "--unit", "tokens=1e6", "--store", store)
    assert validated(document(*words), "runs-import")["new"] == 3
    assert document(*words)["new"] == 0
    kept = read_runs(store, require=["params", "tokens", "loss"]).columns(["tokens", "loss"])
    assert kept["tokens"].tolist() == [2e6, 2e6]
    assert kept["loss"].tolist() == [3.0, 2.5]


def test_laws_are_listed_and_shown() -> None:
    listed = validated(document("laws", "list"), "laws")
    assert {"chinchilla", "power-floor", "critical-batch", "landscape-two-stage"} <= {
        law["name"] for law in listed["laws"]
    }
    shown = validated(document("laws", "show", "chinchilla"), "law")
    assert {record["name"] for record in shown["published"]} >= {"chinchilla", "chinchilla-refit"}
    assert set(shown["references"]) == set(shown["sources"])


def test_this_machine_is_described() -> None:
    assert validated(document("doctor"), "doctor")["cpu_threads"] >= 1


@pytest.mark.parametrize("name", document_names())
def test_every_schema_is_a_schema(name: str) -> None:
    Draft202012Validator.check_schema(document_schema(name))


def test_every_document_has_a_schema() -> None:
    sources = (path.read_text() for path in Path(scalecli.__file__).parent.rglob("*.py"))
    written = {name for text in sources for name in re.findall(r'"scalecli/([a-z-]+)/\d"', text)}
    assert written == set(document_names())


def commands(group: Any, *path: str) -> list[tuple[str, ...]]:
    """Every command's path, groups walked."""
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        found += commands(command, *path, name) if hasattr(command, "commands") else [(*path, name)]
    return found


def root() -> ScalecliGroup:
    from typer.main import get_command

    group = get_command(app)
    assert isinstance(group, ScalecliGroup)
    return group


@pytest.mark.parametrize("path", commands(root()), ids=" ".join)
def test_every_command_has_help_with_an_example(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*path, "--help"], env={"NO_COLOR": "1", "TERM": "dumb"})
    assert result.exit_code == 0
    assert f"scalecli {' '.join(path)}" in " ".join(result.stdout.replace("│", " ").split())
    assert "xample" in result.stdout


@pytest.mark.parametrize("path", commands(root()), ids=" ".join)
def test_help_shows_every_word_of_what_is_written(path: tuple[str, ...]) -> None:
    """Rich takes `[by rule]` for a mark-up tag and leaves it out; a default in words is `show_default`."""
    from functools import reduce

    from rich.text import Text

    command: Any = reduce(lambda group, name: group.commands[name], path, root())
    texts = [command.help, command.epilog, *(getattr(param, "help", None) for param in command.params)]
    for text in filter(None, texts):
        assert Text.from_markup(text).plain == text
