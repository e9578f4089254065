"""Rows that say the same thing more than once: copies of a row, and checkpoints along one training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalecli.data.notes import Notice
from scalecli.data.tables import RunTable
from scalecli.errors import DataError
from scalecli.fitters.law import measured_column, required_columns

LABELS = ("run_id", "seed", "created_at")
"""Columns in which copies of one row may differ."""

LENGTHS = ("tokens", "steps", "flops")
"""Columns that grow along a training."""

FEWEST_CHECKPOINTS = 5
"""Rows of a training, in the mean, from which on they look like its checkpoints."""

EVEN = 0.3
"""Checkpoints are written at even intervals: to within 30 %. Runs of several lengths are factors apart."""


def copied_rows(table: RunTable, law: type[Any]) -> Iterator[Notice]:
    """A warning for rows that repeat another one in everything, its loss to the last digit included."""
    if measured_column(law) != "loss":
        return
    said = [name for name in table.frame.columns if name not in LABELS]
    copies = int(table.frame[said].astype(str).duplicated().sum())
    if copies:
        yield Notice(
            "W-DUPLICATE-ROWS",
            f"{copies} of {len(table)} rows repeat another row in every column: copies count twice and make intervals "
            "too narrow",
        )


def checkpoint_rows(table: RunTable, law: type[Any]) -> Iterator[Notice]:
    """A warning when rows are checkpoints of fewer trainings, for laws of runs that have ended."""
    if measured_column(law) != "loss" or "learning_rate" in required_columns(law):
        return
    name = trainings_of(table)
    if name is not None:
        yield Notice(
            "W-CHECKPOINTS",
            f"the {len(table)} rows look like checkpoints of {table.frame[name].nunique()} trainings ({name}): those "
            "share their errors, and before its learning rate has fallen a training lies above a run of that length; "
            f"--final {name} keeps the last of each",
        )


def trainings_of(table: RunTable) -> str | None:
    """The column that names the training of each row where rows are checkpoints; None where they are not."""
    length = next((name for name in LENGTHS if name in table.frame.columns), None)
    if length is None:
        return None
    for name in table.frame.columns:
        labels = table.frame[name]
        known = labels.dtype == object and not labels.isna().any()
        if (
            known
            and len(table) >= FEWEST_CHECKPOINTS * labels.nunique()
            and _evenly(table, str(name), length)
        ):
            return str(name)
    return None


def last_of_trainings(table: RunTable, name: str) -> RunTable:
    """The longest row of every training that the column names; the others are dropped and counted.

    Raises `DataError` for a table that does not say how long its rows were trained.
    """
    labels = table.groups(name)
    length = next((known for known in LENGTHS if known in table.with_derived(LENGTHS).frame.columns), None)
    if length is None:
        raise DataError(
            f"{table.source} has no {', '.join(LENGTHS)}: which checkpoint is the last is not known",
            hint="--map tokens=THEIR_NAME",
        )
    table = table.with_derived([length])
    order = np.argsort(table.columns([length])[length], kind="stable")[::-1]
    last = np.zeros(len(table), dtype=bool)
    last[order[np.unique(labels[order], return_index=True)[1]]] = True
    return table.only(last, f"not the last of its {name}")


def _evenly(table: RunTable, name: str, length: str) -> bool:
    """Whether the lengths of most trainings grow in even steps."""
    even = [
        _even_steps(part.to_numpy(dtype=float))
        for _, part in table.frame.groupby(name, sort=False)[length]
        if len(part) >= FEWEST_CHECKPOINTS
    ]
    return bool(even) and sum(even) > len(even) / 2


def _even_steps(lengths: NDArray[np.float64]) -> bool:
    steps = np.diff(np.unique(lengths[np.isfinite(lengths)]))
    return len(steps) >= FEWEST_CHECKPOINTS - 1 and bool(np.ptp(steps) <= 2 * EVEN * np.median(steps))
