"""Runs that could be trained next, and what each costs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from scalecli.errors import DataError
from scalecli.fitters.compare.curve import FLOPS_PER_PARAM_TOKEN
from scalecli.fitters.domain import SIZES
from scalecli.fitters.fit import Fit
from scalecli.fitters.landscape.tuned import KNOBS, has_optimum
from scalecli.fitters.law import Array
from scalecli.fitters.problem import Indices, Mask

REACH = 10.0
"""Sizes and tokens go this far beyond the runs; the budget ends them long before in most cases."""

RATIOS = (1.0, 1000.0)
"""Tokens per parameter that anybody trains proxies at."""

AROUND = (1 / 3, 1.0, 3.0)
"""Multiples of the current optimum that a landscape's grid has: wide enough to bracket the true one, and three, so
that a setting shows its own vertex (a single run would only show its own floor)."""

LEVELS = {1: 60, 2: 16, 3: 8}
"""Levels of each axis, by how many axes are spread; more axes get five."""


@dataclass(frozen=True)
class Candidates:
    """Settings that could be trained: one run each, or for a landscape one grid of learning rates and batches.

    `columns` are the law's inputs, each of shape (settings, runs of a setting); `flops` (settings,) is what
    training a whole setting takes.
    """

    columns: dict[str, Array]
    flops: Array

    def __len__(self) -> int:
        return len(self.flops)

    def take(self, settings: Indices | Mask) -> Candidates:
        columns = {name: column[settings] for name, column in self.columns.items()}
        return Candidates(columns, self.flops[settings])

    def sizes(self) -> Array:
        """The model size of every run, (settings, runs of a setting)."""
        return next(self.columns[name] for name in SIZES if name in self.columns)

    def runs(self) -> list[dict[str, float]]:
        """Every run with its FLOPs, setting by setting."""
        each = {**self.columns, "flops": np.broadcast_to(self.flops[:, None], self.sizes().shape)}
        count = self.sizes().shape[1]
        return [
            {name: float(column[i, j]) / (count if name == "flops" else 1) for name, column in each.items()}
            for i in range(len(self))
            for j in range(count)
        ]


def candidates_for(fit: Fit, most_flops: float) -> Candidates:
    """A grid over the runs' domain and beyond it, of settings that cost at most `most_flops` each.

    Raises `DataError` when the law's inputs do not say what a run costs, or the budget is below any setting.
    """
    tuned = KNOBS if has_optimum(fit.law) else ()
    spread = [name for name in fit.law.inputs if name not in ("flops", *tuned)]
    axes = [np.geomspace(*_reach(fit, name), LEVELS.get(len(spread), 5)) for name in spread]
    grid = np.array(list(product(*axes))).T
    return _affordable(settings_at(fit, dict(zip(spread, grid, strict=True))), most_flops)


def settings_at(fit: Fit, columns: dict[str, Array]) -> Candidates:
    """Settings at these sizes and data, (settings,) each; `DataError` when these do not say what a run costs."""
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
    if "flops" in fit.law.inputs:
        columns = columns | {"flops": flops}
    count = runs_of_a_setting(fit)
    whole = {name: np.repeat(column[:, None], count, axis=1) for name, column in columns.items()}
    return Candidates(whole | (_around(fit, columns) if has_optimum(fit.law) else {}), flops * count)


def runs_of_a_setting(fit: Fit) -> int:
    """How many runs a setting has: one, or a landscape's grid."""
    return (len(AROUND) ** (2 if _varied_batch(fit) else 1)) if has_optimum(fit.law) else 1


def _around(fit: Fit, columns: dict[str, Array]) -> dict[str, Array]:
    """Learning rates and batches around the optimum of each setting, (settings, runs)."""
    place = columns["params"], columns["tokens"]
    rates, batches = np.meshgrid(AROUND, AROUND if _varied_batch(fit) else (1.0,))
    batch = (
        fit.law.optimal_batch_tokens(*place)
        if _varied_batch(fit)
        else np.full_like(place[0], fit.domain["batch_tokens"][0])
    )
    return {
        "learning_rate": fit.law.optimal_learning_rate(*place)[:, None] * rates.ravel(),
        "batch_tokens": batch[:, None] * batches.ravel(),
    }


def _varied_batch(fit: Fit) -> bool:
    low, high = fit.domain["batch_tokens"]
    return low < high


def _reach(fit: Fit, name: str) -> tuple[float, float]:
    low, high = fit.domain[name]
    if low <= 0:
        raise DataError(f"{name} is {low:g} in some run: a design spreads positive columns only")
    return (low, high * REACH) if name in (*SIZES, "tokens", "steps") else (low / 2, high * 2)


def _affordable(found: Candidates, most_flops: float) -> Candidates:
    keep = found.flops <= most_flops
    if "tokens" in found.columns:
        ratio = (found.columns["tokens"] / found.sizes())[:, 0]
        keep &= (ratio >= RATIOS[0]) & (ratio <= RATIOS[1])
    if not keep.any():
        raise DataError(
            f"the cheapest setting of the design costs {found.flops.min():.3g} FLOPs, one may take {most_flops:.3g}",
            hint="raise --budget",
        )
    return found.take(keep)
