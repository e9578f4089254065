"""Tables of steps to a target: the fewest over learning rates, for every target and batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scalecli.data.tables import RunTable
from scalecli.errors import DataError
from scalecli.fitters.identify import Notice
from scalecli.fitters.law import Array

HORIZON_FREE = ("constant", "cooldown")
"""Schedules whose readings depend on no horizon: a constant rate, and cooldowns that branch off it.

A decay fixed to one horizon is tuned for the steps of one batch, and so decides the result (Zhang et al. 2024,
2410.21676, section 2; Shallue et al. 2018 tuned it for every batch and target anew).
"""


@dataclass(frozen=True, slots=True)
class StepsToTarget:
    """Fewest steps to the loss `target` [nats/token] at each batch [tokens], arrays of shape (batches,).

    `unbracketed` are the batches whose best rate is the lowest or highest that was tried; None where the table has
    one rate for each batch, so that nothing is known.
    """

    target: float
    batch_tokens: Array
    steps: Array
    unbracketed: tuple[float, ...] | None


def steps_to_targets(table: RunTable) -> tuple[list[StepsToTarget], list[Notice]]:
    """One entry for each target, the highest loss first. Needs batch_tokens, steps, loss (the target).

    Rows that share target, batch and learning rate are seeds and are averaged. Raises `DataError` for schedules that
    decay to a fixed horizon, and for targets that are no targets (every row its own loss).
    """
    notices = _check_schedule(table)
    columns = table.columns(["batch_tokens", "steps", "loss"])
    rates = table.columns(["learning_rate"])["learning_rate"] if "learning_rate" in table.frame else None
    targets, label = np.unique(columns["loss"], return_inverse=True)
    if len(targets) > 1 and len(targets) == len(label):
        raise DataError(
            f"all {len(label)} rows have a loss of their own: steps to a target need rows that share their target",
            hint="scalecli probe critical-batch writes such a table",
        )
    found = []
    for index in np.argsort(-targets):
        rows = label == index
        rate = None if rates is None else rates[rows]
        found.append(
            _fewest(float(targets[index]), columns["batch_tokens"][rows], columns["steps"][rows], rate)
        )
    return found, notices + _rate_notices(found)


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


def _fewest(target: float, batch: Array, steps: Array, rate: Array | None) -> StepsToTarget:
    batches = np.unique(batch)
    rate = np.ones(len(batch)) if rate is None else rate
    tuned = [_best_rate(steps[batch == each], rate[batch == each]) for each in batches]
    known = any(count > 1 for _, _, count in tuned)
    edge = tuple(float(each) for each, (_, inside, _) in zip(batches, tuned, strict=True) if not inside)
    return StepsToTarget(
        target, batches, np.array([fewest for fewest, _, _ in tuned]), edge if known else None
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
