"""Run tables: what the fitters read. Nothing is dropped without a counted reason."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scalecli.data.cells import Array, Origin, numbers_of, optional_numbers, required_numbers
from scalecli.data.derive import Derivation, counted_as, derivations_for
from scalecli.data.formats import Loaded, StoreRows, is_run_table, load, write_runs
from scalecli.data.notes import Notice, mapping_notes, table_notes
from scalecli.data.records import records_of
from scalecli.data.schema import column_for, likely_source
from scalecli.data.selection import Dropped, select_status, select_where
from scalecli.data.where import Values, Where, column_values, parse_where
from scalecli.errors import DataError, TooFewRuns

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Dropped", "Notice", "RunTable", "StoreRows", "is_run_table", "read_runs", "write_runs"]


@dataclass(frozen=True, slots=True)
class RunTable:
    """The usable rows of a table, and what became of the others.

    `frame` has canonical names and units; `lines`, shape (rows,), says which line of the file (for Parquet
    and stores: which row) each came from. `rows_read` counts the rows of `frame` and the dropped ones.
    `sha256` is of the content as read. `diverged` are the dropped rows of that status, as the file has them but for
    names: no measurements, but they say where a grid of learning rates ends. `params_kind` says which other count
    `params` holds; None for all weights.
    """

    frame: pd.DataFrame
    lines: NDArray[np.int64]
    rows_read: int
    dropped: tuple[Dropped, ...]
    source: str
    sha256: str
    notes: tuple[Notice, ...] = ()
    diverged: pd.DataFrame | None = None
    params_kind: str | None = None

    def __len__(self) -> int:
        return len(self.frame)

    def columns(self, names: Iterable[str]) -> dict[str, Array]:
        """Float arrays of shape (rows,), checked against their bounds: `BadRow` names the first bad cell."""
        return {name: required_numbers(self._column(name), column_for(name), self._origin) for name in names}

    def positive(self, name: str) -> Array | None:
        """The column, shape (rows,), if it is there and every row has a finite, positive number in it."""
        if name not in self.frame.columns:
            return None
        values = numbers_of(self.frame[name])
        return values if bool(np.all(np.isfinite(values) & (values > 0))) else None

    def groups(self, column: str) -> NDArray[Any]:
        """Cluster labels as text, shape (rows,). A missing label is a `BadRow`."""
        labels = self._column(column)
        missing = labels.isna().to_numpy()
        if missing.any():
            raise self._origin.bad_row(
                int(np.argmax(missing)), column, "is missing, and runs are grouped by it"
            )
        return np.array([str(label) for label in labels], dtype=object)

    def rows(self, keep: NDArray[np.bool_]) -> RunTable:
        """The table with only these of its rows, (rows,)."""
        return replace(self, frame=self.frame[keep].reset_index(drop=True), lines=self.lines[keep])

    def only(self, keep: NDArray[np.bool_], reason: str) -> RunTable:
        """The table with these rows, (rows,); the others are a counted drop for this reason.

        Which of the diverged ones go with them is not known, so that none does.
        """
        if keep.all():
            return self
        drop = Dropped(reason, int((~keep).sum()))
        return replace(self.rows(keep), dropped=(*self.dropped, drop), diverged=None)

    def records(self) -> list[dict[str, Any]]:
        """The kept rows as plain JSON values."""
        return records_of(self.frame)

    def with_derived(self, names: Collection[str]) -> RunTable:
        """The table with those of these columns added that follow exactly from others, each with a note."""
        steps = _steps_to(names, self.frame)
        lost = self.diverged
        return replace(
            self,
            frame=_derived(self.frame, steps, {}),
            notes=(*self.notes, *(_derivation_note(step) for step in steps)),
            diverged=None if lost is None else _derived(lost, _steps_to(names, lost), {}),
            params_kind=counted_as(steps, {}) or self.params_kind,
        )

    @property
    def domain(self) -> dict[str, tuple[float, float]]:
        """Smallest and largest value of every column that is all finite numbers."""
        spans = {}
        for name in self.frame.columns:
            values = column_values(self.frame[name].to_numpy())
            if values.dtype == float and len(values) and bool(np.isfinite(values).all()):
                spans[str(name)] = (float(values.min()), float(values.max()))
        return spans

    @property
    def _origin(self) -> Origin:
        return Origin(self.source, self.lines)

    def _column(self, name: str) -> pd.Series[Any]:
        _refuse_missing([name], self.frame, self.source)
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
    rows: StoreRows = "runs",
) -> RunTable:
    """Read a run table from .csv, .parquet, .jsonl, a store (.db) or `-` (standard input).

    `map` gives our name -> the file's name, and wins over a column that has our name already; the file's
    names stay. `unit` gives our name -> factor. Rows whose `status` is not in `keep_status` (None keeps all;
    a missing status is ok) and rows that fail a `where` condition are dropped and counted; `where` sees
    mapped, scaled and original names. `require` are the columns that must be there: derived where that is
    exact (and noted), and checked row by row. `rows` says what a row of a store is: a run, or a reading along one.

    Raises `DataError` for a file or column that is not there, `BadRow` for a required value that cannot be
    read, is missing, negative or not finite, `TooFewRuns` when no row is left.
    """
    mapping, factors = dict(map or {}), dict(unit or {})
    conditions = [parse_where(text) for text in ([where] if isinstance(where, str) else where)]
    loaded = load(path, rows)
    frame = _mapped(loaded, mapping)
    _refuse_units(factors, frame, loaded.source)
    steps = _steps_to([*require, *_names_in(conditions)], frame)
    frame = _derived(frame, steps, factors)
    required = _with_inputs(require, steps)
    _refuse_missing(required, frame, loaded.source)
    numeric = [name for name in dict.fromkeys([*required, *factors]) if column_for(name).kind == "number"]

    keep, dropped = select_status(frame, keep_status)
    seen = _seen_by_where(frame, loaded.frame, numeric, factors) if conditions else {}
    keep, lost = select_where(keep, conditions, seen)
    dropped += lost
    diverged = _diverged(frame, conditions, seen, numeric, factors)
    if require and not keep.any():
        reasons = "; ".join(f"{drop.count} by {drop.reason}" for drop in dropped)
        fact = f"{loaded.source}: none of {len(frame)} rows is left ({reasons})"
        all_diverged = diverged is not None and len(diverged) == len(frame)
        raise TooFewRuns(fact, hint="train at lower learning rates" if all_diverged else "loosen --where")

    frame, origin = frame[keep].reset_index(drop=True), Origin(loaded.source, loaded.lines[keep])
    for name in numeric:
        read = required_numbers if name in required else optional_numbers
        frame[name] = read(frame[name], column_for(name), origin, factors.get(name, 1.0))
    notes = (*mapping_notes(mapping), *(_derivation_note(step) for step in steps), *table_notes(frame))
    return RunTable(
        frame,
        origin.lines,
        len(keep),
        tuple(dropped),
        loaded.source,
        loaded.sha256,
        notes=notes,
        diverged=diverged,
        params_kind=counted_as(steps, mapping),
    )


def _diverged(
    frame: pd.DataFrame,
    conditions: Sequence[Where],
    seen: Mapping[str, Values],
    numeric: Collection[str],
    factors: Mapping[str, float],
) -> pd.DataFrame | None:
    """The rows that diverged and meet the conditions, in our units; what is no number in them is NaN."""
    if "status" not in frame.columns:
        return None
    rows, _ = select_where(select_status(frame, ("diverged",))[0], conditions, seen)
    part = frame[rows].reset_index(drop=True)
    return part.assign(**{name: numbers_of(part[name]) * factors.get(name, 1.0) for name in numeric})


def _mapped(loaded: Loaded, mapping: Mapping[str, str]) -> pd.DataFrame:
    for name, theirs in mapping.items():
        if theirs not in loaded.frame.columns:
            raise _no_column(theirs, loaded.frame, loaded.source, f"--map {name}=")
    return loaded.frame.assign(**{name: loaded.frame[theirs] for name, theirs in mapping.items()})


def _refuse_missing(names: Iterable[str], frame: pd.DataFrame, source: str) -> None:
    for name in names:
        if name not in frame.columns:
            raise _no_column(name, frame, source, f"--map {name}=")


def _refuse_units(factors: Mapping[str, float], frame: pd.DataFrame, source: str) -> None:
    _refuse_missing(factors, frame, source)
    for name, factor in factors.items():
        if column_for(name).kind == "text":
            raise DataError(f"--unit {name}={factor:g}: {name} holds text", hint="scale columns of numbers")


def _no_column(name: str, frame: pd.DataFrame, source: str, flag: str) -> DataError:
    """What is there instead, with the flag that most likely supplies it."""
    present = [str(column) for column in frame.columns]
    unit = f" [{column_for(name).unit}]" if column_for(name).unit else ""
    return DataError(
        f"{source} has no column {name!r}{unit}; columns there: {', '.join(present)}",
        hint=flag + (likely_source(name, present) or "THEIR_NAME"),
    )


def _names_in(conditions: Sequence[Where]) -> list[str]:
    return sorted({name for condition in conditions for name in condition.names})


def _steps_to(names: Collection[str], frame: pd.DataFrame) -> list[Derivation]:
    return derivations_for(names, [str(name) for name in frame.columns])


def _derived(frame: pd.DataFrame, steps: Sequence[Derivation], factors: Mapping[str, float]) -> pd.DataFrame:
    """The frame with the derived columns, computed from scaled inputs; not finite where these are beyond all use."""
    for step in steps:
        with np.errstate(all="ignore"):
            parts = [numbers_of(frame[need]) * factors.get(need, 1.0) for need in step.needs]
            frame = frame.assign(**{step.name: step.compute(*parts)})
    return frame


def _derivation_note(step: Derivation) -> Notice:
    return Notice("W-DERIVED", f"{step.name} is not in the table and was computed: {step.formula}")


def _with_inputs(require: Collection[str], steps: Sequence[Derivation]) -> list[str]:
    """The required columns after the inputs of those that are derived, so that the input is blamed."""
    required = list(dict.fromkeys(require))
    for step in reversed(steps):
        if step.name in required:
            required = [*(need for need in step.needs if need not in required), *required]
    return required


def _seen_by_where(
    frame: pd.DataFrame, original: pd.DataFrame, numeric: Collection[str], factors: Mapping[str, float]
) -> dict[str, Values]:
    """Original columns, then ours over them; required numbers are numbers here even if some cell is not."""
    seen = {str(name): column_values(original[name].to_numpy()) for name in original.columns}
    for name in frame.columns:
        if name in numeric:
            seen[str(name)] = numbers_of(frame[name]) * factors.get(name, 1.0)
        else:
            seen[str(name)] = column_values(frame[name].to_numpy())
    return seen
