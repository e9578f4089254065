"""`scalecli trajectory`: what fitted constants say of one training, from its least loss to the loss at each step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import fitting, options
from scalecli.cli.render import show, span, table
from scalecli.cli.tables import read_table
from scalecli.units import format_count

if TYPE_CHECKING:
    from rich.console import RenderableType

    from scalecli.fitters.fit import Fit


def trajectory(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="RUNS|FIT...",
            help="Loss curves (a store or a table) to fit trajectory to; or fits: of trajectory, or of kaplan-steps "
            "and critical-batch-loss.",
        ),
    ],
    at: Annotated[
        list[str],
        typer.Option("--at", help="The training: params=1B,batch_tokens=512k (params as the fits count)."),
    ],
    loss: Annotated[
        list[float] | None,
        typer.Option("--loss", help="A loss to reach (repeat).", show_default="spread over the training"),
    ] = None,
    steps: Annotated[
        list[str] | None,
        typer.Option("--steps", help="Steps to tell the loss at: 10k,100k.", show_default="the runs' and on"),
    ] = None,
    across_setups: Annotated[
        bool,
        typer.Option("--across-setups", help="Warn of fits from different set-ups instead of refusing them."),
    ] = False,
    map: options.Map = None,
    unit: options.Unit = None,
    where: options.Where = None,
    interval: options.Level = 0.9,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """The least loss of a size; critical batch, least steps and least tokens at several losses; the loss over steps.

    Every constant is told with the fit and the set-up that it was measured in.

    Examples:

      scalecli trajectory runs.db --map params=params_non_embedding --at params=1B,batch_tokens=512k

      scalecli fit curves.csv --law trajectory --out curves.fit.json

      scalecli trajectory curves.fit.json --at params=1B,batch_tokens=512k --loss 2.6 --steps 10k,100k

      scalecli trajectory steps.fit.json critical.fit.json --at params=1B,batch_tokens=512k
    """
    from scalecli.fitters.chain import chain_document, chain_of

    place = options.numbers(at, "--at")
    if set(place) != {"params", "batch_tokens"}:
        raise typer.BadParameter("gives params and batch_tokens, and nothing else", param_hint="--at")
    fits = _fits(sources, map, unit, where)
    chain, notices = chain_of(fits, interval, across_setups=across_setups)
    document = chain_document(
        chain, notices, **place, losses=loss or (), steps=options.counts(steps, "--steps")
    )
    show(document, _draw, as_json=as_json, out=out)


def _fits(
    sources: list[str], map: list[str] | None, unit: list[str] | None, where: list[str] | None
) -> list[Fit]:
    """The fits that are named, or the one that is made of the loss curves."""
    from scalecli.data.tables import is_run_table
    from scalecli.fitters.fit import Fit
    from scalecli.fitters.laws.trajectory import Trajectory
    from scalecli.fitters.runs import columns_of, fit_runs

    if len(sources) > 1 or not is_run_table(sources[0]):
        return [Fit.read(Path(source)) for source in sources]
    curves = read_table(sources[0], map, unit, where, require=columns_of(Trajectory), rows="readings")
    return [fit_runs(fitting.kept_runs(curves, final=None, tuned=False, small=False), Trajectory)]


def _draw(document: Any) -> Iterator[RenderableType]:
    share = f"{document['interval']:.0%}"
    constants = ((one["name"], span(one), one["fit"]) for one in document["constants"])
    yield table("constants", ["name", f"value ({share} interval)", "from"], constants)
    setups = {one["fit"]: one["setup"] for one in document["constants"]}
    for fit, setup in setups.items():
        said = (
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in setup.items()
        )
        yield f"{fit} measured with: {', '.join(said) or 'a set-up that its runs do not say'}"
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


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
