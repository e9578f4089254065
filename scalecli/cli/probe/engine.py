"""Options that say where probes run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli import options

if TYPE_CHECKING:
    from scalecli.probes.engines.settings import EngineSettings

Name = Annotated[
    str | None,
    typer.Option("--engine", metavar="local|ray|slurm", help="Where probes run.", show_default="local"),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address", metavar="HOST:PORT", help="Ray cluster.", show_default="the one of this machine"
    ),
]
SlurmPartition = Annotated[
    str | None, typer.Option("--slurm-partition", metavar="NAME", show_default="Slurm's default")
]
SlurmOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--slurm", metavar="KEY=VALUE", help="Options of sbatch: time=120 (minutes), account=NAME, ..."
    ),
]
DevicesPerProbe = Annotated[
    int | None,
    typer.Option(
        "--devices-per-probe", min=1, help="Spread a probe over GPUs by torchrun.", show_default="1"
    ),
]
Sharding = Annotated[
    str | None,
    typer.Option(
        "--sharding", metavar="ddp|zero3", help="How a probe lies on its devices.", show_default="ddp"
    ),
]
ProbesPerDevice = Annotated[
    str | None,
    typer.Option("--probes-per-device", metavar="K|auto", help="Probes that share a GPU.", show_default="1"),
]


def settings_with(
    settings: EngineSettings,
    *,
    name: str | None,
    address: str | None,
    partition: str | None,
    slurm: list[str] | None,
    devices_per_probe: int | None,
    sharding: str | None,
    probes_per_device: str | None,
    device: str,
    slots: int | None,
) -> EngineSettings:
    """The settings of the file with the options that were given."""
    given: dict[str, Any] = {
        "name": name,
        "address": address,
        "devices_per_probe": devices_per_probe,
        "sharding": sharding,
        "probes_per_device": probes_per_device,
        "slots": slots,
        "device": None if device == "auto" else device,
    }
    sbatch = {**settings.slurm, **options.pairs(slurm, "--slurm")}
    if partition is not None:
        sbatch["partition"] = partition
    return replace(
        settings,
        slurm=sbatch,
        **{key: value for key, value in given.items() if value is not None},
    )
