"""`scalecli design`: the next runs, chosen so that the answer for the target gets surest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options
from scalecli.cli.render import show, span, table
from scalecli.cli.tables import read_table
from scalecli.export.files import write_text
from scalecli.units import parse_count, parse_duration

if TYPE_CHECKING:
    from rich.console import RenderableType

    from scalecli.data.tables import RunTable


def design(
    fit: Annotated[
        Path | None,
        typer.Option(
            "--fit", help="A fit written by `scalecli fit --out`; without one, the edges of --runs."
        ),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option("--at", help="The target of the fit: params=7B,tokens=1.4T, or flops=1e24."),
    ] = None,
    answer: Annotated[
        str,
        typer.Option(
            "--answer",
            metavar="loss|params|tokens|batch|learning-rate",
            help="What is to get surer at the target: its loss, or its best size, tokens, batch or rate.",
        ),
    ] = "loss",
    budget: Annotated[
        float | None,
        typer.Option("--budget", parser=options.quantity(parse_count), metavar="FLOPS", help="For all runs."),
    ] = None,
    hours: Annotated[
        float | None,
        typer.Option(
            "--hours",
            parser=options.quantity(parse_duration),
            metavar="TIME",
            help="Instead of --budget: 12h, with --flops-per-second or --runs that measured a speed.",
        ),
    ] = None,
    flops_per_second: Annotated[
        float | None,
        typer.Option("--flops-per-second", parser=options.quantity(parse_count), metavar="RATE"),
    ] = None,
    most: Annotated[
        int,
        typer.Option("--most-settings", min=1, help="At most so many runs (for a landscape: grids of runs)."),
    ] = 15,
    runs: Annotated[
        str | None,
        typer.Option("--runs", help="The table of the fit: settings with an optimum at an edge come first."),
    ] = None,
    map: options.Map = None,
    unit: options.Unit = None,
    where: options.Where = None,
    interval: options.Level = 0.9,
    spec: Annotated[
        Path | None, typer.Option("--spec", help="Write the runs for `scalecli probe sweep --spec`.")
    ] = None,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Which runs to train next for a budget, and how much narrower they make the interval of the answer.

    Examples:

      scalecli design --fit loss.fit.json --at params=7B,tokens=1.4T --budget 1e19

      scalecli design --fit loss.fit.json --answer params --at flops=1e24 --hours 12h --flops-per-second 2e14

      scalecli design --runs grid.csv --spec beyond.toml
    """
    from scalecli.fitters.design.report import design_edges, design_runs, sweep_spec_text
    from scalecli.fitters.fit import Fit

    recorded = None if runs is None else read_table(runs, map, unit, where)
    rate = flops_per_second or _measured_rate(recorded)
    if fit is not None:
        document = design_runs(
            Fit.read(fit),
            answer=answer,
            at=options.numbers(at, "--at"),
            budget=_budget(budget, hours, rate),
            most=most,
            runs=recorded,
            rate=rate,
            level=interval,
        )
    elif recorded is not None:
        unlimited = budget is None and hours is None
        document = design_edges(
            recorded, budget=None if unlimited else _budget(budget, hours, rate), rate=rate
        )
    else:
        raise typer.BadParameter("give a fit, or --runs with a grid to go beyond", param_hint="--fit")
    if spec is not None:
        write_text(spec, sweep_spec_text(document["runs"]))
    show(document, _draw, as_json=as_json, out=out)


def _budget(flops: float | None, seconds: float | None, rate: float | None) -> float:
    if (flops is None) == (seconds is None):
        raise typer.BadParameter("give one of --budget and --hours", param_hint="--budget")
    if flops is not None:
        return flops
    if rate is None or seconds is None:
        raise typer.BadParameter(
            "needs --flops-per-second (scalecli probe throughput measures it) or --runs with tokens_per_second",
            param_hint="--hours",
        )
    return seconds * rate


def _measured_rate(runs: RunTable | None) -> float | None:
    """The median training speed of recorded runs [FLOP/s]."""
    if runs is None or not {"params", "tokens_per_second"} <= set(runs.frame.columns):
        return None
    speeds = 6 * runs.frame["params"] * runs.frame["tokens_per_second"]
    return float(speeds.median()) if speeds.notna().any() else None


def _draw(document: Any) -> Iterator[RenderableType]:
    if document["answer"] is not None:
        yield from _draw_plans(document)
    names = list(document["runs"][0]) if document["runs"] else []
    yield table(
        f"train next ({document['best']})", names, ([run[name] for name in names] for run in document["runs"])
    )


def _draw_plans(document: Any) -> Iterator[RenderableType]:
    asked, share = document["answer"], f"{document['interval']:.0%}"
    place = ", ".join(f"{name}={value:.4g}" for name, value in asked["at"].items())
    yield f"{asked['name']} at {place}: {span(asked)} {asked['unit']}, {share} interval"
    rows = (
        (
            plan["name"],
            len(plan["runs"]),
            f"{plan['flops']:.3g}",
            span({**plan, "value": asked["value"]}),
            plan["width"] / asked["width"],
        )
        for plan in document["plans"]
    )
    heads = ["plan", "runs", "FLOPs", f"then ({share} interval)", "width, of today's"]
    yield table(f"for {document['budget_flops']:.3g} FLOPs", heads, rows)
