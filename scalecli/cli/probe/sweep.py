"""`scalecli probe`: small trainings and measurements on this machine's devices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from scalecli.cli import options
from scalecli.cli.progress import sweep_progress
from scalecli.cli.render import show, table
from scalecli.units import format_bytes, format_count, format_seconds, parse_count, parse_duration

if TYPE_CHECKING:
    from rich.console import RenderableType

    from scalecli.probes.config import ProbeConfig
    from scalecli.probes.spec import SweepSpec
    from scalecli.probes.timing import StepTime

TIMED_PARAMS = (16e3, 128e3)
"""Sizes whose steps are timed when a ladder is to fit into minutes."""

app = typer.Typer(no_args_is_help=True, help="Small trainings and measurements on this machine's devices.")

Schedule = Annotated[
    str | None, typer.Option("--schedule", metavar="cooldown|linear|cosine|wsd|constant", help="[cooldown]")
]
Parametrization = Annotated[
    str | None, typer.Option("--parametrization", metavar="standard|mup", help="[standard]")
]
OptimizerName = Annotated[
    str | None, typer.Option("--optimizer", metavar="adamw|sgd|muon|adafactor", help="[adamw]")
]
ProbeSequence = Annotated[
    int | None, typer.Option("--sequence-length", min=2, help="Tokens in one sequence. [128]")
]
ProbeData = Annotated[
    str | None,
    typer.Option("--data", help="Training text: builtin:python, a file or a folder. [builtin:python]"),
]
Slots = Annotated[
    int | None, typer.Option("--slots", min=1, help="Probes at a time. [one a core, or one a GPU]")
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        parser=options.quantity(parse_duration),
        metavar="DURATION",
        help="Longest time of one probe.",
    ),
]


@app.command()
def train(
    params: Annotated[
        float, typer.Option("--params", parser=options.quantity(parse_count), metavar="N", help="Model size.")
    ],
    tokens: Annotated[
        float,
        typer.Option("--tokens", parser=options.quantity(parse_count), metavar="D", help="Training tokens."),
    ],
    learning_rate: Annotated[float, typer.Option("--learning-rate", min=1e-12, help="Peak learning rate.")],
    batch_tokens: Annotated[
        float,
        typer.Option(
            "--batch-tokens", parser=options.quantity(parse_count), metavar="B", help="Tokens a step."
        ),
    ],
    schedule: Schedule = None,
    optimizer: OptimizerName = None,
    parametrization: Parametrization = None,
    sequence_length: ProbeSequence = None,
    data: ProbeData = None,
    device: options.Device = "auto",
    store: options.Store = Path("runs.db"),
    seed: options.Seed = 0,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> None:
    """Train one proxy model and store the run.

    Example: scalecli probe train --params 100k --tokens 2M --batch-tokens 1024 --learning-rate 4e-3
    """
    from scalecli.data.corpus import load_corpus
    from scalecli.probes.family import proxy_shape
    from scalecli.probes.spec import SweepSpec

    spec = _spec(SweepSpec(), data, schedule, optimizer, parametrization, sequence_length)
    corpus = load_corpus(spec.data)
    shape = proxy_shape(params, vocab=corpus.vocab)
    config = spec.recipe.config(
        shape,
        corpus,
        spec.data,
        tokens=tokens,
        batch_tokens=batch_tokens,
        learning_rate=learning_rate,
        seed=seed,
    )
    _go([config], store, device, slots=1, timeout=None, dry_run=dry_run, as_json=as_json)


@app.command()
def sweep(
    spec: Annotated[
        Path | None, typer.Option("--spec", help="A TOML file that says all this; options given here win.")
    ] = None,
    params: Annotated[
        list[str] | None, typer.Option("--params", metavar="N,...", help="Model sizes, e.g. 50k,100k,200k.")
    ] = None,
    tokens_per_param: Annotated[
        list[str] | None,
        typer.Option("--tokens-per-param", metavar="R,...", help="Lengths of every size. [8,20,50]"),
    ] = None,
    batch_tokens: Annotated[
        list[str] | None, typer.Option("--batch-tokens", metavar="B,...", help="[three, by rule]")
    ] = None,
    learning_rate: Annotated[
        list[str] | None, typer.Option("--learning-rate", metavar="LR,...", help="[three, by rule]")
    ] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, help="Runs of every setting. [1]")] = None,
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
    schedule: Schedule = None,
    optimizer: OptimizerName = None,
    parametrization: Parametrization = None,
    sequence_length: ProbeSequence = None,
    data: ProbeData = None,
    device: options.Device = "auto",
    slots: Slots = None,
    timeout: Timeout = None,
    store: options.Store = Path("runs.db"),
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
) -> None:
    """Train a ladder or grid of proxy models; run again, it goes on where it was stopped.

    Examples:

      scalecli probe sweep --params 50k,100k,200k --tokens-per-param 5,20,80 --store runs.db

      scalecli probe sweep --minutes 5 --dry-run
    """
    from scalecli.data.corpus import load_corpus
    from scalecli.probes.spec import SweepSpec, sweep_spec

    if budget is not None and minutes is not None:
        raise typer.BadParameter("give --budget or --minutes, not both", param_hint="--minutes")
    wished = _spec(
        sweep_spec(spec) if spec else SweepSpec(), data, schedule, optimizer, parametrization, sequence_length
    )
    grid: dict[str, Any] = {
        "params": options.counts(params, "--params"),
        "tokens_per_param": options.counts(tokens_per_param, "--tokens-per-param"),
        "batch_tokens": options.counts(batch_tokens, "--batch-tokens"),
        "learning_rate": options.counts(learning_rate, "--learning-rate"),
    }
    wished = replace(wished, **{name: values for name, values in grid.items() if values})
    wished = wished if seeds is None else replace(wished, seeds=seeds)
    corpus = load_corpus(wished.data)
    if minutes is not None:
        configs = wished.configs(corpus, budget=60 * minutes, cost=_seconds(wished, corpus, device, slots))
    else:
        configs = wished.configs(corpus, budget=budget, cost=_flops)
    _go(configs, store, device, slots=slots, timeout=timeout, dry_run=dry_run, as_json=as_json)


def _spec(
    spec: SweepSpec,
    data: str | None,
    schedule: str | None,
    optimizer: str | None,
    parametrization: str | None,
    sequence_length: int | None,
) -> SweepSpec:
    """The specification with the options that were given."""
    given: dict[str, Any] = {
        "schedule": schedule,
        "parametrization": parametrization,
        "sequence_length": sequence_length,
    }
    recipe = replace(spec.recipe, **{name: value for name, value in given.items() if value is not None})
    if optimizer is not None:
        recipe = replace(recipe, optimizer=replace(recipe.optimizer, name=cast(Any, optimizer)))
    return replace(spec, recipe=recipe, data=data or spec.data)


def _flops(configs: Sequence[ProbeConfig]) -> float:
    return sum(config.flops_exact for config in configs)


def _seconds(spec: SweepSpec, corpus: Any, device: str, slots: int | None) -> Any:
    """What runs take on this machine [s], from a few measured steps."""
    from scalecli.probes.sweep import local_slots

    places = local_slots(device, slots, 1)
    ends = replace(spec, params=TIMED_PARAMS).configs(corpus)
    pace = _pace(ends, device)
    return lambda configs: pace.sweep_seconds(configs, device_type=places[0].device, slots=len(places))


def _pace(configs: list[ProbeConfig], device: str) -> StepTime:
    from scalecli.probes.timing import measure_step_time

    return measure_step_time(configs, device=device)


def _go(
    configs: list[ProbeConfig],
    path: Path,
    device: str,
    *,
    slots: int | None,
    timeout: float | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train the runs, or say what that would take."""
    from scalecli.data.store import Store
    from scalecli.errors import SweepIncomplete
    from scalecli.probes.sweep import run_sweep

    if dry_run:
        show(_estimate(configs, path, device, slots), _draw_estimate, as_json=as_json)
        return
    with Store.open(path) as store, sweep_progress() as on_progress:
        report = run_sweep(
            configs, store, device=device, slots=slots, timeout=timeout, on_progress=on_progress
        )
    document = {
        "schema": "scalecli/sweep/1",
        "planned": report.planned,
        "finished": report.finished,
        "skipped": report.skipped,
        "failed": [{"run_id": failure.run_id, "reason": failure.reason} for failure in report.failed],
        "store": str(path),
        "seconds": report.seconds,
    }
    if report.failed:
        first = report.failed[0]
        raise SweepIncomplete(
            f"{len(report.failed)} of {report.planned} runs failed, the others are in {path}; "
            f"{first.run_id}: {first.reason}",
            hint=f"scalecli runs list {path}; the same command again tries only the failed ones",
        )
    show(document, _draw_report, as_json=as_json)


def _estimate(configs: list[ProbeConfig], path: Path, device: str, slots: int | None) -> dict[str, Any]:
    from scalecli.data.store import Store
    from scalecli.probes.estimate import estimate_sweep

    finished: set[str] = set()
    if path.exists():
        with Store.open(path, write=False) as store:
            finished = store.finished()
    found = estimate_sweep(configs, _pace(configs, device), finished=finished, device=device, slots=slots)
    return {
        "schema": "scalecli/sweep-estimate/1",
        "runs": found.runs,
        "skipped": found.skipped,
        "flops": found.flops,
        "seconds": found.seconds,
        "bytes": found.bytes,
        "store": str(path),
    }


def _draw_estimate(document: Any) -> Iterator[RenderableType]:
    rows = [
        ("runs to train", document["runs"]),
        ("already finished", document["skipped"]),
        ("training FLOPs", format_count(document["flops"])),
        ("time", f"about {format_seconds(document['seconds'])}"),
        ("memory", format_bytes(document["bytes"])),
    ]
    yield table(f"Dry run; runs would go to {document['store']}", ["", ""], rows)


def _draw_report(document: Any) -> Iterator[RenderableType]:
    yield (
        f"{document['finished']} runs trained, {document['skipped']} were there already, "
        f"in {format_seconds(document['seconds'])} → {document['store']}"
    )
