"""Documents on standard output: one JSON text for programs, tables for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from scalecli.export.files import write_text

if TYPE_CHECKING:
    from rich.console import RenderableType

Document = Mapping[str, Any]
PIPED_WIDTH = 160
"""Columns of a table that goes to a file or a pipe, where nothing folds."""

Drawing = Callable[[Document], Iterable["RenderableType"]]


def show(
    document: Document, draw: Drawing, *, as_json: bool, out: Path | None = None, full: Document | None = None
) -> None:
    """Print a result, and write it (or its `full` form) to `out` when a file is wanted."""
    if out is not None:
        write_text(out, to_json(full or document))
    if as_json:
        typer.echo(to_json(document))
        return
    from rich.console import Console

    # What is in brackets or between colons is text: units, and names that users chose.
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, markup=False, emoji=False)
    for part in draw(document):
        console.print(part)
    for warning in document.get("warnings", ()):
        warn(f"{warning['code']}: {warning['message']}")
    if out is not None:
        warn(f"wrote {out}")


def to_json(document: Document) -> str:
    """Strict JSON: a NaN or an infinity would be a bug."""
    return json.dumps(document, indent=2, allow_nan=False)


def warn(text: str) -> None:
    """One line on standard error."""
    typer.echo(text, err=True)


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> RenderableType:
    """A table whose cells are already text; numbers go to the right."""
    from rich import box
    from rich.table import Table

    drawn = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    body = [[_cell(value) for value in row] for row in rows]
    for i, head in enumerate(heads):
        numeric = bool(body) and all(
            row[i][:1].isdigit() or row[i][:1] in {"-", "–", "≥", "≤", "±", ""} for row in body
        )
        drawn.add_column(head, justify="right" if numeric else "left", overflow="fold")
    for row in body:
        drawn.add_row(*row)
    return drawn


def filled_table(title: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> RenderableType:
    """A table without the columns that nothing is known of."""
    body = list(rows)
    kept = [i for i in range(len(heads)) if any(row[i] not in (None, "–", "") for row in body)]
    return table(title, [heads[i] for i in kept], [[row[i] for i in kept] for row in body])


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def span(interval: Mapping[str, Any] | None, read: Callable[[float], str] = "{:.4g}".format) -> str:
    """`value (low … high)`; a dash for what is not known."""
    if interval is None or interval.get("value") is None:
        return "–"
    if interval.get("low") is None or interval.get("high") is None:
        return read(interval["value"])
    return f"{read(interval['value'])} ({read(interval['low'])} … {read(interval['high'])})"
