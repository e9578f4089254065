"""`laws list` and `laws show`: every law and every published rule can be looked up."""

import json

import jsonschema
import pytest
from typer.testing import CliRunner

from scalecli.cli.app import app
from scalecli.data.catalogue import published_laws
from scalecli.export.schemas import document_schema


def shown(*words):
    result = CliRunner().invoke(app, ["laws", *words, "--json"])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_the_list_has_every_published_record_and_is_valid():
    document = shown("list")
    jsonschema.validate(document, document_schema("laws"))
    assert {record["name"] for record in document["published"]} == {law.name for law in published_laws()}


@pytest.mark.parametrize(
    ("name", "schema"),
    [("chinchilla", "law"), ("steplaw-batch", "published-law"), ("mfu-frontier", "published-law")],
)
def test_one_is_shown_with_its_reference(name, schema):
    document = shown("show", name)
    jsonschema.validate(document, document_schema(schema))
    assert document["name"] == name
    assert all("arXiv" in citation for citation in document["references"].values())


def test_the_text_shows_formula_place_and_source():
    result = CliRunner().invoke(app, ["laws", "show", "steplaw-batch"])
    assert "batch_tokens = 0.58 × tokens^0.571  [tokens]" in result.stdout
    assert "equation 1" in result.stdout
    assert "[steplaw2025] Li et al. 2025" in result.stdout


def test_the_unit_of_a_formula_is_part_of_the_text():
    result = CliRunner().invoke(app, ["laws", "show", "kaplan"])
    assert result.stdout.startswith(
        "L(N, D) = ((N_c / N)^(alpha_N / alpha_D) + D_c / D)^alpha_D  [nats/token]"
    )


def test_an_unknown_name_lists_close_ones():
    result = CliRunner().invoke(app, ["laws", "show", "chinchila"])
    assert result.exit_code == 10
    assert "chinchilla" in result.stderr
