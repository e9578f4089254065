"""`scalecli probe cnn-ladder`: which convolutional networks to train as proxies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options
from scalecli.cli.render import show, table

if TYPE_CHECKING:
    from rich.console import RenderableType


def cnn_ladder(
    epochs: Annotated[float, typer.Option("--epochs", min=1.0, help="How long each network is trained.")],
    rungs: Annotated[int, typer.Option("--rungs", min=2, help="Networks of the ladder.")] = 5,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """A ladder of CNN proxies: scaled in depth for long runs and in width for short ones, resolution slowly.

    Example: scalecli probe cnn-ladder --epochs 350 --json
    """
    from scalecli.probes.cnn_ladder import PAIRS, REGIME, scaled_by
    from scalecli.probes.cnn_ladder import cnn_ladder as ladder_for

    document = {
        "schema": "scalecli/cnn-ladder/1",
        "epochs": epochs,
        "scaled_by": scaled_by(epochs),
        "rungs": [options.plain(rung) for rung in ladder_for(epochs, rungs)],
        "rules": [REGIME, PAIRS],
        "source": "bello2021",
        "warnings": [],
    }
    show(document, _draw, as_json=as_json, out=out)


def _draw(document: Any) -> Iterator[RenderableType]:
    rows = ((r["depth"], r["width"], r["resolution"], r["compute"]) for r in document["rungs"])
    heads = ["depth", "width", "resolution", "compute, of the first"]
    yield table(f"{document['epochs']:g} epochs: scale the {document['scaled_by']}", heads, rows)
    yield f"rules: {', '.join(document['rules'])} ({document['source']}); scalecli laws show NAME"
