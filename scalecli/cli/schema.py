"""`scalecli schema`: the JSON Schemas of what the other commands print."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from scalecli.cli.options import Json


def schema(
    name: Annotated[
        str | None, typer.Argument(help="A document, e.g. fit or plan; all names when left out.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the JSON Schema of a document (draft 2020-12), or the names of all documents.

    Example: scalecli schema plan > plan.schema.json
    """
    from scalecli.export.schemas import document_names, document_schema

    if name is None:
        names = document_names()
        typer.echo(json.dumps({"schemas": names}) if as_json else "\n".join(names))
    else:
        typer.echo(json.dumps(document_schema(name), indent=2))
