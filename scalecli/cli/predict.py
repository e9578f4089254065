"""`scalecli predict`: what a fit says elsewhere, and how far from its data that is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options
from scalecli.cli.render import show, span, table

if TYPE_CHECKING:
    from rich.console import RenderableType


def predict(
    fit: options.FitFile,
    at: Annotated[
        list[str] | None, typer.Option("--at", help="A point (repeat): params=7B,tokens=1.4T.")
    ] = None,
    points: Annotated[Path | None, typer.Option("--points", help="A table of points, one a row.")] = None,
    interval: options.Level = 0.9,
    solve: Annotated[
        str | None, typer.Option("--solve", help="The input to solve for, given --loss.")
    ] = None,
    loss: Annotated[float | None, typer.Option("--loss", help="The value to reach, with --solve.")] = None,
    ask: Annotated[
        str | None,
        typer.Option(
            "--ask", metavar="QUESTION", help="One of the law's own questions (`scalecli laws show`)."
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Predict with an interval, solve for the input that reaches a value, or ask for an optimum.

    Examples:

      scalecli predict loss.fit.json --at params=7B,tokens=1.4T --at params=70B,tokens=1.4T

      scalecli predict loss.fit.json --solve tokens --loss 2.1 --at params=7B

      scalecli predict loss.fit.json --ask optimal_params --at flops=1e22
    """
    from scalecli.fitters.fit import Fit
    from scalecli.fitters.predict import predict_points, solve_points
    from scalecli.fitters.questions import ask_points

    found = Fit.read(fit)
    places = [options.numbers([text], "--at") for text in at or []]
    if ask is not None:
        if points is not None or solve is not None or loss is not None:
            raise typer.BadParameter("the numbers of a question are given by --at", param_hint="--ask")
        show(ask_points(found, ask, places, level=interval), _draw, as_json=as_json)
        return
    if points is not None:
        from scalecli.cli.tables import read_table
        from scalecli.fitters.runs import points_of

        places += points_of(read_table(str(points), require=found.law.inputs), found.law.inputs)
    if not places:
        raise typer.BadParameter("name at least one point", param_hint="--at")
    if (solve is None) != (loss is None):
        raise typer.BadParameter("--solve and --loss go together", param_hint="--solve")
    if solve is None or loss is None:
        document = predict_points(found, places, level=interval)
    else:
        document = solve_points(found, places, solve=solve, value=loss, level=interval)
    show(document, _draw, as_json=as_json)


def _draw(document: Any) -> Iterator[RenderableType]:
    share = f"{document['interval']:.0%}"
    timed = [name for name in ("device_hours",) if name in document["points"][0]]
    rows = (
        (
            ", ".join(f"{k}={v:.4g}" for k, v in p["at"].items()),
            span(p),
            p["extrapolation"],
            *(p[name] for name in timed),
        )
        for p in document["points"]
    )
    heads = ["at", f"value ({share} interval)", "extrapolation", *(name.replace("_", "-") for name in timed)]
    yield table(document["quantity"], heads, rows)
