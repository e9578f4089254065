"""`scalecli laws`: the forms that can be fitted, and what papers found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options
from scalecli.cli.render import show, table

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer(no_args_is_help=True, help="Law forms, and published constants with source and validity.")


@app.command("list", epilog="Example: scalecli laws list --json")
def list_laws(as_json: options.Json = False) -> None:
    """Every law: its inputs, output and formula; and the names of all published constants."""
    from scalecli.data.catalogue import published_laws
    from scalecli.fitters.laws import LAWS

    document = {
        "schema": "scalecli/laws/1",
        "laws": [_summary(law) for law in LAWS],
        "published": [record.document() for record in published_laws()],
    }
    show(document, _draw_list, as_json=as_json)


@app.command("show", epilog="Examples: scalecli laws show chinchilla; scalecli laws show steplaw-batch")
def show_law(
    name: Annotated[str, typer.Argument(help="A law's name, or that of published constants.")],
    as_json: options.Json = False,
) -> None:
    """One law: formula, parameters with bounds and units, published constants and their sources."""
    from scalecli.data.catalogue import published_laws
    from scalecli.fitters.laws import LAWS

    if name in {record.name for record in published_laws()} - {law.name for law in LAWS}:
        show(_published_document(name), _draw_published, as_json=as_json)
    else:
        show(_law_document(name), _draw_law, as_json=as_json)


def _law_document(name: str) -> dict[str, Any]:
    from scalecli.data.catalogue import published_laws, sources
    from scalecli.fitters.law import parameters
    from scalecli.fitters.laws import law_named
    from scalecli.fitters.questions import questions_of

    law = law_named(name)
    return {
        "schema": "scalecli/law/1",
        **_summary(law),
        "description": law.__doc__,
        "parameters": [
            {"name": key, "low": mark.low, "high": mark.high, "unit": mark.unit}
            for key, mark in parameters(law).items()
        ],
        "questions": {key: list(takes) for key, takes in questions_of(law).items()},
        "published": [record.document() for record in published_laws() if record.law == name],
        "references": {key: sources()[key].citation for key in law.sources},
    }


def _published_document(name: str) -> dict[str, Any]:
    from scalecli.data.catalogue import published_law, sources

    record = published_law(name)
    references = {record.source: sources()[record.source].citation}
    return {"schema": "scalecli/published-law/1", **record.document(), "references": references}


def _summary(law: Any) -> dict[str, Any]:
    return {
        "name": law.name,
        "inputs": list(law.inputs),
        "output": law.output,
        "formula": (law.__doc__ or "").strip().splitlines()[0],
        "sources": list(law.sources),
    }


def _draw_list(document: Any) -> Iterator[RenderableType]:
    rows = (
        (law["name"], ", ".join(law["inputs"]), law["output"], law["formula"]) for law in document["laws"]
    )
    yield table("Laws", ["name", "inputs", "output", "formula"], rows)
    rules = (record["name"] for record in document["published"] if record["formula"])
    yield f"Published rules, for `scalecli laws show NAME`: {', '.join(rules)}"


def _draw_law(document: Any) -> Iterator[RenderableType]:
    from inspect import cleandoc

    yield cleandoc(document["description"])
    rows = ((p["name"], p["low"], p["high"], p["unit"]) for p in document["parameters"])
    yield table("Parameters", ["name", "least", "most", "unit"], rows)
    asked = (f"{name}({', '.join(takes)})" for name, takes in document["questions"].items())
    yield f"Questions, for `scalecli predict FIT --ask NAME`: {', '.join(asked) or 'none'}"
    for record in document["published"]:
        yield f"{record['name']}: {_constants(record)}"
        yield f"  {record['where']}; {record['validity']}"
    yield from _references(document)


def _draw_published(document: Any) -> Iterator[RenderableType]:
    yield f"{document['name']}: {document['formula'] or _constants(document)}  [{document['unit']}]"
    yield f"  {document['where']}; {document['validity']}"
    yield (
        "  compared with the paper"
        if document["verified"]
        else "  not compared with the paper: shown by no plan"
    )
    yield from _references(document)


def _constants(record: Any) -> str:
    return ", ".join(f"{key} = {value:g}" for key, value in record["values"].items())


def _references(document: Any) -> Iterator[str]:
    for key, citation in document["references"].items():
        yield f"[{key}] {citation}"
