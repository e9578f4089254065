"""`scalecli probe curvature`: the largest curvature of the loss over batches, and the rate that it leaves stable."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options
from scalecli.cli.probe import options as probe
from scalecli.cli.probe.dry_run import show_measurement
from scalecli.cli.probe.measuring import Measurement, Rows
from scalecli.cli.progress import step_progress
from scalecli.cli.render import show, span, table
from scalecli.errors import NotEnoughSignal
from scalecli.units import format_count

if TYPE_CHECKING:
    from rich.console import RenderableType

    from scalecli.probes.config import ProbeConfig

BATCH_FACTORS = (0.25, 1.0, 4.0, 16.0)
"""The default batches, as multiples of the one that is trained with."""


def curvature(
    params: probe.Params,
    tokens: probe.Tokens,
    at: Annotated[
        int | None, typer.Option("--at", min=1, help="The step of the training.", show_default="half way")
    ] = None,
    batch_tokens: probe.BatchTokens = None,
    batches: Annotated[
        list[str] | None,
        typer.Option(
            "--batches",
            metavar="B,...",
            help="Batches in tokens whose curvature is measured.",
            show_default="4 about its own",
        ),
    ] = None,
    learning_rate: probe.LearningRate = None,
    repeats: Annotated[int, typer.Option("--repeats", min=2, help="Batches of each size.")] = 3,
    iterations: Annotated[int, typer.Option("--iterations", min=2, help="Of Lanczos, a batch.")] = 20,
    interval: options.Level = 0.9,
    optimizer: probe.OptimizerName = None,
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
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Measure the largest curvature of batches at one point of a training, and the largest stable learning rate.

    Under AdamW the curvature is that which its updates see. It falls with the batch as λ + c / B: the stable rate grows
    with the batch while the second part is the larger one. `plan --probe FILE` takes the rate as a ceiling.

    Example: scalecli probe curvature --params 30k --tokens 400k --batch-tokens 512 --out curvature.json
    """
    from scalecli.probes.curvature import run as probing

    spec = probe.spec_with(
        data=data, settings=settings, model=model, tokenizer=tokenizer, optimizer=optimizer,
        parametrization=parametrization, sequence_length=sequence_length, device=device,
    )  # fmt: skip
    corpus = probe.read_corpus(spec)
    config = probe.proxy_run(
        spec, corpus, params=params, tokens=tokens, batch_tokens=batch_tokens, learning_rate=learning_rate, seed=seed
    )  # fmt: skip
    wished = options.counts(batches, "--batches") or tuple(
        factor * config.batch_tokens for factor in BATCH_FACTORS
    )
    sizes = tuple(sorted({max(1, round(batch / config.sequence_length)) for batch in wished}))
    what: dict[str, Any] = {
        "start": at or max(1, config.steps // 2), "batches": sizes, "repeats": repeats, "iterations": iterations,
    }  # fmt: skip
    measurement = Measurement("curvature", {"run": config.run_id, **what}, store)
    if dry_run:
        show_measurement(measurement, [config], device, as_json=as_json)
        return
    with step_progress("steps and batches") as on_step:
        rows = measurement.rows(
            lambda: probing.run(
                config, probing.CurvatureProbe(**what), corpus=corpus, device=device, on_step=on_step
            )
        )
    document = {
        "schema": "scalecli/probe-curvature/1",
        "run_id": config.run_id,
        "params": config.shape.params,
        "optimizer": config.optimizer.name,
        "learning_rate": config.learning_rate,
        "step": what["start"],
        "interval": interval,
        **_estimates(config, rows, interval),
        "store": str(store),
    }
    show(document, _draw, as_json=as_json, out=out)


def _estimates(config: ProbeConfig, rows: Rows, interval: float) -> dict[str, Any]:
    """Curvature and stable rate of each batch, the fit over batches, and the setting that is the limit.

    Raises:
        NotEnoughSignal: a batch has no positive curvature, so that every rate would be stable.
    """
    import numpy as np

    from scalecli.probes.curvature.estimate import spike, stable_rate

    batches = np.array([row["batch_tokens"] for row in rows], dtype=float)
    largest = np.array([row["curvature_high"] for row in rows])
    if largest.min() <= 0:
        raise NotEnoughSignal(
            f"the largest curvature of a batch is {largest.min():.3g}: no rate is unstable there",
            estimate=float(largest.min()),
            hint="more --iterations, or a later step with --at",
        )
    name, beta1 = config.optimizer.name, config.optimizer.beta1
    points = [
        {
            "batch_tokens": int(batch),
            "curvature": _ends(largest[batches == batch]),
            "stable_rate": _ends([stable_rate(each, name, beta1) for each in largest[batches == batch]]),
        }
        for batch in np.unique(batches)
    ]
    document: dict[str, Any] = {"points": points, "fit": None, "warnings": []}
    try:
        found = spike(batches, largest, interval=interval)
    except NotEnoughSignal as error:
        document["warnings"].append({"code": "W-NO-TREND", "message": error.message})
        here = float(np.exp(np.mean(np.log(largest))))
    else:
        document["fit"] = options.plain(found)
        here = found.at(config.batch_tokens)
    document["stable"] = probe.stable_setting(
        config, config.batch_tokens, stable_rate(here, name, beta1),
        "the largest rate that the measured curvature leaves stable in `probe curvature`",
    )  # fmt: skip
    return document


def _ends(measured: Sequence[float]) -> dict[str, float]:
    """The geometric mean of a few measurements, and the ends of them."""
    value = math.exp(sum(map(math.log, measured)) / len(measured))
    return {"value": value, "low": float(min(measured)), "high": float(max(measured))}


def _draw(document: Any) -> Iterator[RenderableType]:
    seen = "as AdamW's updates see it" if document["optimizer"] == "adamw" else "of the loss"
    heads = ["batch [tokens]", "largest curvature", "largest stable rate"]
    rows = (
        (format_count(point["batch_tokens"]), span(point["curvature"]), span(point["stable_rate"]))
        for point in document["points"]
    )
    yield table(f"Largest curvature {seen}, step {document['step']}", heads, rows)
    fit = document["fit"]
    if fit is not None:
        full, doubled = (
            {"value": fit[name], "low": fit[f"{name}_low"], "high": fit[f"{name}_high"]}
            for name in ("full", "doubled")
        )
        yield (
            f"without noise the curvature is {span(full)}; the stable rate grows with the batch up to about "
            f"{span(doubled, format_count)} tokens, where noise is as large"
        )
    stable = document["stable"]
    yield (
        f"at the batch of {format_count(stable['batch_tokens'])} tokens rates up to {stable['learning_rate']:.3g} are "
        f"stable; trained with {document['learning_rate']:.3g}"
    )
