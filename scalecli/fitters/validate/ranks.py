"""Are small runs a fair stand-in for large ones? The settings that were tried at both scales, ranked at each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scalecli.data.tables import RunTable
from scalecli.errors import DataError, TooFewRuns
from scalecli.fitters.checks.unread import ranks
from scalecli.fitters.law import Array
from scalecli.fitters.validate.split import Split, scale_of_runs

SAME_SCALE = 0.05
"""Runs whose compute agrees to 5 % are compared as runs of one scale."""

FEWEST_SETTINGS = 4


@dataclass(frozen=True)
class RankCheck:
    """Settings (one a row of `settings`) by their mean log loss at small and at large scale, (settings,).

    Losses are relative to the mean of their own scale. `correlation` is Spearman's; `regret` the log loss at
    large scale that choosing by the small runs costs.
    """

    columns: tuple[str, ...]
    settings: tuple[tuple[str, ...], ...]
    small: Array
    large: Array

    @property
    def correlation(self) -> float | None:
        """None where all settings tie at one of the scales."""
        order = [ranks(values) for values in (self.small, self.large)]
        if min(np.ptp(rank) for rank in order) == 0:
            return None
        return float(np.corrcoef(order[0], order[1])[0, 1])

    @property
    def regret(self) -> float:
        return float(self.large[np.argmin(self.small)] - self.large.min())

    def document(self) -> dict[str, Any]:
        """The document of `scalecli validate --settings`."""
        order = np.argsort(self.large)
        return {
            "schema": "scalecli/proxy-ranks/1",
            "columns": list(self.columns),
            "rank_correlation": self.correlation,
            "regret": self.regret,
            "settings": [
                {
                    "setting": dict(zip(self.columns, self.settings[i], strict=True)),
                    "small": float(self.small[i]),
                    "large": float(self.large[i]),
                }
                for i in order
            ],
        }


def rank_settings(split: Split, columns: Sequence[str]) -> RankCheck:
    """How settings rank among the small runs and among the large (Gasteiger et al. 2022 ask for it of proxies).

    Raises `DataError` for a column that is not there, `TooFewRuns` when fewer than four settings occur at
    both scales.
    """
    small, large = (_relative_losses(table, columns) for table in (split.train, split.heldout))
    shared = tuple(setting for setting in small if setting in large)
    if len(shared) < FEWEST_SETTINGS:
        raise TooFewRuns(
            f"{len(shared)} settings of {', '.join(columns)} occur at both scales; ranks need {FEWEST_SETTINGS}",
            hint="train the same settings at both scales, or move the cut",
        )
    losses = [np.array([side[setting] for setting in shared]) for side in (small, large)]
    return RankCheck(tuple(columns), shared, *losses)


def _relative_losses(table: RunTable, columns: Sequence[str]) -> dict[tuple[str, ...], float]:
    """Setting -> mean over its runs of the log loss, less the mean of all runs of the same scale."""
    loss = table.columns(["loss"])["loss"]
    if (loss <= 0).any():
        raise DataError(f"loss is {loss.min():g} in some run; ranks are of its logarithm")
    scale = np.round(np.log(scale_of_runs(table)[1]) / SAME_SCALE)
    labels = list(zip(*(table.groups(column) for column in columns), strict=True))
    relative = np.log(loss)
    for level in np.unique(scale):
        relative[scale == level] -= relative[scale == level].mean()
    return {
        setting: float(np.mean([relative[i] for i, label in enumerate(labels) if label == setting]))
        for setting in dict.fromkeys(labels)
    }
