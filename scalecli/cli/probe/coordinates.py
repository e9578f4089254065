"""`scalecli probe coordinates`: sizes of activations and updates over width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options
from scalecli.cli.probe import options as probe
from scalecli.cli.probe.dry_run import show_estimate
from scalecli.cli.probe.measuring import Measurement, Rows
from scalecli.cli.progress import step_progress
from scalecli.cli.render import show, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from scalecli.data.corpus import Corpus
    from scalecli.probes.config import ProbeConfig
    from scalecli.probes.spec import SweepSpec


def coordinates(
    widths: Annotated[
        str, typer.Option("--widths", metavar="W,...", help="At least three, multiples of the first.")
    ] = "32,64,128",
    steps: Annotated[
        int, typer.Option("--steps", min=1, help="Training steps before sizes are compared.")
    ] = 10,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Models of every width, side by side.")] = 4,
    batch_tokens: Annotated[int, typer.Option("--batch-tokens", min=2, help="Tokens a step.")] = 1024,
    learning_rate: probe.LearningRate = None,
    parametrization: probe.Parametrization = None,
    sequence_length: probe.SequenceLength = None,
    model: probe.Model = None,
    data: probe.Data = None,
    tokenizer: probe.Tokenizer = None,
    settings: probe.Settings = None,
    device: options.Device = "auto",
    store: options.Store = Path("runs.db"),
    seed: options.Seed = 0,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> None:
    """Check the parametrization: do activations and their updates keep their size as the model gets wider?

    If they do, a learning rate that is tuned on a narrow model serves a wide one. The same passes say which number
    formats hold weights, activations and gradients, at initialisation and after the steps.

    Example: scalecli probe coordinates --widths 32,64,128,256 --parametrization mup
    """
    from scalecli.probes.coordinates import run as probing
    from scalecli.probes.coordinates.estimate import SLOPE_TOLERANCE, verdict
    from scalecli.probes.coordinates.ranges import held
    from scalecli.probes.engines.local import LocalEngine

    spec = probe.spec_with(
        data=data, settings=settings, model=model, tokenizer=tokenizer, parametrization=parametrization,
        sequence_length=sequence_length, device=device,
    )  # fmt: skip
    corpus = probe.read_corpus(spec)
    sizes = sorted({round(width) for width in options.counts([widths], "--widths")})
    config = _narrowest(spec, corpus, sizes, batch_tokens * steps, batch_tokens, learning_rate, seed)
    family = spec.recipe.family(corpus)
    wide = {width: replace(config, shape=family.widened(config.shape, width)) for width in sizes}
    parts = {
        width: Measurement(
            "coordinates", {"run": config.run_id, "width": width, "seeds": seeds, "ranges": True}, store
        )
        for width in sizes
    }
    if dry_run:
        done = {wide[width].run_id for width, part in parts.items() if part.file.exists()}
        show_estimate(
            list(wide.values()), store, LocalEngine(device=device, slots=1), finished=done, as_json=as_json
        )
        return
    rows: Rows = []
    with step_progress("widths") as on_width:
        for width, part in parts.items():
            measure = partial(
                probing.run, [wide[width]], corpus=corpus, steps=steps, seeds=seeds, device=device
            )
            rows += part.rows(measure)
            on_width(sizes.index(width) + 1, len(sizes))
    found = verdict(rows)
    document = {
        "schema": "scalecli/probe-coordinates/1",
        "parametrization": config.parametrization,
        "learning_rate": config.learning_rate,
        "widths": list(found.widths),
        "steps": steps,
        "transfers": found.transfers,
        "verdict": found.sentence,
        "tolerance": SLOPE_TOLERANCE,
        "slopes": [{**options.plain(slope), "flat": slope.flat} for slope in found.slopes],
        "sizes": [
            {name: row[name] for name in ("width", "name", "activation", "update")}
            for row in rows
            if row["kind"] == "coordinates"
        ],
        "formats": [options.plain(each) for each in held(rows)],
        "store": str(store),
    }
    show(document, _draw, as_json=as_json)


def _narrowest(
    spec: SweepSpec,
    corpus: Corpus,
    widths: Sequence[int],
    tokens: float,
    batch_tokens: float,
    learning_rate: float | None,
    seed: int,
) -> ProbeConfig:
    """The training at the first width; the others are it, widened."""
    from scalecli.probes.ladder import default_learning_rate

    shape = spec.recipe.family(corpus).member(widths[0])
    rate = learning_rate or default_learning_rate(shape.params, batch_tokens)
    return spec.recipe.config(
        shape, corpus, spec.data, tokens=tokens, batch_tokens=batch_tokens, learning_rate=rate, seed=seed
    )


def _draw(document: Any) -> Iterator[RenderableType]:
    slopes = sorted(document["slopes"], key=lambda slope: -abs(slope["slope"]))
    rows = (
        (slope["name"], slope["part"], slope["slope"], "flat" if slope["flat"] else "not flat")
        for slope in slopes
    )
    title = f"How sizes change with width after {document['steps']} steps ({document['parametrization']})"
    yield table(title, ["output of", "size of", "power of width", ""], rows)
    yield document["verdict"]
    yield table(
        "What number formats lose in the tensor that comes out worst",
        ["precision", "steps", "tensor", "to zero", "too large", "error", "of rounding", "scales", ""],
        map(_format_row, document["formats"]),
    )


def _format_row(found: Any) -> tuple[object, ...]:
    low, high = found["scales"] or ("", "")
    unseen = "" if "gradient" in found["parts"] else ", no gradients yet"
    return (
        found["precision"], found["step"], f"{found['part']} of {found['name']}, width {found['width']}",
        f"{found['below']:.2%}", f"{found['above']:.2%}", f"{found['error']:.2%}", f"{found['rounding']:.2%}",
        f"2^{low} … 2^{high}" if found["scales"] else "none", ("holds" if found["holds"] else "loses") + unseen,
    )  # fmt: skip
