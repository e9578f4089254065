"""What a probe would take: runs, FLOPs, time and memory, from a few measured steps and arithmetic."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalecli.cli.render import show, table
from scalecli.units import format_bytes, format_count, format_seconds

if TYPE_CHECKING:
    from rich.console import RenderableType

    from scalecli.cli.probe.measuring import Measurement
    from scalecli.data.corpus import Corpus
    from scalecli.probes.config import ProbeConfig
    from scalecli.probes.engines.engine import Engine
    from scalecli.probes.spec import SweepSpec
    from scalecli.probes.timing import StepTime

TIMED_SIZES = (1, 8)
"""Sizes whose steps are timed where the runs themselves are not yet known, as multiples of the smallest model."""


def show_estimate(
    configs: list[ProbeConfig],
    path: Path,
    engine: Engine,
    *,
    finished: Collection[str],
    as_json: bool,
) -> None:
    """Say what training these runs would take, without those that are finished."""
    from scalecli.probes.estimate import estimate_sweep
    from scalecli.probes.timing import measure_step_time

    capacity = engine.capacity()
    pace = measure_step_time(configs, device=capacity.device_type) if capacity.like_this_machine() else None
    found = estimate_sweep(configs, pace, capacity, finished=finished)
    document = {
        "schema": "scalecli/sweep-estimate/1",
        "runs": found.runs,
        "skipped": found.skipped,
        "flops": found.flops,
        "saved_flops": found.saved_flops,
        "seconds": found.seconds,
        "bytes": found.bytes,
        "device": capacity.device_type,
        "slots": capacity.slots,
        "store": str(path),
    }
    show(document, draw_estimate, as_json=as_json)


def show_measurement(
    measurement: Measurement, configs: list[ProbeConfig], device: str, *, as_json: bool
) -> None:
    """Say what a measurement along these trainings would take; nothing where the store has it."""
    from scalecli.probes.engines.local import LocalEngine

    done = {config.run_id for config in configs} if measurement.file.exists() else set[str]()
    engine = LocalEngine(device=device, slots=1)
    show_estimate(configs, measurement.store, engine, finished=done, as_json=as_json)


def machine_pace(spec: SweepSpec, corpus: Corpus, device: str) -> StepTime:
    """The time of training steps on this machine, from a few of a small and a larger model."""
    from scalecli.probes.family import SMALLEST_WIDTH
    from scalecli.probes.timing import measure_step_time

    smallest = spec.recipe.family(corpus).member(SMALLEST_WIDTH).params
    sizes = tuple(float(smallest * multiple) for multiple in TIMED_SIZES)
    return measure_step_time(replace(spec, params=sizes, runs=()).configs(corpus), device=device)


def finished_runs(path: Path) -> set[str]:
    """Ids of the runs that the store at `path` has finished; none if there is no store yet."""
    from scalecli.data.store import Store

    if not path.exists():
        return set()
    with Store.open(path, write=False) as store:
        return store.finished()


def draw_estimate(document: Any) -> Iterator[RenderableType]:
    """The table of a dry run."""
    seconds = document["seconds"]
    rows = [
        ("runs to train", document["runs"]),
        ("already finished", document["skipped"]),
        ("training FLOPs", format_count(document["flops"])),
        ("saved by shared trunks", format_count(document["saved_flops"])),
        ("time", "unknown without such a device" if seconds is None else f"about {format_seconds(seconds)}"),
        ("memory", format_bytes(document["bytes"])),
        ("at a time", f"{document['slots']} on {document['device']}"),
    ]
    yield table(f"Dry run; runs would go to {document['store']}", ["", ""], rows)
