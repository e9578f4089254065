"""A grid of batches and learning rates from a run table: finished runs, and those that diverged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scalecli.data.tables import RunTable
from scalecli.fitters.landscape.queries import INPUTS
from scalecli.fitters.landscape.settings import VARIANT
from scalecli.fitters.law import Array

if TYPE_CHECKING:
    import pandas as pd

VARIANTS = (
    "params_active", "params_non_embedding", "num_experts", "experts_per_token", "sparsity", "width", "depth",
    "optimizer", "schedule", "parametrization", "dataset",
)  # fmt: skip
"""Columns that tell models or recipes of one size apart: each combination has its own level of loss."""


def read_grid(table: RunTable) -> tuple[dict[str, Array], Array]:
    """Params, tokens, batch, rate and variant of every run, and its loss, (rows,) each: the table's rows, then those
    that diverged, with an infinite loss. Raises `BadRow` as `RunTable.columns` does.
    """
    import pandas as pd

    x, y = table.columns(INPUTS), table.columns(["loss"])["loss"]
    lost = _diverged(table)
    variant = _variants(pd.concat([table.frame, lost]))
    inputs = {name: np.concatenate([x[name], lost[name].to_numpy(dtype=float)]) for name in INPUTS}
    return inputs | {VARIANT: variant}, np.concatenate([y, np.full(len(lost), np.inf)])


def _diverged(table: RunTable) -> pd.DataFrame:
    """The rows that diverged and whose place in the grid is known."""
    rows = table.frame.iloc[:0] if table.diverged is None else table.diverged
    if not set(INPUTS) <= set(rows.columns):
        return table.frame.iloc[:0]
    places = rows[list(INPUTS)].to_numpy(dtype=float)
    return rows.iloc[np.flatnonzero((np.isfinite(places) & (places > 0)).all(axis=1))]


def _variants(frame: pd.DataFrame) -> Array:
    """A number for every combination of what tells models and recipes of one size apart, (rows,)."""
    present = [name for name in VARIANTS if name in frame.columns]
    if not present:
        return np.zeros(len(frame))
    return np.asarray(frame.groupby(present, dropna=False).ngroup(), dtype=float)
