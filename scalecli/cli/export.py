"""`scalecli export`: a plan in another form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scalecli.cli import options
from scalecli.cli.render import warn
from scalecli.export.files import write_text


def export(
    plan: Annotated[Path, typer.Argument(help="A plan written by `scalecli plan --out`.")],
    to: Annotated[
        str, typer.Option("--to", metavar="json|markdown|batch-table", help="The form.")
    ] = "markdown",
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Write a plan as JSON or Markdown, or its batches over the steps of training as CSV.

    Example: scalecli export plan.json --to markdown -o plan.md
    """
    from scalecli.export.formats import read_plan, render

    text = render(read_plan(plan), "json" if as_json else to)
    if out is None:
        typer.echo(text)
        return
    write_text(out, text)
    warn(f"wrote {out}")
