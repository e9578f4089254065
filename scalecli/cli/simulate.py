"""`scalecli runs simulate`: run tables from models that are solved exactly, to test fits and probes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options
from scalecli.cli.render import show

if TYPE_CHECKING:
    from rich.console import RenderableType


def simulate(
    oracle: Annotated[
        str, typer.Argument(help="chinchilla, dynamical-model, random-features or sgd-features.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="A .csv, .parquet or .jsonl file.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Numbers of the model: alpha=0.3[,...].")
    ] = None,
    noise: Annotated[float, typer.Option("--noise", min=0.0, help="Relative noise of every run.")] = 0.0,
    shared: Annotated[
        float, typer.Option("--shared-noise", min=0.0, help="Relative noise that runs of one size share.")
    ] = 0.0,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Write the runs of a model whose exponents are known, and say what a fit should find.

    Examples:

      scalecli runs simulate dynamical-model --noise 0.003 -o runs.csv

      scalecli fit runs.csv --law power:steps --where "limited_by == 'time'"
    """
    from scalecli.data.tables import write_runs
    from scalecli.fitters.oracles.simulate import simulate as simulated

    found, frame = simulated(
        oracle, options.numbers(settings, "--set"), noise=noise, shared=shared, seed=seed
    )
    write_runs(frame, out)
    document = {
        "schema": "scalecli/simulation/1",
        "oracle": found.name,
        "source": found.source,
        "truth": found.truth(),
        "noise": noise,
        "shared_noise": shared,
        "seed": seed,
        "rows": len(frame),
        "file": str(out),
    }
    show(document, _draw, as_json=as_json)


def _draw(document: Any) -> Iterator[RenderableType]:
    yield f"{document['rows']} runs of {document['oracle']} ({document['source']}) → {document['file']}"
    for name, value in document["truth"].items():
        yield f"  {name}: {value:g}"
