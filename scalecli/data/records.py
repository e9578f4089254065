"""Rows as plain JSON values and as frames: what tables, the store and the documents of commands share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def frame_of(records: list[dict[str, Any]]) -> pd.DataFrame:
    """Records as a frame: columns in the order they appear, each of numbers, booleans or plain objects."""
    import pandas as pd

    names = list(dict.fromkeys(name for record in records for name in record))
    return pd.DataFrame({name: _column([record.get(name) for record in records]) for name in names})


def _column(cells: list[Any]) -> pd.Series[Any]:
    import pandas as pd

    kinds = {type(cell) for cell in cells}
    if kinds == {bool}:
        return pd.Series(cells, dtype=bool)
    if kinds == {int} and all(abs(cell) < 2**63 for cell in cells):
        return pd.Series(cells, dtype="int64")
    if kinds <= {int, float, type(None)} and kinds != {type(None)}:
        try:
            return pd.Series([float("nan") if cell is None else float(cell) for cell in cells], dtype=float)
        except OverflowError:  # an integer beyond the floats: kept, and unreadable where it is needed
            pass
    return pd.Series(cells, dtype=object)


def records_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain JSON values: numbers that are not finite and missing cells become None.

    >>> import pandas as pd
    >>> records_of(pd.DataFrame({"loss": [2.5, float("nan")], "steps": [10, 20]}))
    [{'loss': 2.5, 'steps': 10}, {'loss': None, 'steps': 20}]
    """
    names = [str(name) for name in frame.columns]
    columns = [[plain_value(cell) for cell in frame[name].tolist()] for name in frame.columns]
    return [dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True)]


def plain_value(cell: Any) -> Any:
    """A cell as a JSON value; None for NaN and infinities, text for what JSON has no form for."""
    if isinstance(cell, float):
        return float(cell) if math.isfinite(cell) else None
    if cell is None or isinstance(cell, (bool, int, str)):
        return cell
    if isinstance(cell, dict):
        return {str(key): plain_value(value) for key, value in cell.items()}
    if isinstance(cell, (list, tuple)):
        return [plain_value(value) for value in cell]
    if getattr(cell, "shape", None) == ():  # a NumPy scalar, without importing NumPy
        return plain_value(cell.item())
    return None if str(cell) in ("NaT", "<NA>") else str(cell)
