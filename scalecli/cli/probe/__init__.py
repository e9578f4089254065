"""`scalecli probe`: small trainings and measurements on this machine's devices."""

from __future__ import annotations

import typer

from scalecli.cli.probe import (
    coordinates,
    critical_batch,
    curvature,
    device,
    lr,
    memory,
    noise,
    stability,
    sweep,
    telescope,
    throughput,
    train,
)

app = typer.Typer(no_args_is_help=True, help="Small trainings and measurements on this machine's devices.")
app.command()(train.train)
app.command()(sweep.sweep)
app.command()(noise.noise)
app.command("critical-batch")(critical_batch.critical_batch)
app.command()(lr.lr)
app.command()(curvature.curvature)
app.command()(stability.stability)
app.command()(telescope.telescope)
app.command()(throughput.throughput)
app.command()(memory.memory)
app.command()(coordinates.coordinates)
app.command()(device.device)
