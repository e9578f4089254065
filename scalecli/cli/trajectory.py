"""`scalecli trajectory`: what fitted constants say of one training, from its least loss to the loss at each step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options
from scalecli.cli.render import show, span, table
from scalecli.units import format_count

if TYPE_CHECKING:
    from rich.console import RenderableType


def trajectory(
    fits: Annotated[
        list[Path],
        typer.Argument(help="A fit of trajectory; or one of kaplan-steps and one of critical-batch-loss."),
    ],
    at: Annotated[
        list[str],
        typer.Option("--at", help="The training: params=1B,batch_tokens=512k (params as the fits count)."),
    ],
    loss: Annotated[
        list[float] | None,
        typer.Option("--loss", help="A loss to reach (repeat) [spread over the training]."),
    ] = None,
    steps: Annotated[
        list[str] | None,
        typer.Option("--steps", help="Steps to tell the loss at: 10k,100k [the runs' and on]."),
    ] = None,
    across_setups: Annotated[
        bool,
        typer.Option("--across-setups", help="Warn of fits from different set-ups instead of refusing them."),
    ] = False,
    interval: options.Level = 0.9,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """The least loss of a size; critical batch, least steps and least tokens at several losses; the loss over steps.

    Every constant is told with the fit and the set-up that it was measured in.

    Examples:

      scalecli fit curves.csv --law trajectory --map params=params_non_embedding --out curves.fit.json

      scalecli trajectory curves.fit.json --at params=1B,batch_tokens=512k --loss 2.6 --steps 10k,100k

      scalecli trajectory steps.fit.json critical.fit.json --at params=1B,batch_tokens=512k
    """
    from scalecli.fitters.chain import chain_document, chain_of
    from scalecli.fitters.fit import Fit

    place = options.numbers(at, "--at")
    if set(place) != {"params", "batch_tokens"}:
        raise typer.BadParameter("gives params and batch_tokens, and nothing else", param_hint="--at")
    chain, notices = chain_of([Fit.read(path) for path in fits], interval, across_setups=across_setups)
    document = chain_document(
        chain, notices, **place, losses=loss or (), steps=options.counts(steps, "--steps")
    )
    show(document, _draw, as_json=as_json, out=out)


def _draw(document: Any) -> Iterator[RenderableType]:
    share = f"{document['interval']:.0%}"
    constants = (
        (one["name"], span(one), one["fit"], ", ".join(f"{k} {v}" for k, v in one["setup"].items()) or None)
        for one in document["constants"]
    )
    yield table("constants", ["name", f"value ({share} interval)", "from", "measured with"], constants)
    place = document["at"]
    yield (
        f"{format_count(place['params'])} parameters at {format_count(place['batch_tokens'])} tokens a step; "
        f"least loss {span(document['min_loss'])}"
    )
    names = ["critical_batch_tokens", "S_min", "E_min", "steps", "tokens"]
    rows = ((one["loss"], *(span(one[name], format_count) for name in names)) for one in document["losses"])
    yield table("to reach", ["loss", "critical batch", "S_min", "E_min", "steps", "tokens"], rows)
    readings = (
        (format_count(one["steps"]), format_count(one["tokens"]), span(one["loss"]))
        for one in document["trajectory"]
    )
    yield table("along the training", ["steps", "tokens", f"loss ({share} interval)"], readings)
