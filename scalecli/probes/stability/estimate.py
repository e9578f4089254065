"""Which pairs of batch and rate train without rises of the loss. Pure arithmetic.

Under Adam a rise begins where gradients of successive steps agree: the update then is near its largest, one rate in
every weight, and follows the gradient closely (molybog2023, section 4). So the mean size of the
update in rates and its correlation with the gradient are told beside the verdict, which rests on the loss alone.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scalecli.errors import ProbeError
from scalecli.probes.columns import Row

RISE = 0.1
"""Nats that the held-out loss may rise above its lowest reading: good rates rise by 0.054 at most, those ten times as
large by 0.102 at least (docs/benchmarks.md)."""


@dataclass(frozen=True, slots=True)
class Trained:
    """One pair. `rise` is the largest above the lowest loss so far [nats]; sizes are means over the second half."""

    batch_tokens: int
    learning_rate: float
    stable: bool
    rise: float
    loss: float | None
    update_size: float
    correlation: float
    steps: int


@dataclass(frozen=True, slots=True)
class Cap:
    """The largest rate at a batch up to which all were stable; `open` where no larger one was tried."""

    batch_tokens: int
    learning_rate: float | None
    open: bool


def trained(rows: Sequence[Row]) -> list[Trained]:
    """One for each pair of batch and rate, batches and rates rising."""
    by_pair: dict[tuple[int, float], list[Row]] = defaultdict(list)
    for row in rows:
        by_pair[int(row["batch_tokens"] or 0), float(row["learning_rate"] or 0.0)].append(row)
    return [_trained(*pair, by_pair[pair]) for pair in sorted(by_pair)]


def caps(found: Sequence[Trained]) -> list[Cap]:
    """One for each batch; a stable rate above an unstable one does not count."""
    by_batch: dict[int, list[Trained]] = defaultdict(list)
    for each in found:
        by_batch[each.batch_tokens].append(each)
    return [_cap(batch, ordered) for batch, ordered in by_batch.items()]


def _cap(batch_tokens: int, ordered: Sequence[Trained]) -> Cap:
    largest = None
    for each in ordered:
        if not each.stable:
            return Cap(batch_tokens, largest, open=False)
        largest = each.learning_rate
    return Cap(batch_tokens, largest, open=True)


def _trained(batch_tokens: int, learning_rate: float, rows: Sequence[Row]) -> Trained:
    readings = [row["held_out"] for row in rows if "held_out" in row]
    if len(readings) < 3:
        raise ProbeError(
            f"{len(readings)} readings of the held-out loss show no rise", hint="train on more --tokens"
        )
    whole = all(reading is not None for reading in readings) and rows[-1]["loss"] is not None
    losses = np.array([float(reading) for reading in readings if reading is not None])
    rise = float((losses - np.minimum.accumulate(losses)).max()) if whole else math.inf
    half = rows[len(rows) // 2 :]
    return Trained(
        batch_tokens=batch_tokens,
        learning_rate=learning_rate,
        stable=rise <= RISE,
        rise=rise,
        loss=float(losses[-1]) if whole else None,
        update_size=_mean(half, "update_size"),
        correlation=_mean(half, "correlation"),
        steps=len(rows),
    )


def _mean(rows: Sequence[Row], name: str) -> float:
    known = [float(value) for row in rows if (value := row[name]) is not None]
    return float(np.mean(known)) if known else math.nan
