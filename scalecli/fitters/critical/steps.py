"""Tables of steps to a target: the fewest over learning rates, for every target and batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scalecli.data.notes import Notice
from scalecli.data.tables import RunTable
from scalecli.errors import DataError
from scalecli.fitters.law import Array, Columns

HORIZON_FREE = ("constant", "cooldown")
"""Schedules whose readings depend on no horizon: a constant rate, and cooldowns that branch off it.

A decay fixed to one horizon is tuned for the steps of one batch, and so decides the result (Zhang et al. 2024,
2410.21676, section 2; Shallue et al. 2018 tuned it for every batch and target anew).
"""


@dataclass(frozen=True, slots=True)
class StepsToTarget:
    """Fewest steps to the loss `target` [nats/token] at each batch [tokens], arrays of shape (batches,).

    `unbracketed` are the batches whose best rate is the lowest or highest that was tried; None where the table has
    one rate for each batch, so that nothing is known. `params` is the size of the model where the table says it, and
    `seeded` whether some batch and rate was trained more than once.
    """

    target: float
    batch_tokens: Array
    steps: Array
    unbracketed: tuple[float, ...] | None
    params: float | None = None
    seeded: bool = False


def steps_to_targets(table: RunTable) -> tuple[list[StepsToTarget], list[Notice]]:
    """One entry for each size and target, the smallest and the highest loss first. Needs batch_tokens, steps, loss (the
    target); models of several sizes are told apart by params.

    Rows that share target, batch and learning rate are seeds and are averaged. Raises `DataError` for schedules that
    decay to a fixed horizon, and for targets that are no targets (every row its own loss).
    """
    notices = _check_schedule(table)
    optional = [name for name in ("params", "learning_rate") if name in table.frame]
    columns = table.columns(["batch_tokens", "steps", "loss", *optional])
    loss = columns["loss"]
    if 1 < len(loss) == len(np.unique(loss)):
        raise DataError(
            f"all {len(loss)} rows have a loss of their own: steps to a target need rows that share their target",
            hint="scalecli probe critical-batch writes such a table",
        )
    sizes = columns.get("params", np.zeros(len(loss)))
    found = [
        _fewest({name: column[(sizes == size) & (loss == target)] for name, column in columns.items()})
        for size in np.unique(sizes)
        for target in np.unique(loss[sizes == size])[::-1]
    ]
    return found, notices + _rate_notices(found) + _seed_notices(found)


def _check_schedule(table: RunTable) -> list[Notice]:
    if "schedule" not in table.frame:
        message = "the table does not say the schedule: steps to a target mean nothing under a decay of fixed horizon"
        return [Notice("W-SCHEDULE-UNKNOWN", message)]
    decaying = sorted({str(name) for name in table.frame["schedule"]} - set(HORIZON_FREE))
    if decaying:
        raise DataError(
            f"runs with the schedule {', '.join(decaying)}: a decay of fixed horizon is tuned for one number of steps, "
            "so that steps to a target say nothing about the batch",
            hint="train at a constant rate with averaged weights, or with cooldowns that branch off it",
        )
    return []


def _fewest(columns: Columns) -> StepsToTarget:
    """From the rows of one size and target."""
    batch, steps = columns["batch_tokens"], columns["steps"]
    rate = columns.get("learning_rate", np.ones(len(batch)))
    batches = np.unique(batch)
    tuned = [_best_rate(steps[batch == each], rate[batch == each]) for each in batches]
    known = any(count > 1 for _, _, count in tuned)
    edge = tuple(float(each) for each, (_, inside, _) in zip(batches, tuned, strict=True) if not inside)
    return StepsToTarget(
        target=float(columns["loss"][0]),
        batch_tokens=batches,
        steps=np.array([fewest for fewest, _, _ in tuned]),
        unbracketed=edge if known else None,
        params=float(columns["params"][0]) if "params" in columns else None,
        seeded=len(batch) > sum(count for _, _, count in tuned),
    )


def _best_rate(steps: Array, rate: Array) -> tuple[float, bool, int]:
    """(fewest steps, whether their rate lies between others that were tried, number of rates)."""
    rates = np.unique(rate)
    mean = np.array([steps[rate == each].mean() for each in rates])
    best = int(mean.argmin())
    return float(mean[best]), 0 < best < len(rates) - 1, len(rates)


def _rate_notices(found: Sequence[StepsToTarget]) -> list[Notice]:
    if all(each.unbracketed is None for each in found):
        return [
            Notice(
                "W-RATE-UNKNOWN", "one learning rate for each batch: whether it is the best is not known here"
            )
        ]
    edges = sorted({batch for each in found for batch in each.unbracketed or ()})
    if not edges:
        return []
    listed = ", ".join(f"{batch:g}" for batch in edges)
    message = f"at batches of {listed} tokens the best learning rate is the lowest or highest tried: add rates there"
    return [Notice("W-RATE-EDGE", message)]


def _seed_notices(found: Sequence[StepsToTarget]) -> list[Notice]:
    if any(each.seeded for each in found):
        return []
    message = "one run for each batch and rate: the scatter about the curve alone tells the noise of seeds"
    return [Notice("W-ONE-SEED", message)]
