"""Which runs a law is fitted to and which, larger ones it is scored on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from scalecli.data.tables import Dropped, RunTable
from scalecli.errors import DataError, TooFewRuns
from scalecli.fitters.domain import GROWING, with_compute
from scalecli.fitters.identify import SAME_LEVEL
from scalecli.fitters.law import Array
from scalecli.fitters.problem import Mask

HELD_OUT = 0.2
"""Share of the runs, the largest, that is held out unless said otherwise."""


@dataclass(frozen=True)
class Split:
    """Runs to fit to and runs to score on; `rule` says how they were told apart."""

    train: RunTable
    heldout: RunTable
    rule: str


def hold_out_share(table: RunTable, share: float = HELD_OUT) -> Split:
    """Hold out the largest `share` of the runs by compute, or more, so that runs of one scale stay together.

    Raises `DataError` when no column tells the scale of the runs or all have the same.
    """
    axis, scale = scale_of_runs(table)
    first = np.sort(scale)[int(np.floor((1 - share) * len(scale)))]
    if first <= scale.min() * (1 + SAME_LEVEL):  # the smallest scale alone has most of the runs
        first = scale.max()
    heldout = scale > first / (1 + SAME_LEVEL)
    return _parted(table, ~heldout, f"{axis} below {scale[heldout].min():.4g}")


def hold_out_above(table: RunTable, column: str, limit: float) -> Split:
    """Fit to the runs with `column` below `limit`, score on the others."""
    values = _axis(table, column)
    return _parted(table, values < limit, f"{column} below {limit:.4g}")


def hold_out_levels(table: RunTable, column: str, count: int) -> Split:
    """Hold out the runs at the `count` largest values of `column`; values within 1 % are one."""
    values = _axis(table, column)
    ordered = np.unique(values)
    jumps = np.flatnonzero(np.diff(np.log(ordered)) > SAME_LEVEL) + 1
    if count < 1 or count > len(jumps):
        raise DataError(
            f"{column} takes {len(jumps) + 1} values in {table.source}; the {count} largest cannot be held out",
            hint=f"--hold-out-largest {column}:1",
        )
    limit = float(ordered[jumps[-count]])
    return _parted(table, values < limit, f"{column} below {limit:.4g}")


def hold_out_table(train: RunTable, heldout: RunTable) -> Split:
    """Fit to one table, score on another."""
    return Split(train, heldout, f"all of {train.source}, scored on {heldout.source}")


def scale_of_runs(table: RunTable) -> tuple[str, Array]:
    """The axis that orders runs from small to large, and where each lies on it, (rows,): FLOPs where they are
    known, else the product of the sizes that are."""
    with np.errstate(over="ignore", divide="ignore"):  # scales beyond what numbers hold are refused below
        table = table.with_derived(["flops"])
        known = {name: table.columns([name])[name] for name in _complete(table, ["flops", *GROWING])}
        columns = with_compute(known)
        product = np.exp(np.sum([np.log(column) for column in columns.values()], axis=0))
        scale = columns.get("flops", product)
    if not columns:
        raise DataError(
            f"nothing in {table.source} tells small runs from large ones (no flops, {', '.join(GROWING[:4])})",
            hint="--train-below COLUMN=VALUE or --hold-out-largest COLUMN:2 names the axis",
        )
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise DataError(
            f"{' x '.join(known)} is too large or too small for a number in some run: check the units"
        )
    return "flops" if "flops" in columns else " x ".join(columns), np.asarray(scale)


def rows_of(table: RunTable, keep: Mask, reason: str) -> RunTable:
    """The table with only these rows; the others are a counted drop. Which of the diverged ones go with them is not
    known, so that none does.
    """
    drop = Dropped(reason, int((~keep).sum()))
    frame = table.frame[keep].reset_index(drop=True)
    return replace(table, frame=frame, lines=table.lines[keep], dropped=(*table.dropped, drop), diverged=None)


def _axis(table: RunTable, column: str) -> Array:
    table = table.with_derived([column])
    values = table.columns([column])[column]
    if (values <= 0).any():
        raise DataError(f"{column} is {values.min():g} in some run; an axis of scale is positive")
    return values


def _complete(table: RunTable, names: Sequence[str]) -> list[str]:
    """Those of the columns that are there, with a positive value in every row."""
    present = [name for name in names if name in table.frame.columns]
    return [name for name in present if name in table.domain and table.domain[name][0] > 0]


def _parted(table: RunTable, train: Mask, rule: str) -> Split:
    kept = int(train.sum())
    if kept in (0, len(table)):
        raise TooFewRuns(
            f"{rule}: {kept} of {len(table)} runs to fit to and {len(table) - kept} to score on",
            hint="move the cut into the range of the runs (scalecli runs list shows them)",
        )
    return Split(rows_of(table, train, "held out"), rows_of(table, ~train, f"fitted to ({rule})"), rule)
