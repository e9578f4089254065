"""`scalecli compare`: two fits against each other over the whole range of compute."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options
from scalecli.cli.render import show, span, table
from scalecli.units import parse_count

if TYPE_CHECKING:
    from rich.console import RenderableType


def compare(
    first: Annotated[Path, typer.Argument(help="A fit written by `scalecli fit --out`.")],
    second: Annotated[Path, typer.Argument(help="The fit to compare it with.")],
    along: Annotated[
        str, typer.Option("--along", help="The axis: flops, or a column of the laws.")
    ] = "flops",
    at: Annotated[list[str] | None, typer.Option("--at", help="Fix other inputs: tokens=1e11[,...].")] = None,
    target: Annotated[
        float | None,
        typer.Option(
            "--target",
            parser=options.quantity(parse_count),
            metavar="QUANTITY",
            help="Where on the axis the decision falls, e.g. 2e24.",
        ),
    ] = None,
    interval: options.Level = 0.9,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Where two fits cross, how much compute the worse one needs to match the better, and whether they share
    their exponents.

    Examples:

      scalecli compare adamw.fit.json muon.fit.json --target 1e24

      scalecli compare a.fit.json b.fit.json --along tokens --at params=7B
    """
    from scalecli.fitters.compare.report import compare_fits
    from scalecli.fitters.fit import Fit

    fixed = options.numbers(at, "--at")
    document = compare_fits(
        Fit.read(first), Fit.read(second), along=along, at=fixed, target=target, level=interval
    )
    show(document | {"fits": [str(first), str(second)]}, _draw, as_json=as_json, out=out)


def _draw(document: Any) -> Iterator[RenderableType]:
    first, second = document["fits"]
    yield f"first: {first} ({document['first']['law']}); second: {second} ({document['second']['law']})"
    along = document["along"]
    for crossing in document["crossovers"]:
        share = "" if crossing["chance"] is None else f", in {crossing['chance']:.0%} of draws"
        yield f"cross at {along} = {span(crossing)}{share}: {crossing['better_above']} is better above"
    if not document["crossovers"]:
        chance = document["chance_of_crossing"]
        share = "" if chance is None else f" (they do in {chance:.0%} of draws)"
        yield f"no crossing for {along} in {document['range'][0]:.3g} … {document['range'][1]:.3g}{share}"
    share = f"{document['interval']:.0%}"
    yield table(
        "what the second needs to match the first",
        [along, f"times as much ({share} interval)"],
        ((place["at"], span(place)) for place in document["multipliers"]),
    )
    if document["target"]:
        goal = document["target"]
        sure = "" if goal["chance_first"] is None else f" (first in {goal['chance_first']:.0%} of draws)"
        yield f"at the target {goal['at']:.3g}: {goal['first']:.4g} and {goal['second']:.4g}, {goal['better']}{sure}"
    if document["shared_by_construction"]:
        yield f"shared by both, from one joint fit: {', '.join(document['shared_by_construction'])}"
    if document["shared_exponents"]:
        shared = document["shared_exponents"]
        rows = (
            (name, part["first"], part["second"], span(part["difference"]), part["p_value"])
            for name, part in shared["exponents"].items()
        )
        heads = ["exponent", "first", "second", f"difference ({share} interval)", "p"]
        yield table(f"same exponents? joint p = {shared['p_value']:.3g}", heads, rows)
