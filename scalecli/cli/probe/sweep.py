"""`scalecli probe sweep`: a ladder or grid of proxy trainings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options
from scalecli.cli.probe import engine as where
from scalecli.cli.probe import options as probe
from scalecli.cli.probe.dry_run import finished_runs, machine_pace, show_estimate
from scalecli.cli.probe.training import train_runs
from scalecli.cli.render import show, warn
from scalecli.units import format_seconds, parse_count

if TYPE_CHECKING:
    from rich.console import RenderableType

    from scalecli.data.corpus import Corpus
    from scalecli.probes.config import ProbeConfig
    from scalecli.probes.engines.engine import Capacity, Engine
    from scalecli.probes.ladder import Cost
    from scalecli.probes.spec import SweepSpec


def sweep(
    spec: Annotated[
        Path | None, typer.Option("--spec", help="A TOML file that says all this; options given here win.")
    ] = None,
    params: Annotated[
        list[str] | None, typer.Option("--params", metavar="N,...", help="Model sizes, e.g. 50k,100k,200k.")
    ] = None,
    tokens_per_param: Annotated[
        list[str] | None,
        typer.Option(
            "--tokens-per-param", metavar="R,...", help="Lengths of every size.", show_default="8,20,50"
        ),
    ] = None,
    batch_tokens: probe.BatchList = None,
    learning_rate: probe.RateList = None,
    unique_tokens: Annotated[
        list[str] | None,
        typer.Option(
            "--unique-tokens",
            metavar="U,...",
            help="Repeat only so much of the text.",
            show_default="all of it",
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=1, help="Runs of every setting.", show_default="1")
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            "--budget",
            parser=options.quantity(parse_count),
            metavar="FLOP",
            help="The largest ladder of so many FLOPs.",
        ),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0.1, help="The largest ladder of so many minutes.")
    ] = None,
    schedule: probe.Schedule = None,
    optimizer: probe.OptimizerName = None,
    parametrization: probe.Parametrization = None,
    sequence_length: probe.SequenceLength = None,
    model: probe.Model = None,
    data: probe.Data = None,
    tokenizer: probe.Tokenizer = None,
    settings: probe.Settings = None,
    device: options.Device = "auto",
    engine: where.Name = None,
    address: where.Address = None,
    slurm_partition: where.SlurmPartition = None,
    slurm: where.SlurmOptions = None,
    devices_per_probe: where.DevicesPerProbe = None,
    sharding: where.Sharding = None,
    probes_per_device: where.ProbesPerDevice = None,
    slots: probe.Slots = None,
    timeout: probe.Timeout = None,
    store: options.Store = Path("runs.db"),
    micro_batch: probe.MicroBatch = None,
    checkpoint: probe.Checkpoint = None,
    stop_above: Annotated[
        float | None,
        typer.Option(
            "--stop-above",
            min=1e-3,
            metavar="NATS",
            help="Give up runs so far above the best of their size and length, at 25, 50 and 75 % of the way.",
        ),
    ] = None,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> None:
    """Train a ladder or grid of proxy models; run again, it goes on where it was stopped.

    Examples:

      scalecli probe sweep --params 50k,100k,200k --tokens-per-param 5,20,80 --store runs.db

      scalecli probe sweep --minutes 5 --dry-run

      scalecli probe sweep --spec sweep.toml --engine slurm --slurm-partition gpu --slurm time=60 --store runs.db
    """
    from scalecli.probes.spec import sweep_spec

    if budget is not None and minutes is not None:
        raise typer.BadParameter("give --budget or --minutes, not both", param_hint="--minutes")
    wished = probe.spec_with(
        sweep_spec(spec) if spec else None, data=data, settings=settings, model=model, tokenizer=tokenizer,
        schedule=schedule, optimizer=optimizer, parametrization=parametrization, sequence_length=sequence_length,
    )  # fmt: skip
    grid: dict[str, Any] = {
        "params": options.counts(params, "--params"),
        "tokens_per_param": options.counts(tokens_per_param, "--tokens-per-param"),
        "batch_tokens": options.counts(batch_tokens, "--batch-tokens"),
        "learning_rate": options.counts(learning_rate, "--learning-rate"),
        "unique_tokens": options.counts(unique_tokens, "--unique-tokens"),
    }
    wished = replace(wished, **{name: values for name, values in grid.items() if values})
    wished = wished if seeds is None else replace(wished, seeds=seeds)
    corpus = probe.read_corpus(wished)
    places = where.settings_with(
        wished.engine, name=engine, address=address, partition=slurm_partition, slurm=slurm,
        devices_per_probe=devices_per_probe, sharding=sharding, probes_per_device=probes_per_device, device=device,
        slots=slots,
    )  # fmt: skip
    capacity = places.capacity()
    wished = replace(wished, recipe=wished.recipe.on(capacity.device_type))
    if minutes is not None:
        configs = wished.configs(corpus, budget=60 * minutes, cost=_seconds(wished, corpus, capacity))
    else:
        configs = wished.configs(corpus, budget=budget, cost=_flops)
    conduct = probe.conduct(store, micro_batch, checkpoint, stop_above)
    configs = [replace(config, conduct=conduct) for config in configs]
    train_or_estimate(
        configs, corpus, store, places.engine(configs), timeout=timeout, dry_run=dry_run, as_json=as_json
    )


def _flops(configs: Sequence[ProbeConfig]) -> float:
    return sum(config.flops_exact for config in configs)


def _seconds(spec: SweepSpec, corpus: Corpus, capacity: Capacity) -> Cost:
    """What runs take on places like this machine [s].

    Raises:
        ProbeError: this machine has no such device, so that no step can be timed.
    """
    from scalecli.errors import ProbeError

    if not capacity.like_this_machine():
        raise ProbeError(
            f"a step on {capacity.device_type} cannot be timed here, so nobody knows what fits into the minutes",
            hint="--budget FLOP, or --params",
        )
    pace = machine_pace(spec, corpus, capacity.device_type)
    return lambda configs: pace.sweep_seconds(configs, capacity)


def train_or_estimate(
    configs: list[ProbeConfig],
    corpus: Corpus,
    path: Path,
    engine: Engine,
    *,
    timeout: float | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train the runs, or say what that would take; either way what speaks against them is warned of."""
    from scalecli.probes.timescale import timescale_note

    repetition = corpus.repetition(max(config.tokens for config in configs))
    for note in (repetition, timescale_note(configs)):
        if note is not None:
            warn(f"{note.code}: {note.message}")
    if dry_run:
        show_estimate(configs, path, engine, finished=finished_runs(path), as_json=as_json)
        return
    report = train_runs(configs, path, engine, timeout=timeout)
    document = {
        "schema": "scalecli/sweep/1",
        "planned": report.planned,
        "finished": report.finished,
        "skipped": report.skipped,
        "failed": [],
        "store": str(path),
        "seconds": report.seconds,
    }
    show(document, _draw, as_json=as_json)


def _draw(document: Any) -> Iterator[RenderableType]:
    yield (
        f"{document['finished']} runs trained, {document['skipped']} were there already, "
        f"in {format_seconds(document['seconds'])} → {document['store']}"
    )
