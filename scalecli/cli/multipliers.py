"""`scalecli multipliers`: muP's multipliers of rate, decay, output and start for each kind of weight."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options
from scalecli.cli.render import filled_table, show

if TYPE_CHECKING:
    from rich.console import RenderableType


def multipliers(
    base_width: Annotated[
        int, typer.Option("--base-width", min=1, help="Width at which the rate was tuned.")
    ],
    width: Annotated[int, typer.Option("--width", min=1, help="Width at which it is used.")],
    structure: Annotated[
        str,
        typer.Option(
            "--structure",
            metavar="dense|low-rank|block-diagonal|monarch|kronecker|btt",
            help="What the hidden layers are made of: each factor learns by its own fan-in.",
        ),
    ] = "dense",
    blocks: Annotated[
        int | None, typer.Option("--blocks", min=1, help="Of block-diagonal and monarch.")
    ] = None,
    rank: Annotated[int | None, typer.Option("--rank", min=1, help="Of low-rank and btt.")] = None,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Print muP's multipliers under Adam for a wider model, or for one whose layers are structured matrices.

    Of the learning rate that was tuned with dense layers at the base width; it carries over width only.

    Example: scalecli multipliers --base-width 256 --width 4096 --structure monarch --blocks 16
    """
    from scalecli.plan.rules.structure import SOURCE, Structure
    from scalecli.plan.rules.width import width_groups

    layer = Structure(kind=structure, blocks=blocks, rank=rank)
    groups = width_groups(float(base_width), float(width), layer)
    document = {
        "schema": "scalecli/multipliers/1",
        "base_width": base_width,
        "width": width,
        "structure": options.plain(layer),
        "groups": [options.plain(group) for group in groups],
        "source": "yang2022" if structure == "dense" else SOURCE,
        "warnings": [
            {
                "code": "W-WIDTH-ONLY",
                "message": "carries over width, with muP's initialisation and 1/d attention: not over depth, tokens "
                "or batch",
            }
        ],
    }
    show(document, _draw, as_json=as_json, out=out)


def _draw(document: Any) -> Iterator[RenderableType]:
    title = f"muP from width {document['base_width']} to {document['width']} ({document['structure']['kind']} layers)"
    heads = ["weights", "× learning rate", "× weight decay", "× output", "initial standard deviation"]
    rows = (
        (group["name"], group["multiplier"], group["weight_decay"], group["output"], group["initial_std"])
        for group in document["groups"]
    )
    yield filled_table(title, heads, rows)
