"""Columns that a law does not read and that its residuals follow: two populations in one table, or a missing axis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalecli.data.notes import Notice
from scalecli.data.tables import RunTable
from scalecli.fitters.domain import with_compute
from scalecli.fitters.identify import TIED_CORRELATION
from scalecli.fitters.law import Array, EstimatedLaw, measured_column, required_columns

AXES = (
    "params", "params_non_embedding", "params_active", "tokens", "unique_tokens", "flops", "steps", "batch_tokens",
    "batch_sequences", "sequence_length", "learning_rate", "weight_decay", "beta2", "warmup_steps",
    "decay_fraction", "width", "depth", "heads", "vocab_size", "num_experts", "experts_per_token", "sparsity",
)  # fmt: skip
"""Settings in numbers: outcomes of a run (other losses, scores) follow its residual by themselves."""

IGNORED = ("run_id", "group", "status", "status_reason", "versions", "config_hash", "created_at")

MOST_KINDS = 12
"""A column of more different texts is a name."""

LARGE_SHARE = 0.3
"""Of the variance of the ranks of residuals, this much at least is worth a warning."""

BY_CHANCE = 1e-4
"""And no chance should do that more often than once in so many columns."""

FEWEST_ROWS = 12


@dataclass(frozen=True, slots=True)
class Leftover:
    """A column that residuals follow: its share of the variance of their ranks, and how (for a message)."""

    column: str
    share: float
    how: str


def unread_columns(
    table: RunTable, law: type[Any], residual: Array, label: NDArray[np.intp]
) -> Iterator[Notice]:
    """A warning for the column that explains most of what the law leaves over.

    `residual` (rows,) is log measured over predicted, `label` (rows,) the cluster of each row: a column that is
    the same for all rows of a cluster is judged by clusters, which have errors of their own.
    """
    if measured_column(law) != law.output or len(residual) < FEWEST_ROWS:
        return
    found = [*_kinds(table, residual, label), *_axes(table, law, residual, label)]
    if found:
        worst = max(found, key=lambda leftover: leftover.share)
        yield Notice(
            "W-UNREAD-COLUMN",
            f"{worst.column} accounts for {worst.share:.0%} of what {law.name} leaves over, and is not part of it: "
            f"{worst.how}",
        )


def tied_columns(table: RunTable, law: type[Any]) -> Iterator[Notice]:
    """A warning for a law of one axis where another one moves with it, so that the law holds along that line only."""
    if isinstance(law, EstimatedLaw) or len(law.inputs) > 1 or law.inputs[0] not in ("params", "tokens"):
        return
    other = {"params": "tokens", "tokens": "params"}[law.inputs[0]]
    pair = [table.positive(name) for name in (law.inputs[0], other)]
    if pair[0] is None or pair[1] is None:
        return
    read, moved = (np.log(column) for column in pair if column is not None)
    if min(np.ptp(read), np.ptp(moved)) > 0 and abs(np.corrcoef(read, moved)[0, 1]) > TIED_CORRELATION:
        slope = float(np.polyfit(read, moved, 1)[0])
        yield Notice(
            "W-CONFOUNDED",
            f"{other} grew as {law.inputs[0]}^{slope:.2f} in all runs: this is the law of both together, where "
            "both go on so",
        )


def _kinds(table: RunTable, residual: Array, label: NDArray[np.intp]) -> Iterator[Leftover]:
    """Texts of few kinds whose runs lie apart (Kruskal and Wallis)."""
    from scipy.special import chdtrc

    for name in map(str, table.frame.columns):
        texts = table.frame[name]
        if name in IGNORED or texts.dtype != object or texts.isna().any():
            continue
        kinds, number = np.unique(texts.to_numpy().astype(str), return_inverse=True)
        if not 2 <= len(kinds) <= MOST_KINDS:
            continue
        value, kind = _by_cluster(residual, number.astype(float), label)
        if len(value) < len(kinds) + 2:
            continue
        share = _share_between(ranks(value), kind.astype(np.intp))
        if share > LARGE_SHARE and chdtrc(len(kinds) - 1, share * (len(value) - 1)) < BY_CHANCE:
            how = f"its {len(kinds)} kinds ({', '.join(kinds[:3])}) lie apart; one fit each (--where), or --arms {name}"
            yield Leftover(name, share, how)


def _axes(table: RunTable, law: type[Any], residual: Array, label: NDArray[np.intp]) -> Iterator[Leftover]:
    """Settings in numbers along which residuals rise or fall (Spearman)."""
    from scipy.special import chdtrc

    read = {name: column for name in required_columns(law) if (column := table.positive(name)) is not None}
    for name in AXES:
        column = None if name in with_compute(read) else table.positive(name)
        if column is None or np.ptp(column) == 0:
            continue
        value, place = _by_cluster(residual, column, label)
        if np.ptp(place) == 0 or len(value) < FEWEST_ROWS // 2:
            continue
        correlation = float(np.corrcoef(ranks(value), ranks(place))[0, 1])
        if correlation**2 > LARGE_SHARE and chdtrc(1, correlation**2 * (len(value) - 1)) < BY_CHANCE:
            rises = "rises" if correlation > 0 else "falls"
            yield Leftover(name, correlation**2, f"at equal inputs the loss {rises} with it")


def _by_cluster(residual: Array, column: Array, label: NDArray[np.intp]) -> tuple[Array, Array]:
    """Residuals and column row by row; by cluster means where the column is the same for all rows of each."""
    counts = np.bincount(label)
    first = np.zeros(len(counts))
    first[label] = column
    if len(counts) == len(label) or not np.array_equal(first[label], column):
        return residual, column
    return np.bincount(label, residual) / counts, first


def _share_between(value: Array, kind: NDArray[np.intp]) -> float:
    """Of the variance of `value`, the part that lies between kinds."""
    counts = np.bincount(kind)
    between = (np.bincount(kind, value) / np.maximum(counts, 1) - value.mean()) ** 2
    return float((counts * between).sum() / ((value - value.mean()) ** 2).sum())


def ranks(value: Array) -> Array:
    """Ranks from 0, ties sharing their mean."""
    _, place, counts = np.unique(value, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts + 1) / 2)[place])
