"""`scalecli fit`: a law from a run table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from scalecli.cli import fitting, options
from scalecli.cli.render import show, span, table, to_json
from scalecli.export.files import write_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from scalecli.data.tables import RunTable
    from scalecli.fitters.fit import FitOptions

ARM = "{arm}"
"""What `--out` has in the place of an arm's name."""


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
    final: fitting.Final = None,
    arms: Annotated[
        str | None,
        typer.Option(
            "--arms",
            metavar="COLUMN",
            help="Fit every kind of COLUMN at once with shared exponents; --out loss.{arm}.fit.json writes a fit each.",
        ),
    ] = None,
    share: Annotated[
        str | None,
        typer.Option("--share", metavar="NAMES", help="What the arms share.", show_default="the exponents"),
    ] = None,
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

      scalecli fit runs.csv --arms optimizer --out "loss.{arm}.fit.json"
    """
    from scalecli.fitters.runs import fit_runs
    from scalecli.fitters.validate.choose import fit_best

    if law == "all":
        raise typer.BadParameter(
            "one law is fitted; scalecli validate --law all ranks them", param_hint="--law"
        )
    settings = fitting.settings(draws=draws, interval=interval, loss=loss, delta=delta, seed=seed, pin=pin)
    kept = fitting.large_enough(where, min_params, min_flops)
    read, chosen = fitting.read_for_law(runs, map, unit, kept, law=law, formula=formula)
    read = fitting.kept_runs(
        read, final=final, tuned=tuned, small=min_params is not None or min_flops is not None
    )
    if arms is not None:
        _fit_arms(read, chosen, arms, share, group, settings, out, as_json)
        return
    if chosen is None:
        found = fit_best(read, group=group, options=settings)
    else:
        found = fit_runs(read, chosen, group=group, options=settings)
    show(found.document(), draw_fit, as_json=as_json, out=out, full=found.document(draws=True))


def _fit_arms(
    read: RunTable,
    law: type[Any] | None,
    column: str,
    share: str | None,
    group: str | None,
    settings: FitOptions,
    out: Path | None,
    as_json: bool,
) -> None:
    from scalecli.fitters.arms import fit_arms

    if law is None:
        raise typer.BadParameter("the arms of one law are fitted; name it with --law", param_hint="--arms")
    if out is not None and ARM not in str(out):
        raise typer.BadParameter(
            f"a fit is written for each arm: {ARM} stands for its name", param_hint="--out"
        )
    shared = None if share is None else [name.strip() for name in share.split(",")]
    found = fit_arms(read, law, column, shared=shared, group=group, options=settings)
    show(found.document(), _draw_arms, as_json=as_json)
    for arm, fit in found.fits.items() if out is not None else ():
        name = quote(arm, safe=" ")  # an arm's name is data, and no path
        write_text(Path(str(out).replace(ARM, name)), to_json(fit.document(draws=True)))


def _draw_arms(document: Any) -> Iterator[RenderableType]:
    share = f"{next(iter(document['arms'].values()))['interval']:.0%}"
    shared = ((name, span(found)) for name, found in document["shared"].items())
    yield table(f"{document['law']}: shared by all arms", ["parameter", f"value ({share} interval)"], shared)
    own = [
        name for name in next(iter(document["arms"].values()))["parameters"] if name not in document["shared"]
    ]
    rows = (
        (arm, *(span(fit["parameters"][name]) for name in own), fit["rows"]["used"])
        for arm, fit in document["arms"].items()
    )
    yield table(f"arms of {document['column']}", ["arm", *own, "rows"], rows)
    for arm, found in document["alone"].items():
        yield f"  {arm} alone: {', '.join(f'{name} {value:.4g}' for name, value in found.items())}"
    if document["p_value"] is not None:
        yield f"same exponents in all arms? p = {document['p_value']:.3g}"


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
    yield from _draw_answers(document["diagnostics"])
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


def _draw_answers(diagnostics: Any) -> Iterator[str]:
    """How the best size grows, and what the headline is without parts of the runs."""
    if (grown := diagnostics.get("allocation")) is not None:
        yield (f"best size: as compute^{grown['exponent']:.3f} ({grown['low']:.3f} to {grown['high']:.3f})")
    if (spread := diagnostics.get("spread")) is not None:
        low, high = (f"{end:.4g}" for end in spread["headline"])
        name = diagnostics["headline"]["name"]
        yield f"without one part of the runs ({spread['choices']} choices): {name} is {low} to {high}"
        if spread["optimal_params"] is not None:
            low, high = (f"{end:.4g}" for end in spread["optimal_params"])
            yield f"  and the best size there {low} to {high}"


def _objective(document: Any) -> str:
    objective, certificate = document["objective"], document["convergence"]
    value = "no objective" if objective["value"] is None else f"{objective['name']} {objective['value']:.6g}"
    return f"{value}; {certificate['agree']} of {certificate['starts']} starts agree"
