"""What can be said about runs before a law is fitted to them: refusals and warnings."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import combinations
from typing import Any

import numpy as np

from scalecli.data.notes import Notice
from scalecli.errors import DataError, NotIdentified, TooFewRuns
from scalecli.fitters.law import (
    Array,
    Columns,
    EstimatedLaw,
    GridLaw,
    PowerSum,
    measured_column,
    names,
)

TIED_SPREAD = 0.05
"""Two columns whose logs follow one line to within this standard deviation (5 %) are one column for a law."""

TIED_CORRELATION = 0.98
SCALE_AXES = {"params", "params_non_embedding", "params_active", "tokens"}
"""Columns whose effects every law that reads both must tell apart."""

ALWAYS_POSITIVE = SCALE_AXES | {"flops"}
SMALLEST, LARGEST = 1e-100, 1e100
"""No run has values beyond these, and products of several still fit a double."""

FEW_LEVELS = 3
SAME_LEVEL = 0.01
"""Values of a column within 1 % of each other are one level."""


def check_runs(
    law: type[Any], x: Columns, y: Array, pinned: Collection[str], diverged: Columns | None = None
) -> list[Notice]:
    """Raise what makes a fit impossible; return what makes it weak. `diverged` are the inputs of runs that did.

    Raises `DataError` (a value no law can take), `TooFewRuns`, or `NotIdentified` (a column that never
    varies, or two that vary only together, where the law needs them apart).
    """
    _check_values(law, x, y)
    _check_count(law, x, y, pinned)
    if isinstance(law, EstimatedLaw):
        return _grid_notices(law, x, y, diverged) if isinstance(law, GridLaw) else []
    notices = list(_few_levels(law, x)) if not pinned else []
    return notices + list(_tied_columns(law, x, pinned))


def _grid_notices(law: type[GridLaw], x: Columns, y: Array, diverged: Columns | None) -> list[Notice]:
    if diverged is None:
        return law.notices(x, y)
    both = {name: np.concatenate([column, diverged[name]]) for name, column in x.items()}
    return law.notices(both, np.concatenate([y, np.full(len(both["params"]) - len(y), np.inf)]))


def levels(column: Array, most: int = FEW_LEVELS + 1) -> int:
    """How many different values a column has, each more than 1 % above the one before; counted up to `most`.

    >>> levels(np.array([1e8, 1.001e8, 3e8, 3e8]))
    2
    """
    ordered = np.sort(column)
    found, place = 0, 0
    while place < len(ordered) and found < most:
        found += 1
        place = int(np.searchsorted(ordered, ordered[place] + SAME_LEVEL * abs(ordered[place]), side="right"))
    return found


def _check_values(law: type[Any], x: Columns, y: Array) -> None:
    measured = measured_column(law)
    for name, column in {**x, measured: y}.items():
        odd = ~np.isfinite(column) | (np.abs(column) > LARGEST)
        if odd.any():
            row = int(np.flatnonzero(odd)[0])
            raise DataError(
                f"{name} is {column[row]:g} in row {row + 1} of the runs to fit: no finite number of any use",
                hint="check the column's units, or leave such rows out with --where",
            )
    above = {measured, *_powered(law), *(name for name in x if name in ALWAYS_POSITIVE)}
    for name in sorted(above):
        column = y if name == measured else x[name]
        if (column < SMALLEST).any():
            row = int(np.flatnonzero(column < SMALLEST)[0])
            raise DataError(
                f"{name} is {column[row]:g} in row {row + 1} of the runs to fit: its logarithm is needed",
                hint=f"leave such rows out: --where '{name} > 0'",
            )


def _check_count(law: type[Any], x: Columns, y: Array, pinned: Collection[str]) -> None:
    free = len(names(law)) - len(pinned)
    if len(y) < free + 1:
        raise TooFewRuns(
            f"{law.name} has {free} free parameters; got {len(y)} usable runs, need at least {free + 1}",
            hint="train more proxies (scalecli design says which), or fit a law with fewer parameters",
        )
    if isinstance(law, EstimatedLaw):
        return
    points = _different_points(np.stack([x[name] for name in law.inputs], axis=1), free)
    if points < free:
        raise NotIdentified(
            f"{law.name} has {free} free parameters; {len(y)} runs lie at only {points} different points of "
            f"({', '.join(law.inputs)})",
            hint="repeated settings tell the noise, not the law: vary the inputs",
        )


def _different_points(settings: Array, enough: int) -> int:
    """How many different rows (rows, inputs) there are; no more are looked for than are enough."""
    # sorting a large table takes long, and its beginning nearly always suffices
    found = len(np.unique(settings[:1000], axis=0))
    return found if found >= enough else len(np.unique(settings, axis=0))


def _powered(law: type[Any]) -> list[str]:
    """The columns that a sum of powers raises to a power."""
    if not isinstance(law, PowerSum):
        return []
    return list(dict.fromkeys(column for term in law.terms for column, _, _ in term.powers()))


def _few_levels(law: type[Any], x: Columns) -> Iterator[Notice]:
    """Levels of each axis: as many as its term has parameters, counting a floor it must be told from."""
    floor = isinstance(law, PowerSum) and any(not term.powers() for term in law.terms)
    for name in law.inputs:
        if np.isin(x[name], (0.0, 1.0)).all():  # says which arm a run belongs to
            continue
        found = levels(x[name])
        needed = FEW_LEVELS if floor else 2
        if isinstance(law, PowerSum) and name in _powered(law) and found < needed:
            raise NotIdentified(
                f"{name} takes {_counted(found)} in the runs; {law.name} needs at least {needed} to tell its "
                f"exponent{' from the floor' if floor else ''}",
                hint=f"train proxies at other values of {name}",
            )
        if found <= FEW_LEVELS:
            yield Notice(
                "W-FEW-LEVELS", f"{name} takes only {_counted(found)}: nothing checks the law's shape there"
            )


def _counted(found: int) -> str:
    return f"{found} value" if found == 1 else f"{found} different values"


def _tied_columns(law: type[Any], x: Columns, pinned: Collection[str]) -> Iterator[Notice]:
    """Columns that hardly vary, and pairs that vary only together, such as params and tokens at a fixed
    ratio."""
    logs = {name: np.log(x[name]) for name in law.inputs if (x[name] > 0).all() and levels(x[name]) > 1}
    for first, second in combinations(logs, 2):
        a, b = logs[first], logs[second]
        needed = isinstance(law, PowerSum) or {first, second} <= SCALE_AXES
        for name, column in ((first, a), (second, b)):
            if column.std() < TIED_SPREAD and needed and not pinned:
                raise NotIdentified(
                    f"{name} varies by only {column.std():.1%} over the runs; {law.name} cannot tell what it does",
                    hint=f"train proxies at other values of {name}",
                )
        correlation = float(np.corrcoef(a, b)[0, 1])
        spread = float(b.std() * np.sqrt(max(1 - correlation**2, 0.0)))
        if spread < TIED_SPREAD and needed and not pinned:
            slope = correlation * b.std() / a.std()
            raise NotIdentified(
                f"{second} follows {first}^{slope:.2f} to within {spread:.1%} in all runs; {law.name} cannot tell "
                "their effects apart",
                hint=f"train proxies at other ratios of {second} to {first} (a factor of 4 apart helps most)",
            )
        if abs(correlation) > TIED_CORRELATION:
            yield Notice(
                "W-TIED-INPUTS",
                f"log {first} and log {second} are correlated to {correlation:.3f}: their exponents are poorly "
                "determined",
            )
