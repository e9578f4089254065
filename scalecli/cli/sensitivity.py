"""`scalecli sensitivity`: how much recipes lose off their best learning rate and batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options
from scalecli.cli.render import show, span, table
from scalecli.cli.tables import read_table

if TYPE_CHECKING:
    from rich.console import RenderableType


def sensitivity(
    runs: options.Runs,
    by: Annotated[str, typer.Option("--by", help="The column that tells recipes apart.")] = "optimizer",
    reach: Annotated[
        float, typer.Option("--reach", min=0.5, help="Octaves of rate and batch about the best that count.")
    ] = 2.0,
    map: options.Map = None,
    unit: options.Unit = None,
    where: options.Where = None,
    interval: options.Level = 0.9,
    seed: options.Seed = 0,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Compare recipes by robustness: the mean loss above the best over a grid of learning rates and batches.

    A run that diverged counts as one that guesses. Each size and length has a grid about its own best point.

    Example: scalecli sensitivity runs.db --by optimizer
    """
    from scalecli.fitters.compare.sensitivity import sensitivity as measure

    read = read_table(runs, map, unit, where, keep_status=("ok", "diverged"))
    show(measure(read, by, reach=reach, interval=interval, seed=seed), _draw, as_json=as_json, out=out)


def _draw(document: Any) -> Iterator[RenderableType]:
    title = f"Loss above the best within {document['reach_octaves']:g} octaves of rate and batch [nats/token]"
    heads = [
        document["by"], "mean excess", "rates within 1 % [octaves]", "batches within 1 % [octaves]", "best loss",
        "diverged", "settings",
    ]  # fmt: skip
    rows = (
        (
            recipe["recipe"], span(recipe["sensitivity"]), recipe["rate_octaves"], recipe["batch_octaves"],
            recipe["best_loss"], recipe["diverged"], recipe["settings"],
        )
        for recipe in document["recipes"]
    )  # fmt: skip
    yield table(title, heads, rows)
