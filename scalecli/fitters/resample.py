"""Resamples of runs in clusters: what a bootstrap draws.

Runs that share a cluster (a model and its recipe, say) share an error, so clusters are what is drawn. With
enough of them a draw is a set of row weights: how often its cluster was drawn (Cameron, Gelbach and Miller
2008). With few, clusters missing from a draw would say more about the design than about the noise; then the
residuals of every cluster are multiplied by a random number of mean 0 and variance 1 instead: the wild
cluster bootstrap, with the six-point distribution of Webb 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalecli.fitters.law import Array
from scalecli.fitters.problem import Indices

FEW_CLUSTERS = 10

WEBB = np.array([-np.sqrt(1.5), -1.0, -np.sqrt(0.5), np.sqrt(0.5), 1.0, np.sqrt(1.5)])


@dataclass(frozen=True, slots=True)
class Clusters:
    """`label` (rows,) numbers the cluster of each row from 0; `names` are what the clusters are called."""

    label: Indices
    names: list[str]

    @classmethod
    def of(cls, groups: NDArray[Any] | None, rows: int) -> Clusters:
        """Rows of equal `groups` belong together; without groups every row stands alone."""
        if groups is None:
            return cls(np.arange(rows), [str(row + 1) for row in range(rows)])
        labels = np.asarray(groups)
        written = labels.astype(str) if labels.dtype.kind != "f" else np.array([f"{x:.10g}" for x in labels])
        found, label = np.unique(written, return_inverse=True)
        return cls(label, found.tolist())

    @property
    def count(self) -> int:
        return len(self.names)

    @property
    def few(self) -> bool:
        return self.count < FEW_CLUSTERS

    def take(self, rows: Any) -> Clusters:
        found, label = np.unique(self.label[rows], return_inverse=True)
        return Clusters(label, [self.names[which] for which in found])

    def counts(self, draws: int, rng: np.random.Generator) -> Array:
        """How often each cluster was drawn, (draws, clusters)."""
        picked = rng.integers(self.count, size=(draws, self.count)) + self.count * np.arange(draws)[:, None]
        counts = np.bincount(picked.ravel(), minlength=draws * self.count)
        return counts.reshape(draws, self.count).astype(float)

    def multipliers(self, draws: int, rng: np.random.Generator) -> Array:
        """Webb's multipliers of each cluster's residuals, (draws, clusters)."""
        return rng.choice(WEBB, size=(draws, self.count))

    def inflation(self, rows: int, parameters: int) -> float:
        """Residuals of a fit are too small by about this factor (the usual correction of clustered
        variances)."""
        spare = max(rows - parameters, 1)
        return float(np.sqrt(self.count / max(self.count - 1, 1) * max(rows - 1, 1) / spare))
