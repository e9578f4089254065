"""`scalecli critical-batch`: critical batches at several targets, from steps to each target over batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options
from scalecli.cli.render import show, span, table
from scalecli.cli.tables import read_table
from scalecli.fitters.critical.definitions import COMPUTE_AND_TIME
from scalecli.units import format_count

if TYPE_CHECKING:
    from rich.console import RenderableType


def critical_batch(
    runs: options.Runs,
    map: options.Map = None,
    unit: options.Unit = None,
    where: options.Where = None,
    rows: Annotated[
        Path | None,
        typer.Option("--rows", help="Write one row a target here, for `fit --law critical-batch-loss`."),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by", help="A column that tells recipes apart, such as optimizer: each has its own figures."
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference", help="The recipe that the others are measured by.", show_default="the first"
        ),
    ] = None,
    noise: Annotated[
        Path | None,
        typer.Option(
            "--noise", help="A fit of the law noise-scale: its ratio to each critical batch is told."
        ),
    ] = None,
    interval: options.Level = 0.9,
    seed: options.Seed = 0,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """S_min, E_min and the critical batch at every target loss, each in its own definition.

    The table has one row for each run that reached a target: loss (the target), batch_tokens, steps, where rates were
    tuned learning_rate, and where sizes differ params. Runs whose rate decays to a fixed horizon are refused.

    Examples:

      scalecli critical-batch steps.csv --rows critical.csv

      scalecli critical-batch steps.csv --by optimizer --reference adamw

      scalecli fit critical.csv --law critical-batch-loss --out critical.fit.json
    """
    import pandas as pd

    from scalecli.data.formats import write_runs
    from scalecli.fitters.critical.report import critical_batches
    from scalecli.fitters.fit import Fit

    law = None if noise is None else Fit.read(noise)
    read = read_table(runs, map, unit, where)
    if by is not None:
        from scalecli.fitters.critical.frontier import critical_batches_by

        told = critical_batches_by(read, by, reference=reference, noise=law, interval=interval, seed=seed)
        show(told, _draw_by, as_json=as_json, out=out)
        return
    found = critical_batches(read, noise=law, interval=interval, seed=seed)
    if rows is not None:
        write_runs(pd.DataFrame(found["rows"]), rows)
    show(found, _draw, as_json=as_json, out=out)


def _draw(document: Any) -> Iterator[RenderableType]:
    heads = ["params", "loss", "batches", "S_min", "E_min [tokens]", "critical batch [tokens]", "definition"]
    yield table("Critical batches", heads, _rows(document["targets"]))
    yield COMPUTE_AND_TIME
    compared = [t for t in document["targets"] if t["noise_scale_over_critical"] is not None]
    if compared:
        heads = ["loss", "gradient noise scale [tokens]", "over the critical batch"]
        yield table("Noise scale: a ratio, never a batch to train at", heads, map(_ratio, compared))


def _ratio(target: Any) -> tuple[object, ...]:
    return (
        target["loss"],
        span(target["noise_scale_tokens"], format_count),
        target["noise_scale_over_critical"],
    )


def _draw_by(document: Any) -> Iterator[RenderableType]:
    heads = [
        document["by"],
        "params",
        "loss",
        "batches",
        "S_min",
        "E_min [tokens]",
        "critical batch [tokens]",
        "definition",
    ]
    rows = ((recipe["recipe"], *row) for recipe in document["recipes"] for row in _rows(recipe["targets"]))
    yield table("Critical batches of each", heads, rows)
    heads = [document["by"], "loss", "batch [tokens]", f"tokens of {document['reference']} for one of these"]
    ratios = (
        (
            ratio["recipe"],
            ratio["loss"],
            format_count(ratio["batch_tokens"]),
            span({**ratio, "value": ratio["token_ratio"]}),
        )
        for ratio in document["ratios"]
    )
    yield table("Token ratio at equal loss", heads, ratios)


def _rows(targets: Any) -> Iterator[tuple[object, ...]]:
    for target in targets:
        shown = (
            None if target["params"] is None else format_count(target["params"]),
            target["loss"],
            target["batches"],
            span(target["S_min"]),
            span(target["E_min"], format_count),
        )
        if target["reason"] is not None:
            yield *shown, "not identified", target["reason"]
        for figure in target["critical"]:
            yield *shown, span({**figure, "value": figure["tokens"]}, format_count), figure["definition"]
