"""Which rows of a table are used, and the counted reasons of those that are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scalecli.data.schema import status_of
from scalecli.data.where import Values, Where

if TYPE_CHECKING:
    import pandas as pd

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Dropped:
    """So many rows were left out, and why."""

    reason: str
    count: int


def select_status(frame: pd.DataFrame, wanted: Collection[str] | None) -> tuple[Mask, list[Dropped]]:
    """Rows whose status is wanted, shape (rows,); None wants all; a missing status is ok, and so is `finished`."""
    if wanted is None or "status" not in frame.columns:
        return np.ones(len(frame), dtype=bool), []
    statuses = [
        "ok" if gone else status_of(status)
        for status, gone in zip(frame["status"], frame["status"].isna(), strict=True)
    ]
    counts = Counter(status for status in statuses if status not in wanted)
    dropped = [Dropped(f"status {status}", count) for status, count in sorted(counts.items())]
    return np.array([status in wanted for status in statuses], dtype=bool), dropped


def select_where(
    keep: Mask, conditions: Sequence[Where], seen: Mapping[str, Values]
) -> tuple[Mask, list[Dropped]]:
    """Of the rows kept so far those that meet every condition; a row is counted at the first it fails."""
    dropped = []
    for condition in conditions:
        met = condition.mask(seen, len(keep))
        if lost := int(np.sum(keep & ~met)):
            dropped.append(Dropped(f"--where {condition.text}", lost))
        keep = keep & met
    return keep, dropped
