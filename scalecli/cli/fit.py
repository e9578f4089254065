"""`scalecli fit`: a law from a run table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import fitting, options
from scalecli.cli.render import show, span, table

if TYPE_CHECKING:
    from rich.console import RenderableType


def fit(
    runs: options.Runs,
    law: Annotated[
        str,
        typer.Option(
            "--law", help="A law's name (`scalecli laws list`), or auto: the one that extrapolates best."
        ),
    ] = "chinchilla",
    map: options.Map = None,
    unit: options.Unit = None,
    where: options.Where = None,
    group: fitting.Group = None,
    formula: fitting.Formula = None,
    draws: fitting.Draws = 1000,
    interval: options.Level = 0.9,
    loss: fitting.RowLoss = "huber",
    delta: fitting.Delta = 1e-3,
    pin: fitting.Pin = None,
    tuned: fitting.Tuned = False,
    min_params: fitting.MinParams = None,
    min_flops: fitting.MinFlops = None,
    out: options.Out = None,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Fit a law to recorded runs, with intervals, checks and a verdict.

    Examples:

      scalecli fit runs.csv --law chinchilla --map loss=loss_c4_val --out loss.fit.json

      scalecli fit runs.db --law chinchilla --tuned --out loss.fit.json

      scalecli fit runs.db --law landscape --out landscape.fit.json
    """
    from scalecli.fitters.frontier import best_of_settings
    from scalecli.fitters.runs import fit_runs
    from scalecli.fitters.validate.choose import fit_best

    if law == "all":
        raise typer.BadParameter(
            "one law is fitted; scalecli validate --law all ranks them", param_hint="--law"
        )
    kept = fitting.large_enough(where, min_params, min_flops)
    read, chosen = fitting.read_for_law(runs, map, unit, kept, law=law, formula=formula)
    settings = fitting.settings(draws=draws, interval=interval, loss=loss, delta=delta, seed=seed, pin=pin)
    read = best_of_settings(read) if tuned else read
    if chosen is None:
        found = fit_best(read, group=group, options=settings)
    else:
        found = fit_runs(read, chosen, group=group, options=settings)
    show(found.document(), draw_fit, as_json=as_json, out=out, full=found.document(draws=True))


def draw_fit(document: Any) -> Iterator[RenderableType]:
    """The table of a fit document."""
    rows = ((name, span(p), p["std"]) for name, p in document["parameters"].items())
    share = f"{document['interval']:.0%}"
    yield table(
        f"{document['law']}: {document['status']}", ["parameter", f"value ({share} interval)", "std"], rows
    )
    beside = document["diagnostics"].get("approaches", [])
    if len(beside) > 1:
        answers = ((one["law"], one["exponent"], span(one["optimal_params"])) for one in beside)
        yield table(
            f"best size at {beside[0]['flops']:.3g} FLOPs, by approach",
            ["law", "exponent of compute", f"params ({share} interval)"],
            answers,
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
    value = "no objective" if objective["value"] is None else f"{objective['name']} {objective['value']:.6g}"
    return f"{value}; {certificate['agree']} of {certificate['starts']} starts agree"
