"""Cells of a table as numbers: which can be read, which may stand in their column, and where the first bad one is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scalecli.data.schema import Column
from scalecli.errors import BadRow

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "<na>"})
"""Texts that mean a missing cell, in any case."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where rows are from: a file and, of each row, its line there, shape (rows,)."""

    source: str
    lines: NDArray[np.int64]

    def bad_row(self, row: int, field: str, fact: str, hint: str = "") -> BadRow:
        return BadRow(fact, file=self.source, line=int(self.lines[row]), field=field, hint=hint)


def numbers_of(cells: pd.Series[Any]) -> Array:
    """Cells as floats, shape (rows,); NaN where a cell is missing or no number."""
    if cells.dtype.kind in "fiu":
        return np.asarray(cells.to_numpy(), dtype=np.float64)
    return np.array([_number(cell) for cell in cells], dtype=np.float64)


def required_numbers(cells: pd.Series[Any], column: Column, origin: Origin, factor: float = 1.0) -> Array:
    """Cells times `factor`, shape (rows,): all finite and within the column's bounds, or `BadRow` for the first."""
    numbers = numbers_of(cells) * factor
    bad = ~np.isfinite(numbers) | (numbers < column.low) | (numbers > column.high)
    if bad.any():
        row = int(np.argmax(bad))
        fact = _unreadable(cells.iloc[row]) if np.isnan(numbers[row]) else column.problem(float(numbers[row]))
        alike = f" (and {int(bad.sum()) - 1} more rows)" if bad.sum() > 1 else ""
        hint = f'mend the file, or leave such rows out: --where "{column.name} > 0"'
        raise origin.bad_row(row, column.name, fact + alike, hint)
    return numbers


def optional_numbers(cells: pd.Series[Any], column: Column, origin: Origin, factor: float) -> Array:
    """Cells times `factor`, shape (rows,), NaN where missing; `BadRow` for the first that is there and no number."""
    numbers = numbers_of(cells)
    unreadable = np.isnan(numbers) & cells.notna().to_numpy()
    if unreadable.any():
        row = int(np.argmax(unreadable))
        raise origin.bad_row(row, column.name, _unreadable(cells.iloc[row]))
    return numbers * factor


def _number(cell: Any) -> float:
    # float() reads '1_000', which is more likely a mistake, and True, which is none of a number.
    if isinstance(cell, (bool, np.bool_)) or (isinstance(cell, str) and "_" in cell):
        return float("nan")
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _unreadable(cell: Any) -> str:
    if str(cell).strip().lower() in MISSING:
        return "is missing or NaN"
    return f"{str(cell)[:60]!r} is not a number"
