"""Run tables: what the fitters read. Nothing is dropped without a counted reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scalecli.data.derive import Derivation, derivations_for
from scalecli.data.formats import MISSING, Loaded, load, write_runs
from scalecli.data.notes import Note, mapping_notes, table_notes
from scalecli.data.records import records_of
from scalecli.data.schema import Column, column_for, likely_source
from scalecli.data.where import Values, Where, column_values, parse_where
from scalecli.errors import BadRow, DataError, TooFewRuns

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Dropped", "Note", "RunTable", "read_runs", "write_runs"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Dropped:
    """So many rows were left out, and why."""

    reason: str
    count: int


@dataclass(frozen=True, slots=True)
class RunTable:
    """The usable rows of a table, and what became of the others.

    `frame` has canonical names and units; `lines`, shape (rows,), says which line of the file (for Parquet
    and stores: which row) each came from. `rows_read` counts the rows of `frame` and the dropped ones.
    `sha256` is of the content as read.
    """

    frame: pd.DataFrame
    lines: NDArray[np.int64]
    rows_read: int
    dropped: tuple[Dropped, ...]
    source: str
    sha256: str
    notes: tuple[Note, ...] = ()

    def __len__(self) -> int:
        return len(self.frame)

    def columns(self, names: Iterable[str]) -> dict[str, Array]:
        """Float arrays of shape (rows,), checked against their bounds: `BadRow` names the first bad cell."""
        return {
            name: _checked(self._column(name), column_for(name), self.lines, self.source) for name in names
        }

    def groups(self, column: str) -> NDArray[Any]:
        """Cluster labels as text, shape (rows,). A missing label is a `BadRow`."""
        labels = self._column(column)
        for line, label in zip(self.lines, labels.isna(), strict=True):
            if label:
                raise BadRow(
                    "is missing, and runs are grouped by it", file=self.source, line=int(line), field=column
                )
        return np.array([str(label) for label in labels], dtype=object)

    @property
    def domain(self) -> dict[str, tuple[float, float]]:
        """Smallest and largest value of every column that is all finite numbers."""
        spans = {}
        for name in self.frame.columns:
            values = column_values(self.frame[name].to_numpy())
            if values.dtype == float and len(values) and bool(np.isfinite(values).all()):
                spans[str(name)] = (float(values.min()), float(values.max()))
        return spans

    def records(self) -> list[dict[str, Any]]:
        """The kept rows as plain JSON values."""
        return records_of(self.frame)

    def _column(self, name: str) -> pd.Series[Any]:
        if name not in self.frame.columns:
            raise _no_column(name, self.frame, self.source)
        return self.frame[name]


# What overflows becomes infinite, and an infinite value in a required column is a BadRow.
@np.errstate(all="ignore")
def read_runs(
    path: Path | str,
    *,
    map: Mapping[str, str] | None = None,
    unit: Mapping[str, float] | None = None,
    where: str | Sequence[str] = (),
    require: Collection[str] = (),
    keep_status: Collection[str] | None = ("ok",),
) -> RunTable:
    """Read a run table from .csv, .parquet, .jsonl, a store (.db) or `-` (standard input).

    `map` gives our name -> the file's name, and wins over a column that has our name already; the file's
    names stay. `unit` gives our name -> factor. Rows whose `status` is not in `keep_status` (None keeps all;
    a missing status is ok) and rows that fail a `where` condition are dropped and counted; `where` sees
    mapped, scaled and original names. `require` are the columns that must be there: derived where that is
    exact (and noted), and checked row by row.

    Raises `DataError` for a file or column that is not there, `BadRow` for a required value that cannot be
    read, is missing, negative or not finite, `TooFewRuns` when no row is left.
    """
    mapping, factors = dict(map or {}), dict(unit or {})
    conditions = [parse_where(text) for text in ([where] if isinstance(where, str) else where)]
    loaded = load(path)
    frame = _mapped(loaded, mapping)
    _refuse_missing(factors, frame, loaded.source)
    _refuse_text(factors)
    steps = _derivations(frame, require, conditions)
    frame = _derived(frame, steps, factors)
    required = _with_inputs(require, steps)
    _refuse_missing(required, frame, loaded.source)
    keep, dropped = _selected(frame, loaded.frame, conditions, keep_status, {*required, *factors}, factors)
    if require and not keep.any():
        reasons = "; ".join(f"{drop.count} by {drop.reason}" for drop in dropped)
        raise TooFewRuns(
            f"{loaded.source}: none of {len(frame)} rows is left ({reasons})", hint="loosen --where"
        )
    frame, lines = frame[keep].reset_index(drop=True), loaded.lines[keep]
    for name in dict.fromkeys([*required, *factors]):
        if column_for(name).kind == "number":
            frame[name] = _scaled(frame[name], name, factors, lines, loaded.source, required=name in required)
    notes = [*mapping_notes(mapping), *(derivation_note(step) for step in steps), *table_notes(frame)]
    return RunTable(frame, lines, len(keep), tuple(dropped), loaded.source, loaded.sha256, tuple(notes))


def _mapped(loaded: Loaded, mapping: Mapping[str, str]) -> pd.DataFrame:
    for name, theirs in mapping.items():
        if theirs not in loaded.frame.columns:
            raise _no_column(theirs, loaded.frame, loaded.source, f"--map {name}=")
    return loaded.frame.assign(**{name: loaded.frame[theirs] for name, theirs in mapping.items()})


def _refuse_missing(names: Iterable[str], frame: pd.DataFrame, source: str) -> None:
    for name in names:
        if name not in frame.columns:
            raise _no_column(name, frame, source)


def _refuse_text(factors: Mapping[str, float]) -> None:
    for name, factor in factors.items():
        if column_for(name).kind == "text":
            raise DataError(
                f"--unit {name}={factor:g}: the column holds text", hint="scale columns of numbers"
            )


def _no_column(name: str, frame: pd.DataFrame, source: str, flag: str = "") -> DataError:
    """What is there instead, with the flag that most likely supplies it."""
    present = [str(column) for column in frame.columns]
    likely = likely_source(name, present)
    unit = column_for(name).unit
    return DataError(
        f"{source} has no column {name!r}{f' [{unit}]' if unit else ''}; columns there: {', '.join(present)}",
        hint=(flag or f"--map {name}=") + (likely or "THEIR_NAME"),
    )


def _derivations(
    frame: pd.DataFrame, require: Collection[str], conditions: Sequence[Where]
) -> list[Derivation]:
    """How to supply the columns that are wanted, missing and exact from others."""
    wanted = [*require, *sorted(name for condition in conditions for name in condition.names)]
    return derivations_for(wanted, [str(name) for name in frame.columns])


def _derived(frame: pd.DataFrame, steps: Sequence[Derivation], factors: Mapping[str, float]) -> pd.DataFrame:
    """The frame with the derived columns, computed from scaled inputs."""
    for step in steps:
        parts = [numbers_of(frame[need]) * factors.get(need, 1.0) for need in step.needs]
        frame = frame.assign(**{step.name: step.compute(*parts)})
    return frame


def _with_inputs(require: Collection[str], steps: Sequence[Derivation]) -> list[str]:
    """The required columns after the inputs of those that are derived, so that the input is blamed."""
    required = list(dict.fromkeys(require))
    for step in reversed(steps):
        if step.name in required:
            required = [*(need for need in step.needs if need not in required), *required]
    return required


def derivation_note(derivation: Derivation) -> Note:
    """What is said of a column that was computed from others."""
    return Note("W-DERIVED", f"{derivation.name} is not in the table and was computed: {derivation.formula}")


def _selected(
    frame: pd.DataFrame,
    original: pd.DataFrame,
    conditions: Sequence[Where],
    keep_status: Collection[str] | None,
    numeric: Collection[str],
    factors: Mapping[str, float],
) -> tuple[NDArray[np.bool_], list[Dropped]]:
    """Which rows stay, shape (rows,), and the counted reasons of the others; a row is counted once."""
    keep = np.ones(len(frame), dtype=bool)
    dropped: list[Dropped] = []
    if keep_status is not None and "status" in frame.columns:
        statuses = [
            str(status) if gone is False else "ok"
            for status, gone in zip(frame["status"], frame["status"].isna(), strict=True)
        ]
        keep = np.array([status in keep_status for status in statuses], dtype=bool)
        counts = Counter(status for status in statuses if status not in keep_status)
        dropped += [Dropped(f"status {status}", count) for status, count in sorted(counts.items())]
    if conditions:
        seen = _seen_by_where(frame, original, numeric, factors)
        for condition in conditions:
            met = condition.mask(seen, len(frame))
            if lost := int(np.sum(keep & ~met)):
                dropped.append(Dropped(f"--where {condition.text}", lost))
            keep &= met
    return keep, dropped


def _seen_by_where(
    frame: pd.DataFrame, original: pd.DataFrame, numeric: Collection[str], factors: Mapping[str, float]
) -> dict[str, Values]:
    """Original columns, then ours over them; required numbers are numbers here even if some cell is not."""
    seen = {str(name): column_values(original[name].to_numpy()) for name in original.columns}
    for name in frame.columns:
        numbers = name in numeric and column_for(name).kind == "number"
        values = numbers_of(frame[name]) if numbers else column_values(frame[name].to_numpy())
        seen[str(name)] = values * factors[name] if name in factors else values
    return seen


def _scaled(
    cells: pd.Series[Any],
    name: str,
    factors: Mapping[str, float],
    lines: NDArray[np.int64],
    source: str,
    *,
    required: bool,
) -> Array:
    column, factor = column_for(name), factors.get(name, 1.0)
    if required:
        return _checked(cells, column, lines, source, factor)
    numbers = numbers_of(cells)
    unreadable = np.isnan(numbers) & cells.notna().to_numpy()
    if unreadable.any():
        raise _bad_row(cells, numbers, int(np.argmax(unreadable)), column, lines, source)
    return numbers * factor


def _checked(
    cells: pd.Series[Any], column: Column, lines: NDArray[np.int64], source: str, factor: float = 1.0
) -> Array:
    numbers = numbers_of(cells) * factor
    bad = ~np.isfinite(numbers) | (numbers < column.low) | (numbers > column.high)
    if bad.any():
        raise _bad_row(cells, numbers, int(np.argmax(bad)), column, lines, source, alike=int(bad.sum()) - 1)
    return numbers


def _bad_row(
    cells: pd.Series[Any],
    numbers: Array,
    row: int,
    column: Column,
    lines: NDArray[np.int64],
    source: str,
    alike: int = 0,
) -> BadRow:
    cell = cells.iloc[row]
    readable = not np.isnan(numbers[row])
    fact = column.problem(float(numbers[row])) if readable else _unreadable(cell)
    more = f" (and {alike} more rows)" if alike else ""
    hint = f'mend the file, or leave such rows out: --where "{column.name} > 0"'
    return BadRow(fact + more, file=source, line=int(lines[row]), field=column.name, hint=hint)


def _unreadable(cell: Any) -> str:
    if str(cell).strip().lower() in MISSING:
        return "is missing or NaN"
    return f"{str(cell)[:60]!r} is not a number"


def numbers_of(cells: pd.Series[Any]) -> Array:
    """Cells as floats, shape (rows,); NaN where a cell is missing or no number."""
    if cells.dtype.kind in "fiu":
        return cells.to_numpy(dtype=float)
    return np.array([_number(cell) for cell in cells], dtype=float)


def _number(cell: Any) -> float:
    if isinstance(cell, (bool, np.bool_)) or (isinstance(cell, str) and "_" in cell):
        return float("nan")
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return float("nan")
