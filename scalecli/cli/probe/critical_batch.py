"""`scalecli probe critical-batch`: steps to a target over batches, or branches from one point of a training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options
from scalecli.cli.probe import options as probe
from scalecli.cli.probe.branches import BranchedProbe
from scalecli.cli.probe.dry_run import show_estimate
from scalecli.cli.probe.steps_to_target import StepsProbe
from scalecli.cli.render import show, span, table
from scalecli.units import format_count, parse_count

if TYPE_CHECKING:
    from rich.console import RenderableType


def critical_batch(
    params: probe.Params,
    tokens: probe.Tokens,
    batch_tokens: probe.BatchList = None,
    learning_rate: probe.RateList = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs of every setting.")] = 1,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", metavar="LOSS,...", show_default="the lowest that every batch reaches"),
    ] = None,
    branch_at: Annotated[
        int | None,
        typer.Option("--branch-at", min=1, help="Branch from this step of one training with larger batches."),
    ] = None,
    branch_tokens: Annotated[
        float | None,
        typer.Option(
            "--branch-tokens",
            parser=options.quantity(parse_count),
            metavar="D",
            help="Length of a branch.",
            show_default="a tenth of --tokens",
        ),
    ] = None,
    factors: Annotated[
        str, typer.Option("--factors", metavar="K,...", help="Batches of the branches, as multiples.")
    ] = "1,2,4,8,16",
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=1e-6, help="Nats a token that a larger branch may lose.")
    ] = 0.01,
    interval: options.Level = 0.9,
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
    rows: probe.Rows = None,
    seed: options.Seed = 0,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> None:
    """Measure the critical batch size, each figure with the definition it is for.

    Whole trainings at a constant rate over batches and rates give the steps to a target loss. With --branch-at,
    branches from one point of a training give the batch up to which tokens are worth as much as with the small one.

    Examples:

      scalecli probe critical-batch --params 30k --tokens 600k --rows steps.csv

      scalecli probe critical-batch --params 30k --tokens 600k --branch-at 400 --factors 1,2,4,8
    """
    from scalecli.probes.engines.local import LocalEngine

    spec = probe.spec_with(
        data=data, settings=settings, model=model, tokenizer=tokenizer, schedule="constant", optimizer=optimizer,
        parametrization=parametrization, sequence_length=sequence_length, device=device,
    )  # fmt: skip
    corpus = probe.read_corpus(spec)
    batches = options.counts(batch_tokens, "--batch-tokens")
    rates = options.counts(learning_rate, "--learning-rate")
    wished: dict[str, Any] = {
        "params": params, "tokens": tokens, "batches": batches, "rates": rates, "seed": seed,
    }  # fmt: skip
    made: BranchedProbe | StepsProbe
    if branch_at is not None:
        multiples = tuple(round(each) for each in options.counts([factors], "--factors"))
        made = BranchedProbe.of(
            spec, corpus, **wished, start=branch_at, length=branch_tokens or tokens / 10, factors=multiples,
            tolerance=tolerance,
        )  # fmt: skip
    else:
        targets = options.counts(target, "--target")
        made = StepsProbe.of(spec, corpus, **wished, seeds=seeds, targets=targets, interval=interval)
    if dry_run:
        show_estimate(
            made.configs,
            store,
            LocalEngine(device=device, slots=made.slots(slots)),
            finished=made.finished(store),
            as_json=as_json,
        )
        return
    document = {
        "schema": "scalecli/probe-critical-batch/1",
        "params": params,
        **made.measure(store, device, slots, timeout),
        "store": str(store),
    }
    if rows is not None:
        _write(document["rows"], rows)
    show(document, _draw, as_json=as_json)


def _write(rows: list[dict[str, Any]], path: Path) -> None:
    import pandas as pd

    from scalecli.data.formats import write_runs

    write_runs(pd.DataFrame(rows), path)


def _draw(document: Any) -> Iterator[RenderableType]:
    heads = ["at", "critical batch [tokens]", "definition"]
    yield table(f"Critical batch ({document['method']})", heads, map(_line, document["critical"]))
    for target in document["unidentified"]:
        yield f"not identified at a loss of {target['loss']:.4f}: {target['reason']}"


def _line(figure: dict[str, Any]) -> tuple[object, ...]:
    return figure["at"], span({**figure, "value": figure["tokens"]}, format_count), figure["definition"]
