"""`scalecli runs`: look at and convert run tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options
from scalecli.cli.render import show, table
from scalecli.cli.tables import read_table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from scalecli.data.tables import RunTable, StoreRows

app = typer.Typer(no_args_is_help=True, help="Look at, convert and import run tables.")

LISTED = ("run_id", "status", "params", "tokens", "batch_tokens", "learning_rate", "loss", "loss_std", "seed")


@app.command("list", epilog='Example: scalecli runs list runs.db --where "params > 1e6"')
def list_runs(
    runs: options.Runs,
    map: options.Map = None,
    unit: options.Unit = None,
    where: options.Where = None,
    as_json: options.Json = False,
) -> None:
    """One line a run."""
    document = _document(read_table(runs, map, unit, where, keep_status=None))
    show(document, _draw_list, as_json=as_json)


@app.command("show", epilog="Example: scalecli runs show runs.db 3f2a9c")
def show_run(
    runs: options.Runs,
    run_id: Annotated[str, typer.Argument(help="A run's id, or its beginning.")],
    as_json: options.Json = False,
) -> None:
    """Everything that is known of one run."""
    from scalecli.errors import DataError

    found = [
        row
        for row in _document(read_table(runs, keep_status=None))["runs"]
        if str(row.get("run_id", "")).startswith(run_id)
    ]
    if len(found) != 1:
        raise DataError(
            f"{len(found)} runs of {runs} have an id that starts with {run_id!r}",
            hint=f"scalecli runs list {runs}",
        )
    show({"schema": "scalecli/run/1", "run": found[0]}, _draw_run, as_json=as_json)


@app.command("export", epilog="Example: scalecli runs export runs.db -o runs.csv")
def export_runs(
    runs: options.Runs,
    out: Annotated[Path, typer.Option("--out", "-o", help="A .csv, .parquet or .jsonl file.")],
    map: options.Map = None,
    unit: options.Unit = None,
    where: options.Where = None,
    readings: Annotated[
        bool,
        typer.Option("--readings", help="Of a store: a row for each reading of the loss along a run."),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Write all runs as .csv, .parquet or .jsonl; with --readings, their loss curves."""
    from scalecli.data.tables import write_runs

    rows: StoreRows = "readings" if readings else "runs"
    read = read_table(runs, map, unit, where, keep_status=None, rows=rows)
    write_runs(read.frame, out)
    show(
        {"schema": "scalecli/runs-export/1", "rows": len(read.frame), "file": str(out)},
        _draw_export,
        as_json=as_json,
    )


@app.command("import", epilog="Example: scalecli runs import old.csv --map loss=val_loss --store runs.db")
def import_runs(
    runs: options.Runs,
    store: options.Store = Path("runs.db"),
    map: options.Map = None,
    unit: options.Unit = None,
    where: options.Where = None,
    as_json: options.Json = False,
) -> None:
    """Take the rows of a table into a store, beside the runs of probes; rows that it has are left alone."""
    from scalecli.data.store import Store

    read = read_table(runs, map, unit, where, keep_status=None)
    with Store.open(store) as opened:
        new = opened.import_rows(read)
    document = {
        "schema": "scalecli/runs-import/1",
        "rows": len(read.frame),
        "new": new,
        "store": str(store),
    }
    show(document, _draw_import, as_json=as_json)


def _document(read: RunTable) -> dict[str, Any]:
    return {
        "schema": "scalecli/runs/1",
        "source": read.source,
        "rows": {
            "read": read.rows_read,
            "used": len(read.frame),
            "dropped": [{"reason": drop.reason, "count": drop.count} for drop in read.dropped],
        },
        "runs": read.records(),
    }


def _draw_list(document: Any) -> Iterator[RenderableType]:
    rows = document["runs"]
    heads = [name for name in LISTED if any(row.get(name) is not None for row in rows)]
    yield table(document["source"], heads, ([row.get(head) for head in heads] for row in rows))
    yield f"{document['rows']['used']} of {document['rows']['read']} rows"
    for drop in document["rows"]["dropped"]:
        yield f"  left out: {drop['count']} ({drop['reason']})"


def _draw_run(document: Any) -> Iterator[RenderableType]:
    run = document["run"]
    yield table(
        str(run.get("run_id")),
        ["column", "value"],
        ((name, value) for name, value in run.items() if value is not None),
    )


def _draw_export(document: Any) -> Iterator[RenderableType]:
    yield f"{document['rows']} rows → {document['file']}"


def _draw_import(document: Any) -> Iterator[RenderableType]:
    yield f"{document['new']} of {document['rows']} rows are new → {document['store']}"
