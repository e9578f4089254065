"""The run table that `RUNS --map --unit --where` name on the command line."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from scalecli.cli.options import numbers, pairs

if TYPE_CHECKING:
    from scalecli.data.tables import RunTable, StoreRows


def read_table(
    runs: str,
    map: list[str] | None = None,
    unit: list[str] | None = None,
    where: list[str] | None = None,
    *,
    require: Sequence[str] = (),
    keep_status: Collection[str] | None = ("ok",),
    rows: StoreRows = "runs",
) -> RunTable:
    """Read a run table as the shared options say; typed errors as `read_runs` raises them."""
    from scalecli.data.tables import read_runs

    return read_runs(
        runs,
        map=pairs(map, "--map"),
        unit=numbers(unit, "--unit"),
        where=where or [],
        require=require,
        keep_status=keep_status,
        rows=rows,
    )
