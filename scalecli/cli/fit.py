"""`scalecli fit`: a law from a run table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options
from scalecli.cli.render import show, span, table
from scalecli.cli.tables import read_table

if TYPE_CHECKING:
    from rich.console import RenderableType


def fit(
    runs: options.Runs,
    law: options.LawName = "chinchilla",
    map: options.Map = None,
    unit: options.Unit = None,
    where: options.Where = None,
    group: Annotated[
        str | None,
        typer.Option(
            "--group", help="Runs that share this column are resampled together [group, else one run each]."
        ),
    ] = None,
    formula: Annotated[
        str | None, typer.Option("--formula", help="A law of your own: 'E + A*params**-a; E in [0, 5]'.")
    ] = None,
    draws: Annotated[int, typer.Option("--draws", min=0, help="Bootstrap draws.")] = 1000,
    interval: options.Level = 0.9,
    loss: Annotated[
        str,
        typer.Option(
            "--loss",
            metavar="huber|least-squares|absolute|envelope",
            help="What is minimised, on log residuals.",
        ),
    ] = "huber",
    delta: Annotated[
        float, typer.Option("--delta", min=0.0, help="Where the Huber loss turns linear.")
    ] = 1e-3,
    out: options.Out = None,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Fit a law to recorded runs, with intervals, checks and a verdict.

    Examples:

      scalecli fit runs.csv --law chinchilla --map loss=loss_c4_val --out loss.fit.json

      scalecli fit runs.db --law landscape-two-stage --out landscape.fit.json
    """
    from scalecli.fitters.fit import FitOptions
    from scalecli.fitters.runs import fit_runs

    settings = FitOptions(draws=draws, interval=interval, loss=loss, delta=delta, seed=seed)
    read = read_table(runs, map, unit, where)
    found = fit_runs(read, law=law, formula=formula, group=group, options=settings)
    show(found.document(), draw_fit, as_json=as_json, out=out, full=found.document(draws=True))


def draw_fit(document: Any) -> Iterator[RenderableType]:
    """The table of a fit document."""
    rows = ((name, span(p), p["std"]) for name, p in document["parameters"].items())
    share = f"{document['interval']:.0%}"
    yield table(
        f"{document['law']}: {document['status']}", ["parameter", f"value ({share} interval)", "std"], rows
    )
    counts = document["rows"]
    yield f"{counts['used']} of {counts['read']} rows in {document['groups']} groups; {_objective(document)}"
    for drop in counts["dropped"]:
        yield f"  left out: {drop['count']} ({drop['reason']})"
    if document["validation"]:
        checked = document["validation"]
        yield (
            f"held out by scale: {checked['heldout_rows']} rows, mean |log error| {checked['mean_abs_log_error']:.4f}, "
            f"coverage {checked['coverage']:.0%}"
        )


def _objective(document: Any) -> str:
    objective, certificate = document["objective"], document["convergence"]
    return f"{objective['name']} {objective['value']:.6g}; {certificate['agree']} of {certificate['starts']} starts agree"
