"""The command tree, in the order in which measurements flow."""

from __future__ import annotations

from typing import Annotated

import typer

from scalecli.cli import (
    compare,
    critical_batch,
    design,
    doctor,
    export,
    fit,
    laws,
    memory,
    multipliers,
    optimizers,
    packing,
    plan,
    predict,
    probe,
    quickstart,
    runs,
    schema,
    sensitivity,
    validate,
)
from scalecli.cli.group import PANELS, ScalecliGroup

app = typer.Typer(
    name="scalecli",
    cls=ScalecliGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from scalecli import __version__

        typer.echo(f"scalecli {__version__}")
        raise typer.Exit


@app.callback()
def scalecli(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="The version, and nothing else."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere.")] = False,
) -> None:
    """Plan a training run by measurement: small proxy trainings, scaling-law fits, and a recommended batch size,
    learning rate and memory plan, each with interval, rule and source.
    """


app.command(rich_help_panel=PANELS[0])(quickstart.quickstart)
app.add_typer(probe.app, name="probe", rich_help_panel=PANELS[1])
app.add_typer(runs.app, name="runs", rich_help_panel=PANELS[1])
app.add_typer(laws.app, name="laws", rich_help_panel=PANELS[2])
app.command(rich_help_panel=PANELS[2])(fit.fit)
app.command(rich_help_panel=PANELS[2])(predict.predict)
app.command(rich_help_panel=PANELS[2])(validate.validate)
app.command(rich_help_panel=PANELS[2])(compare.compare)
app.command(rich_help_panel=PANELS[2])(sensitivity.sensitivity)
app.command("critical-batch", rich_help_panel=PANELS[2])(critical_batch.critical_batch)
app.command(rich_help_panel=PANELS[2])(design.design)
app.command(rich_help_panel=PANELS[3])(plan.plan)
app.command(rich_help_panel=PANELS[3])(memory.memory)
app.command(rich_help_panel=PANELS[3])(optimizers.optimizers)
app.command(rich_help_panel=PANELS[3])(multipliers.multipliers)
app.command(rich_help_panel=PANELS[3])(packing.packing)
app.command(rich_help_panel=PANELS[3])(export.export)
app.command(rich_help_panel=PANELS[4])(schema.schema)
app.command(rich_help_panel=PANELS[4])(doctor.doctor)


def main() -> None:
    """The console script."""
    app()
