"""`scalecli predict`: what a fit says elsewhere, and how far from its data that is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options
from scalecli.cli.render import show, span, table
from scalecli.units import format_count

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
    as_json: options.Json = False,
) -> None:
    """Predict with an interval, or solve for the input that reaches a value.

    A landscape that is asked without batch_tokens and learning_rate says which are best.

    Examples:

      scalecli predict loss.fit.json --at params=7B,tokens=1.4T --at params=70B,tokens=1.4T

      scalecli predict loss.fit.json --solve tokens --loss 2.1 --at params=7B

      scalecli predict landscape.fit.json --at params=7B,tokens=1.4T
    """
    from scalecli.fitters.fit import Fit
    from scalecli.fitters.predict import asked_inputs, predict_points, solve_points

    found = Fit.read(fit)
    places = [options.numbers([text], "--at") for text in at or []]
    if points is not None:
        from scalecli.cli.tables import read_table
        from scalecli.fitters.runs import points_of

        places += points_of(read_table(str(points), require=asked_inputs(found.law)), found.law.inputs)
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
    rows = (
        (", ".join(f"{k}={v:.4g}" for k, v in p["at"].items()), span(p), p["extrapolation"])
        for p in document["points"]
    )
    yield table(document["quantity"], ["at", f"value ({share} interval)", "extrapolation"], rows)
    best = [p for p in document["points"] if "optimum" in p]
    if best:
        heads = [
            "at",
            "best batch [tokens]",
            "within 0.1 % of the loss",
            "best learning rate",
            "within 0.1 %",
        ]
        yield table(f"optimum ({share} intervals)", heads, map(_optimum, best))


def _optimum(point: Any) -> tuple[str, ...]:
    place = ", ".join(f"{name}={point['at'][name]:.4g}" for name in ("params", "tokens"))
    batch, rate = (point["optimum"].get(name) for name in ("batch_tokens", "learning_rate"))
    return (place, span(batch, format_count), _ends(batch, format_count), span(rate), _ends(rate))


def _ends(knob: Any, read: Callable[[float], str] = "{:.3g}".format) -> str:
    return "–" if knob is None else " … ".join(map(read, knob["flat_range"]))
