"""How much a setting off its best learning rate and batch costs, so that recipes are compared by robustness too.

The measure is the mean excess over a grid about the best point, a run that diverged counted as one that guesses
(Wortsman et al. 2023, 2309.14322, section 2.2, over rates; Li et al. 2025, 2506.01049, over rates and batches).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalecli.data.tables import RunTable
from scalecli.errors import TooFewRuns
from scalecli.fitters.law import Array

SOURCES = ("wortsman2023", "li2025sgg")
FEWEST_POINTS = 4
NEAR = 0.01
"""Share of the best loss within which a rate or batch counts as good."""
SAME_LENGTH = 0.1
"""Log tokens that are one length: whole steps of different batches do not agree exactly."""
BOOTSTRAP_DRAWS = 1000

Point = tuple[float, float]
"""(learning rate, batch [tokens])."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Mean losses over seeds at one size and length, each at most the loss of guessing; `diverged` counts runs."""

    losses: Mapping[Point, float]
    diverged: int

    @property
    def best(self) -> Point:
        return min(self.losses, key=lambda point: self.losses[point])

    def excess(self, reach: float) -> dict[Point, float]:
        """Nats per token above the best, by octaves from it along both axes, as far as `reach`."""
        rate, batch = self.best
        found = {
            (_octaves(point[0], rate), _octaves(point[1], batch)): loss - self.losses[self.best]
            for point, loss in self.losses.items()
        }
        return {at: nats for at, nats in found.items() if max(map(abs, at)) <= reach}

    def good_octaves(self, axis: int) -> float:
        """Octaves along one axis, the other at its best, that cost at most a hundredth of the loss."""
        along = [
            point[axis]
            for point, loss in self.losses.items()
            if point[1 - axis] == self.best[1 - axis] and loss <= (1 + NEAR) * self.losses[self.best]
        ]
        return math.log2(max(along) / min(along))


def sensitivity(
    table: RunTable, by: str, *, reach: float = 2.0, interval: float = 0.9, seed: int = 0
) -> dict[str, Any]:
    """The document of `scalecli sensitivity`, the most robust first. The table keeps diverged runs.

    Raises `DataError` without the columns, `TooFewRuns` for a recipe whose grids have fewer than four points.
    """
    recipes = _grids(table, by)
    told = [_told(name, grids, reach, interval, seed) for name, grids in recipes.items()]
    return {
        "schema": "scalecli/sensitivity/1",
        "by": by,
        "reach_octaves": reach,
        "interval": interval,
        "recipes": sorted(told, key=lambda recipe: float(recipe["sensitivity"]["value"])),
        "warnings": [{"code": code, "message": message} for code, message in _warnings(recipes, reach)],
    }


def _grids(table: RunTable, by: str) -> dict[str, list[Grid]]:
    """The grids of each recipe, one for each size and length."""
    columns = table.columns(["params", "tokens", "learning_rate", "batch_tokens"])
    length = np.round(np.log(columns["tokens"]) / SAME_LENGTH)
    losses, gone = _losses(table)
    points = list(zip(columns["learning_rate"].tolist(), columns["batch_tokens"].tolist(), strict=True))
    rows: dict[str, dict[Point, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, name in enumerate(table.groups(by)):
        rows[str(name)][float(columns["params"][row]), float(length[row])].append(row)
    return {
        name: [_grid(each, points, losses, gone) for each in settings.values()]
        for name, settings in rows.items()
    }


def _grid(rows: Sequence[int], points: Sequence[Point], losses: Array, gone: NDArray[np.bool_]) -> Grid:
    at: dict[Point, list[float]] = defaultdict(list)
    for row in rows:
        at[points[row]].append(float(losses[row]))
    means = {point: float(np.mean(each)) for point, each in at.items()}
    return Grid(means, int(gone[list(rows)].sum()))


def _losses(table: RunTable) -> tuple[Array, NDArray[np.bool_]]:
    """Losses [nats/token], at most that of guessing, and which runs diverged; both (rows,)."""
    gone = np.zeros(len(table), dtype=bool)
    if "status" in table.frame:
        gone = (table.frame["status"] == "diverged").to_numpy()
    if gone.all():
        raise TooFewRuns("every run diverged: no best setting is known")
    finite = table.rows(~gone).columns(["loss"])["loss"]
    guessing = float(finite.max())
    if "vocab_size" in table.frame:
        guessing = math.log(table.columns(["vocab_size"])["vocab_size"].max())
    losses = np.full(len(table), guessing)
    losses[~gone] = np.minimum(finite, guessing)
    return losses, gone


def _told(name: str, grids: Sequence[Grid], reach: float, interval: float, seed: int) -> dict[str, Any]:
    usable = [grid for grid in grids if len(grid.excess(reach)) >= FEWEST_POINTS]
    if not usable:
        raise TooFewRuns(
            f"{name}: no size and length has {FEWEST_POINTS} points of rate and batch within {reach:g} octaves of its "
            "best",
            hint="scalecli probe sweep --learning-rate A,B,C --batch-tokens D,E,F",
        )
    means = np.array([np.mean(list(grid.excess(reach).values())) for grid in usable])
    return {
        "recipe": name,
        "settings": len(usable),
        "best_loss": min(min(grid.losses.values()) for grid in usable),
        "sensitivity": _interval(means, interval, seed),
        "rate_octaves": float(np.mean([grid.good_octaves(0) for grid in usable])),
        "batch_octaves": float(np.mean([grid.good_octaves(1) for grid in usable])),
        "diverged": sum(grid.diverged for grid in grids),
    }


def _interval(means: Array, interval: float, seed: int) -> dict[str, float | None]:
    """The mean over settings, with resampled ends; one setting alone has none."""
    value = float(means.mean())
    if len(means) < 2:
        return {"value": value, "low": None, "high": None}
    drawn = np.random.default_rng(seed).choice(means, (BOOTSTRAP_DRAWS, len(means))).mean(axis=1)
    tail = (1 - interval) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail]).tolist()
    return {"value": value, "low": low, "high": high}


def _warnings(recipes: Mapping[str, Sequence[Grid]], reach: float) -> Iterator[tuple[str, str]]:
    spans = {name: {_span(grid.excess(reach)) for grid in grids} for name, grids in recipes.items()}
    if len({frozenset(each) for each in spans.values()}) > 1:
        yield (
            "W-GRIDS-DIFFER",
            f"within {reach:g} octaves of their best points the recipes were not tried equally far; add runs at the "
            "edges, or compare over fewer octaves with --reach",
        )


def _span(excess: Mapping[Point, float]) -> tuple[int, ...]:
    """Whole octaves that a grid reaches below and above its best point, along both axes."""
    return tuple(round(end(at[axis] for at in excess)) for axis in (0, 1) for end in (min, max))


def _octaves(value: float, reference: float) -> float:
    return math.log2(value / reference)
