"""Resamples of runs in clusters: what a bootstrap draws.

Runs that share a cluster (a model and its recipe, say) share an error, so clusters are what is drawn. With
enough of them a draw is a set of row weights: how often its cluster was drawn (Cameron, Gelbach and Miller
2008). With few, clusters missing from a draw would say more about the design than about the noise; then the
residuals of every cluster are multiplied by a random number of mean 0 and variance 1 instead: the wild
cluster bootstrap, with the six-point distribution of Webb 2023. Its residuals are those of each cluster left
out, and its draws as wide as t with one degree of freedom less than there are clusters (Bell and McCaffrey
2002; Cameron and Miller 2015, section VI): with residuals of the fit itself, 90 % intervals from five to nine
rows held the truth in 59 to 68 % of worlds (docs/benchmarks.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalecli.fitters.law import Array
from scalecli.fitters.problem import Indices

FEW_CLUSTERS = 10

LEAST_SPARE = 0.05
"""A cluster that decides its own prediction to more than 95 % says nothing of its error; no residual is enlarged
more than that."""

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
        """What each cluster's residuals are multiplied by, (draws, clusters): Webb's numbers, as wide as t."""
        spare = max(self.count - 1, 1)
        size = np.sqrt(spare / rng.chisquare(spare, draws))
        return rng.choice(WEBB, size=(draws, self.count)) * size[:, None]

    def inflation(self, rows: int, parameters: int) -> float:
        """Residuals of a fit are too small by about this factor (the usual correction of clustered
        variances)."""
        spare = max(rows - parameters, 1)
        return float(np.sqrt(self.count / max(self.count - 1, 1) * max(rows - 1, 1) / spare))


def leave_cluster_out(residual: Array, slopes: Array, clusters: Clusters) -> Array:
    """Residuals of least squares (rows,) as if the fit had not seen their cluster: (1 - H_gg)^-1 r_g.

    `slopes` (rows, parameters) is the Jacobian, H = J (J'J)^-1 J' its hat matrix; a cluster's block of it has
    the rank of J, so that small matrices are enough however many rows the cluster has.
    """
    squares, axes = np.linalg.eigh(slopes.T @ slopes)
    known = squares > np.finfo(float).eps * squares.max(initial=0.0) * len(squares)
    white = slopes @ (axes[:, known] / np.sqrt(squares[known]))  # H = white white'
    found = residual.copy()
    for which in range(clusters.count):
        rows = clusters.label == which
        own, directions = np.linalg.eigh(white[rows].T @ white[rows])
        enlarged = 1 / np.maximum(1 - own, LEAST_SPARE) - 1
        share = np.divide(enlarged, own, out=np.ones_like(own), where=own > 0)
        turned = white[rows] @ directions
        found[rows] += turned @ (share * (turned.T @ residual[rows]))
    return found * np.sqrt((clusters.count - 1) / clusters.count) if clusters.count > 1 else found
