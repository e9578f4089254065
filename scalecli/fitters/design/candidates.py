"""Runs that could be trained next, and what each costs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from scalecli.errors import DataError
from scalecli.fitters.compare.curve import FLOPS_PER_PARAM_TOKEN
from scalecli.fitters.domain import SIZES
from scalecli.fitters.fit import Fit
from scalecli.fitters.law import Array
from scalecli.fitters.problem import Indices, Mask

REACH = 10.0
"""Sizes and tokens go this far beyond the runs; the budget ends them long before in most cases."""

RATIOS = (1.0, 1000.0)
"""Tokens per parameter that anybody trains proxies at."""

AROUND = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Multiples of the current optimum at which batch and learning rate are tried."""

LEVELS = {1: 60, 2: 16, 3: 8}
"""Levels of each axis, by how many axes are spread; more axes get five."""


@dataclass(frozen=True)
class Candidates:
    """Runs as columns of the law's inputs, each of shape (runs,), and their training FLOPs."""

    columns: dict[str, Array]
    flops: Array

    def __len__(self) -> int:
        return len(self.flops)

    def take(self, rows: Indices | Mask) -> Candidates:
        return Candidates({name: column[rows] for name, column in self.columns.items()}, self.flops[rows])


def candidates_for(fit: Fit, most_flops: float) -> Candidates:
    """A grid over the runs' domain and beyond it, of runs that cost at most `most_flops` each.

    Raises `DataError` when the law's inputs do not say what a run costs, or the budget is below any run.
    """
    tuned = hasattr(fit.law, "optimal_learning_rate")
    spread = [
        name for name in fit.law.inputs if name != "flops" and not (tuned and name not in (*SIZES, "tokens"))
    ]
    count = LEVELS.get(len(spread), 5)
    axes = [np.geomspace(*_reach(fit, name), count) for name in spread]
    grid = np.array(list(product(*axes))).T
    columns = dict(zip(spread, grid, strict=True))
    found = with_cost(fit, tune(fit, columns, AROUND) if tuned else columns)
    return _affordable(found, most_flops)


def with_cost(fit: Fit, columns: dict[str, Array]) -> Candidates:
    """These runs and their FLOPs, 6 N D; `DataError` when the columns do not say."""
    size = next((columns[name] for name in SIZES if name in columns), None)
    tokens = columns.get("tokens")
    if tokens is None and {"steps", "batch_tokens"} <= columns.keys():
        tokens = columns["steps"] * columns["batch_tokens"]
    if size is None or tokens is None:
        raise DataError(
            f"{fit.law.name} reads {', '.join(fit.law.inputs)}, which does not say what a run costs",
            hint="design from a fit over params and tokens, such as chinchilla",
        )
    flops = FLOPS_PER_PARAM_TOKEN * size * tokens
    return Candidates(columns | ({"flops": flops} if "flops" in fit.law.inputs else {}), flops)


def tune(fit: Fit, columns: dict[str, Array], around: tuple[float, ...] = (1.0,)) -> dict[str, Array]:
    """Every run at these multiples of its optimal batch and learning rate, for a landscape; else as it is."""
    law = fit.law
    if not hasattr(law, "optimal_learning_rate"):
        return columns
    rate = law.optimal_learning_rate(columns["params"], columns["tokens"])
    low, high = fit.domain["batch_tokens"]
    varied = low < high
    batch = (
        law.optimal_batch_tokens(columns["params"], columns["tokens"]) if varied else np.full_like(rate, low)
    )
    parts = [
        {**columns, "learning_rate": rate * by_rate, "batch_tokens": batch * by_batch}
        for by_rate in around
        for by_batch in (around if varied else (1.0,))
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _reach(fit: Fit, name: str) -> tuple[float, float]:
    low, high = fit.domain[name]
    if low <= 0:
        raise DataError(f"{name} is {low:g} in some run: a design spreads positive columns only")
    return (low, high * REACH) if name in (*SIZES, "tokens", "steps") else (low / 2, high * 2)


def _affordable(found: Candidates, most_flops: float) -> Candidates:
    keep = found.flops <= most_flops
    size = next((found.columns[name] for name in SIZES if name in found.columns), None)
    if size is not None and "tokens" in found.columns:
        ratio = found.columns["tokens"] / size
        keep &= (ratio >= RATIOS[0]) & (ratio <= RATIOS[1])
    if not keep.any():
        raise DataError(
            f"the cheapest run of the design costs {found.flops.min():.3g} FLOPs, one may take {most_flops:.3g}",
            hint="raise --budget",
        )
    return found.take(keep)
