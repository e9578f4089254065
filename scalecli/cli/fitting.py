"""What the commands that fit have in common: their options, and the runs and law that these name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalecli.cli.options import numbers, one_of, quantity
from scalecli.cli.tables import read_table
from scalecli.units import parse_count

if TYPE_CHECKING:
    from scalecli.data.tables import RunTable
    from scalecli.fitters.fit import FitOptions

RANKED = ("auto", "all")
"""Names that `--law` takes besides those of laws."""

Group = Annotated[
    str | None,
    typer.Option(
        "--group",
        help="Runs that share this column are resampled together.",
        show_default="group, else the model size; none: each alone",
    ),
]
Formula = Annotated[
    str | None, typer.Option("--formula", help="A law of your own: 'E + A*params**-a; E in [0, 5]'.")
]
Draws = Annotated[int, typer.Option("--draws", min=0, help="Bootstrap draws.")]
RowLoss = Annotated[
    str,
    typer.Option(
        "--loss", metavar="huber|least-squares|absolute|envelope", help="What is minimised, on log residuals."
    ),
]
Delta = Annotated[float, typer.Option("--delta", min=0.0, help="Where the Huber loss turns linear.")]
Pin = Annotated[list[str] | None, typer.Option("--pin", help="Parameters held at a value: E=1.69[,...].")]
Tuned = Annotated[
    bool,
    typer.Option("--tuned", help="Keep only the best run of every size and length, as loss laws want it."),
]
MinParams = Annotated[
    float | None,
    typer.Option(
        "--min-params", parser=quantity(parse_count), metavar="N", help="Leave out runs of smaller models."
    ),
]
MinFlops = Annotated[
    float | None,
    typer.Option(
        "--min-flops", parser=quantity(parse_count), metavar="C", help="Leave out runs of less compute."
    ),
]


Final = Annotated[
    str | None,
    typer.Option(
        "--final",
        metavar="COLUMN",
        help="Keep only the longest row of every run that COLUMN names: the last of its checkpoints.",
    ),
]


def settings(
    *, draws: int, interval: float, loss: str, delta: float, seed: int, pin: list[str] | None
) -> FitOptions:
    """The options of a fit from those of the command line."""
    from scalecli.fitters.fit import FitOptions
    from scalecli.fitters.objective import LossName

    one_of(loss, tuple(LossName), "--loss")
    pins = numbers(pin, "--pin")
    return FitOptions(draws=draws, interval=interval, loss=loss, delta=delta, seed=seed, pins=pins)


def kept_runs(table: RunTable, *, final: str | None, tuned: bool, small: bool) -> RunTable:
    """The runs that a fit takes: of checkpoints the last, of a sweep the best, and none too small unless asked for."""
    from scalecli.fitters.checks.frontier import best_of_settings
    from scalecli.fitters.checks.proxies import without_small_proxies
    from scalecli.fitters.checks.repeats import last_of_trainings

    table = table if final is None else last_of_trainings(table, final)
    table = best_of_settings(table) if tuned else table
    return table if small else without_small_proxies(table)


def large_enough(where: list[str] | None, min_params: float | None, min_flops: float | None) -> list[str]:
    """The conditions of `--where`, and those of `--min-params` and `--min-flops`."""
    least = {"params": min_params, "flops": min_flops}
    return [*(where or []), *(f"{name} >= {low!r}" for name, low in least.items() if low is not None)]


def read_for_law(
    runs: str,
    renames: list[str] | None,
    units: list[str] | None,
    where: list[str] | None,
    *,
    law: str,
    formula: str | None,
) -> tuple[RunTable, type[Any] | None]:
    """The run table with what the law takes, and the law; None for `auto` and `all`, which look for one."""
    from scalecli.fitters.runs import columns_of

    if formula is not None:
        from scalecli.data.schema import COLUMNS
        from scalecli.fitters.formula import formula_law

        table = read_table(runs, renames, units, where)
        found = formula_law(formula, columns={*COLUMNS, *map(str, table.frame.columns)})
        return table.with_derived(columns_of(found)), found
    if law in RANKED:
        return read_table(runs, renames, units, where, require=["loss"]), None
    from scalecli.fitters.laws import law_named

    found = law_named(law)
    return read_table(runs, renames, units, where, require=columns_of(found)), found
