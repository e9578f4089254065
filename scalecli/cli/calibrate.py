"""`scalecli memory --calibrate`: what an accelerator needs beyond the tensors that the closed forms count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from scalecli.cli.render import table, warn
from scalecli.errors import ProbeError
from scalecli.units import format_bytes

if TYPE_CHECKING:
    from rich.console import RenderableType

    from scalecli.accounting.memory import Recipe
    from scalecli.accounting.memory.overhead import Comparison


def calibrate_overhead(
    accelerator: str | None, accelerators: Path | None, device: str, recipe: Recipe
) -> dict[str, Any]:
    """Train three sizes on the device, each against its prediction, and keep all under the accelerator's name."""
    from scalecli.accounting.memory.overhead import fit_overhead
    from scalecli.data.catalogue import accelerator as named
    from scalecli.plan.calibration import keep
    from scalecli.probes.memory.calibrate import compare_locally

    if accelerator is None:
        raise typer.BadParameter("--calibrate needs to know what the device is", param_hint="--accelerator")
    name = named(accelerator, accelerators).name
    found: list[Comparison] = []
    for comparison in compare_locally(device, recipe):
        if comparison.device == "cpu" and accelerators is None:
            raise ProbeError(
                f"steps on the CPU say nothing about {name}",
                hint="--device cuda, or describe this machine with --accelerators FILE.toml",
            )
        found.append(comparison)
        predicted, used = format_bytes(comparison.predicted_bytes), format_bytes(comparison.used_bytes)
        warn(f"predicted {predicted}, used {used}")
    return {
        "schema": "scalecli/memory-calibration/1",
        "accelerator": name,
        "overhead": asdict(fit_overhead(found)),
        "comparisons": [
            {**asdict(comparison), "allocated_error": comparison.allocated_error} for comparison in found
        ],
        "record": str(keep(found, name)),
    }


def draw_calibration(document: Any) -> Iterator[RenderableType]:
    """The steps against their predictions, and what follows."""
    rows = (
        (
            format_bytes(each["predicted_bytes"]),
            format_bytes(each["allocated_bytes"]),
            f"{100 * each['allocated_error']:+.2f} %",
            format_bytes(each["used_bytes"]),
        )
        for each in document["comparisons"]
    )
    heads = ["predicted", "allocated", "closed forms are off by", "used"]
    yield table(f"Training steps on {document['comparisons'][0]['device']}", heads, rows)
    overhead = document["overhead"]
    yield (
        f"overhead: {format_bytes(overhead['fixed_bytes'])} and {100 * overhead['fraction']:.2f} % of the peak, "
        f"to within {format_bytes(overhead['error_bytes'])}; plans for {document['accelerator']} use it from now on"
    )
    yield f"kept in {document['record']}"
