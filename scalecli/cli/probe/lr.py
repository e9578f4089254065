"""`scalecli probe lr`: the best and the largest stable learning rate at one scale."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options
from scalecli.cli.probe import options as probe
from scalecli.cli.probe.dry_run import finished_runs, show_estimate
from scalecli.cli.probe.training import stored_runs, train_runs
from scalecli.cli.render import show, span, table
from scalecli.units import format_count

if TYPE_CHECKING:
    from rich.console import RenderableType

REACH = 8.0
"""The default range of rates goes this factor to either side of the rate by rule."""


def lr(
    params: probe.Params,
    tokens: probe.Tokens,
    batch_tokens: probe.BatchTokens = None,
    low: Annotated[
        float | None, typer.Option("--low", min=1e-12, help="Smallest rate.", show_default="rule / 8")
    ] = None,
    high: Annotated[
        float | None, typer.Option("--high", min=1e-12, help="Largest rate.", show_default="rule × 8")
    ] = None,
    per_octave: Annotated[int, typer.Option("--per-octave", min=1, help="Rates for each doubling.")] = 1,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs of every rate.")] = 3,
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=1e-6, help="Nats a token that a good rate may cost.")
    ] = 0.005,
    schedule: probe.Schedule = None,
    optimizer: probe.OptimizerName = None,
    parametrization: probe.Parametrization = None,
    sequence_length: probe.SequenceLength = None,
    model: probe.Model = None,
    data: probe.Data = None,
    tokenizer: probe.Tokenizer = None,
    settings: probe.Settings = None,
    device: options.Device = "auto",
    slots: probe.Slots = None,
    timeout: probe.Timeout = None,
    store: options.Store = Path("runs.db"),
    seed: options.Seed = 0,
    dry_run: options.DryRun = False,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Find the best learning rate, the range that is as good, and the largest stable one, from whole trainings.

    Examples:

      scalecli probe lr --params 50k --tokens 1M --dry-run

      scalecli probe lr --params 50k --tokens 1M --low 1e-3 --high 6e-2 --seeds 3
    """
    from scalecli.probes.engines.local import LocalEngine
    from scalecli.probes.learning_rate.design import design
    from scalecli.probes.learning_rate.estimate import rate_range

    spec = probe.spec_with(
        data=data, settings=settings, model=model, tokenizer=tokenizer, schedule=schedule, optimizer=optimizer,
        parametrization=parametrization, sequence_length=sequence_length, device=device,
    )  # fmt: skip
    wished: dict[str, Any] = {"params": params, "tokens": tokens, "batch_tokens": batch_tokens, "seed": seed}
    middle = probe.proxy_run(spec, probe.read_corpus(spec), **wished)
    rule = middle.learning_rate
    configs = design(
        middle,
        low=low or rule / REACH,
        high=high or rule * REACH,
        per_octave=per_octave,
        seeds=seeds,
    )
    engine = LocalEngine(device=device, slots=slots)
    if dry_run:
        show_estimate(configs, store, engine, finished=finished_runs(store), as_json=as_json)
        return
    train_runs(configs, store, engine, timeout=timeout)
    runs = stored_runs(configs, store)
    found = rate_range(runs, tolerance=tolerance)
    document = {
        "schema": "scalecli/probe-lr/1",
        "params": middle.shape.params,
        "tokens": middle.tokens,
        "batch_tokens": middle.batch_tokens,
        "optimizer": middle.optimizer.name,
        "schedule": middle.schedule.name,
        "parametrization": middle.parametrization,
        "learning_rate": {"value": found.best, "low": found.low, "high": found.high},
        "meaning": f"every rate from low to high costs at most {found.tolerance:.3g} nats a token more than the best",
        "loss": found.loss,
        "tolerance": found.tolerance,
        "seed_std": found.seed_std,
        "largest_stable": found.largest_stable,
        "smallest_diverged": found.smallest_diverged,
        "stable": probe.stable_setting(
            middle,
            middle.batch_tokens,
            found.largest_stable,
            "the largest rate in `probe lr` that did not diverge",
        ),
        "runs": [
            {name: run[name] for name in ("run_id", "learning_rate", "seed", "status", "loss")}
            for run in runs
        ],
        "store": str(store),
    }
    show(document, _draw, as_json=as_json, out=out)


def _draw(document: Any) -> Iterator[RenderableType]:
    seed_std = document["seed_std"]
    rows = [
        ("best, from where to where it is flat", span(document["learning_rate"])),
        ("loss there [nats/token]", f"{document['loss']:.4f}"),
        ("standard deviation over seeds [nats/token]", None if seed_std is None else f"{seed_std:.4f}"),
        ("largest stable rate tried", document["largest_stable"]),
        ("smallest rate that diverged", document["smallest_diverged"]),
    ]
    size, tokens = format_count(document["params"]), format_count(document["tokens"])
    title = f"Learning rate at {size} parameters, {tokens} tokens, {document['batch_tokens']} tokens a step"
    yield table(title, ["", ""], rows)
    yield f"flat: {document['meaning']}"
