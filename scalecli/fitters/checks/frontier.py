"""The tuned frontier: the best run of every size and length, which is what a law over size and length describes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalecli.data.notes import Notice
from scalecli.data.tables import RunTable
from scalecli.fitters.landscape.settings import label_settings
from scalecli.fitters.law import measured_column, required_columns

KNOBS = ("learning_rate", "batch_tokens")
"""What a sweep varies at one size and length, and a law of size and length does not read."""


def best_of_settings(runs: RunTable) -> RunTable:
    """The run of least loss at every setting (params, tokens, replicas); the others are dropped and counted."""
    label = _settings(runs)
    loss = runs.columns(["loss"])["loss"]
    order = np.lexsort((loss, label))
    best = np.zeros(len(runs), dtype=bool)
    best[order[np.unique(label[order], return_index=True)[1]]] = True
    return runs.only(best, "not the best run of its params and tokens")


def untuned_runs(runs: RunTable, law: type[Any]) -> Iterator[Notice]:
    """A warning when a loss law without learning rate and batch is fitted to runs that sweep them."""
    known = _complete(runs)
    reads_knobs = set(KNOBS) & set(required_columns(law))
    if measured_column(law) != "loss" or reads_knobs or not {"params", "tokens", *KNOBS} <= known:
        return
    settings = int(_settings(runs).max()) + 1
    tried = len(runs.frame[list(KNOBS)].drop_duplicates())
    if len(runs) > 2 * settings and tried > 2:
        yield Notice(
            "W-UNTUNED-RUNS",
            f"{len(runs)} runs stand for {settings} settings of params and tokens, with {tried} pairs of learning rate "
            "and batch: the law goes through badly tuned runs too; --tuned keeps the best of each setting",
        )


def _settings(runs: RunTable) -> NDArray[np.intp]:
    """Each run's setting as a number: params, tokens and, where replicas train apart, how many do.

    Tokens are compared roughly, because whole steps of different batches round them differently.
    """
    label = label_settings(runs.columns(["params", "tokens"]))
    if "replicas" not in _complete(runs):
        return label
    replicas = runs.columns(["replicas"])["replicas"]
    return np.unique(np.stack([label, replicas], axis=-1), axis=0, return_inverse=True)[1].reshape(-1)


def _complete(runs: RunTable) -> set[str]:
    """Columns of positive numbers without gaps."""
    return {name for name, (low, _) in runs.domain.items() if low > 0}
