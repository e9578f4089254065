"""`scalecli probe throughput`: tokens a second over micro-batch sizes, and the largest that fits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options
from scalecli.cli.probe import options as probe
from scalecli.cli.probe.dry_run import show_estimate
from scalecli.cli.probe.measuring import kept
from scalecli.cli.render import show, table, warn
from scalecli.units import format_bytes, format_count, parse_bytes, parse_count

if TYPE_CHECKING:
    from rich.console import RenderableType

    from scalecli.probes.config import ProbeConfig
    from scalecli.probes.throughput.estimate import Limits, Trial
    from scalecli.probes.throughput.run import Place

TRIAL_STEPS = 6


def throughput(
    params: probe.Params,
    micro_batch: Annotated[
        str,
        typer.Option("--micro-batch", metavar="N,...", help="Sequences a step holds at once, to be tried."),
    ] = "1,2,4,8,16,32",
    search: Annotated[
        bool, typer.Option("--search", help="Find the largest micro-batch that fits instead.")
    ] = False,
    most: Annotated[int, typer.Option("--most", min=1, help="Where --search ends.")] = 1024,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            parser=options.quantity(parse_bytes),
            metavar="BYTES",
            help="Memory that a step may take.",
            show_default="what is free, without a reserve",
        ),
    ] = None,
    critical_tokens: Annotated[
        float | None,
        typer.Option(
            "--critical-tokens",
            parser=options.quantity(parse_count),
            metavar="B",
            help="A critical batch size: beyond it tokens are wasted.",
        ),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads of a trial.")] = 1,
    optimizer: probe.OptimizerName = None,
    sequence_length: probe.SequenceLength = None,
    model: probe.Model = None,
    settings: probe.Settings = None,
    device: options.Device = "auto",
    store: options.Store = Path("runs.db"),
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> None:
    """Measure tokens a second, model FLOP utilisation and memory over micro-batch sizes.

    Every size is tried in a process of its own, after its memory has been predicted; both are stored.

    Examples:

      scalecli probe throughput --params 1M --micro-batch 1,2,4,8,16

      scalecli probe throughput --params 100M --search --device cuda
    """
    from scalecli.probes.engines.local import LocalEngine
    from scalecli.probes.throughput import run as trying
    from scalecli.probes.throughput.estimate import limits

    spec = probe.spec_with(
        settings=settings, model=model, optimizer=optimizer, sequence_length=sequence_length, device=device
    )
    # One sequence a step, or one example of a task whose examples are smaller.
    config = probe.proxy_run(spec, spec.corpus(), params=params, tokens=1, batch_tokens=1)
    config = replace(config, steps=TRIAL_STEPS)
    place = trying.Place.of(device, threads=threads)
    place = place if limit is None else replace(place, limit_bytes=limit)
    sizes = sorted({round(size) for size in options.counts([micro_batch], "--micro-batch")})
    if dry_run:
        tried = [trying.predicted_largest(config, place, most=most)] if search else sizes
        runs = [replace(config, batch_sequences=size) for size in tried]
        show_estimate(runs, store, LocalEngine(device=device, slots=1), finished=(), as_json=as_json)
        return
    trials = trying.search(config, place, most=most) if search else trying.run(config, sizes, place)
    found = list(_told(config, trials, place, store))
    document = _document(config, found, limits(found, critical_tokens=critical_tokens), place)
    show({**document, "store": str(store)}, _draw, as_json=as_json)


def _told(config: ProbeConfig, trials: Iterable[Trial], place: Place, store: Path) -> Iterator[Trial]:
    """The trials, each stored and said on standard error as it comes."""
    from scalecli.probes.throughput.estimate import Trial

    rows = ({"run_id": config.run_id, "device": place.device, **asdict(trial)} for trial in trials)
    for row in kept("throughput", store, rows):
        trial = Trial(**{name: row[name] for name in Trial.__dataclass_fields__ if name in row})
        speed = format_count(trial.tokens_per_second or 0.0)
        said = f"{speed} tokens/s" if trial.fits else "out of memory"
        warn(f"micro-batch of {trial.micro_batch_sequences} sequences: {said}")
        yield trial


def _document(config: ProbeConfig, trials: list[Trial], limits: Limits, place: Place) -> dict[str, Any]:
    return {
        "schema": "scalecli/probe-throughput/1",
        "device": place.device,
        "params": config.shape.params,
        "sequence_length": config.sequence_length,
        "limit_bytes": place.limit_bytes,
        "limits": asdict(limits),
        "trials": [
            {**asdict(trial), "prediction_error": _error(trial)}
            for trial in sorted(trials, key=lambda trial: trial.micro_batch_sequences)
        ],
        "warnings": [{"code": code, "message": message} for code, message in _warnings(trials, place)],
    }


def _warnings(trials: list[Trial], place: Place) -> Iterator[tuple[str, str]]:
    waiting = [trial.micro_batch_sequences for trial in trials if trial.bound == "launch"]
    if waiting:
        yield (
            "W-LAUNCH-BOUND",
            f"with up to {max(waiting)} sequences launching kernels takes longer than computing on {place.device}: "
            "these speeds are the host's, not the device's, and say nothing of larger models",
        )


def _error(trial: Trial) -> float | None:
    """Predicted over measured bytes, less 1."""
    return trial.predicted_bytes / trial.peak_bytes - 1 if trial.peak_bytes else None


def _draw(document: Any) -> Iterator[RenderableType]:
    title = (
        f"{format_count(document['params'])} parameters, {document['sequence_length']} tokens a sequence, on "
    )
    heads = ["micro-batch", "tokens/s", "MFU", "waits for", "predicted", "measured"]
    yield table(title + document["device"], heads, (_line(trial) for trial in document["trials"]))
    found = document["limits"]
    fits = "the largest tried (more may)" if found["fits"] is None else f"{found['fits']} sequences"
    wasted = found["wasted_above"]
    yield f"fits: {fits}; throughput is flat from {found['flat_from']}; use {found['best']} sequences"
    if wasted is not None:
        yield f"above {wasted} sequences a step goes beyond the critical batch: tokens are wasted"


def _line(trial: dict[str, Any]) -> tuple[object, ...]:
    mfu = None if trial["mfu"] is None else f"{100 * trial['mfu']:.1f} %"
    peak = "–" if trial["peak_bytes"] is None else format_bytes(trial["peak_bytes"])
    return (
        trial["micro_batch_sequences"],
        format_count(trial["tokens_per_second"]) if trial["fits"] else "does not fit",
        mfu,
        trial["bound"],
        format_bytes(trial["predicted_bytes"]),
        peak,
    )
