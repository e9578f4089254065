"""`scalecli validate`: fit to the small runs, score on the large ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import fitting, options
from scalecli.cli.render import show, span, table
from scalecli.units import format_count

if TYPE_CHECKING:
    from rich.console import RenderableType

    from scalecli.data.tables import RunTable
    from scalecli.fitters.validate.split import Split

SHOWN = 12
"""Held-out points in the drawing; the document has all."""


def validate(
    runs: options.Runs,
    law: Annotated[
        str,
        typer.Option("--law", help="A law's name, auto (chosen inside the training runs) or all (ranked)."),
    ] = "chinchilla",
    formula: fitting.Formula = None,
    train_below: Annotated[
        str | None, typer.Option("--train-below", help="Fit to the runs below: flops=1e20.")
    ] = None,
    hold_out_largest: Annotated[
        str | None, typer.Option("--hold-out-largest", help="Hold out the largest values: params:2.")
    ] = None,
    test: Annotated[str | None, typer.Option("--test", help="A second run table to score on.")] = None,
    settings: Annotated[
        str | None,
        typer.Option(
            "--settings",
            help="Instead of a law: do settings of these columns rank alike below and above the cut?",
        ),
    ] = None,
    map: options.Map = None,
    unit: options.Unit = None,
    where: options.Where = None,
    min_params: fitting.MinParams = None,
    min_flops: fitting.MinFlops = None,
    group: fitting.Group = None,
    draws: fitting.Draws = 200,
    interval: options.Level = 0.9,
    loss: fitting.RowLoss = "huber",
    delta: fitting.Delta = 1e-3,
    pin: fitting.Pin = None,
    out: options.Out = None,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Hold the largest runs out, fit to the others, and score: error, bias and coverage of the intervals.

    Without a cut the largest fifth by compute is held out.

    Examples:

      scalecli validate runs.csv --law chinchilla --train-below flops=1e20

      scalecli validate runs.csv --law all --hold-out-largest params:2

      scalecli validate runs.csv --settings optimizer --hold-out-largest params:1

      scalecli validate grid.csv --law landscape --hold-out-largest params:1
    """
    from scalecli.fitters.validate.report import ranking_document, validation_document

    kept = fitting.large_enough(where, min_params, min_flops)
    read, found = fitting.read_for_law(runs, map, unit, kept, law=law, formula=formula)
    larger = (
        None if test is None else fitting.read_for_law(test, map, unit, kept, law=law, formula=formula)[0]
    )
    split = _split(read, larger, train_below, hold_out_largest)
    if settings is not None:
        from scalecli.fitters.validate.ranks import rank_settings

        ranks = rank_settings(split, [name.strip() for name in settings.split(",")])
        show(ranks.document(), _draw_ranks, as_json=as_json, out=out)
        return
    how = fitting.settings(draws=draws, interval=interval, loss=loss, delta=delta, seed=seed, pin=pin)
    if law == "all" and formula is None:
        show(ranking_document(split, group, how), _draw_ranking, as_json=as_json, out=out)
    else:
        show(validation_document(split, found, group, how), _draw, as_json=as_json, out=out)


def _split(read: RunTable, larger: RunTable | None, below: str | None, largest: str | None) -> Split:
    from scalecli.fitters.validate import split

    if sum(cut is not None for cut in (larger, below, largest)) > 1:
        raise typer.BadParameter("--train-below, --hold-out-largest and --test exclude each other")
    if larger is not None:
        return split.hold_out_table(read, larger)
    if below is not None:
        cuts = options.numbers([below], "--train-below")
        if len(cuts) != 1:
            raise typer.BadParameter("names one column, such as flops=1e20", param_hint="--train-below")
        return split.hold_out_above(read, *next(iter(cuts.items())))
    if largest is not None:
        column, _, count = largest.partition(":")
        if not (column and count.isdigit()):
            raise typer.BadParameter(
                f"{largest!r} is not of the form params:2", param_hint="--hold-out-largest"
            )
        return split.hold_out_levels(read, column, int(count))
    return split.hold_out_share(read)


def _draw(document: Any) -> Iterator[RenderableType]:
    for choice in document["choice"]["laws"] if document["choice"] else ():
        yield f"  {choice['law']}: {choice['mean_abs_log_error']:.4f} inside the training runs"
    yield f"{document['law']}, fitted to {document['train_rows']} runs ({document['train']})"
    rows = (
        (", ".join(f"{k}={v:.4g}" for k, v in p["at"].items()), p["measured"], _predicted(p))
        for p in document["points"][:SHOWN]
    )
    heads = ["held out", "measured", f"predicted ({document['interval']:.0%} interval)"]
    yield table(f"{document['heldout_rows']} held-out runs", heads, rows)
    covered = "" if document["coverage"] is None else f", coverage {document['coverage']:.0%}"
    yield (
        f"mean |log error| {document['mean_abs_log_error']:.4f}, rms {document['rms_log_error']:.4f}, "
        f"bias {document['bias']:+.4f}{covered}"
    )
    if document["recommendation"] is not None:
        yield from _draw_recommendation(document["recommendation"])


def _draw_recommendation(found: Any) -> Iterator[RenderableType]:
    rows = (
        (
            format_count(each["params"]),
            format_count(each["tokens"]),
            format_count(each["batch_tokens"]),
            each["learning_rate"],
            "outside what was tried" if each["excess"] is None else f"{each['excess']:.3%}",
        )
        for each in found["points"]
    )
    heads = ["params", "tokens", "batch [tokens]", "learning rate", "loss above the least"]
    yield table("recommended for the held-out settings, judged by their runs", heads, rows)
    if found["mean_excess"] is not None:
        yield f"mean {found['mean_excess']:.3%}, worst {found['worst_excess']:.3%} of the loss"


def _predicted(point: Any) -> str:
    return span({"value": point["predicted"], "low": point["low"], "high": point["high"]})


def _draw_ranking(document: Any) -> Iterator[RenderableType]:
    rows = (
        (d["law"], f"{d['mean_abs_log_error']:.4f}", f"{d['bias']:+.4f}", d["coverage"])
        for d in document["laws"]
    )
    yield table(
        f"laws by extrapolation ({document['train']})", ["law", "mean |log error|", "bias", "coverage"], rows
    )
    for law in document["unusable"]:
        yield f"  not ranked: {law['law']} ({law['reason']})"


def _draw_ranks(document: Any) -> Iterator[RenderableType]:
    rows = (
        (", ".join(s["setting"].values()), f"{s['small']:+.4f}", f"{s['large']:+.4f}")
        for s in document["settings"]
    )
    heads = [", ".join(document["columns"]), "small", "large"]
    yield table("log loss of settings, relative to their scale", heads, rows)
    found = document["rank_correlation"]
    yield (
        f"rank correlation {'–' if found is None else f'{found:.2f}'}; choosing by the small runs costs "
        f"{document['regret']:.4f} log loss at the large"
    )
