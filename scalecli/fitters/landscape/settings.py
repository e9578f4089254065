"""The rows of a batch and learning-rate grid by setting: one model on one number of tokens, but for rounding."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from scalecli.errors import NotIdentified, TooFewRuns
from scalecli.fitters.law import Array, Columns

WINDOW = 0.15
"""Rows further above their setting's best than this say nothing about its optimum [nats/token]."""

SOFTNESS = 0.02
"""Distance above the best at which a row's weight has fallen to 1/e [nats/token]."""

VARIANT = "variant"
"""Optional column: numbers what else tells settings apart, such as experts or a dataset."""

ROUNDING = 0.05
"""Whole steps of a large batch round the tokens of one setting by up to this fraction."""


@dataclass(frozen=True, slots=True, eq=False)
class Settings:
    """A grid in logs. `label` (rows,): the row's setting; `log_params`, `log_tokens`, `best`: (settings,).

    Grids of equal runs are equal, so that what was fitted to one can be remembered.
    """

    label: NDArray[np.intp]
    log_params: Array
    log_tokens: Array
    log_batch: Array
    log_rate: Array
    loss: Array
    best: Array

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Settings) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)

    @property
    def _content(self) -> tuple[bytes, ...]:
        return tuple(getattr(self, field.name).tobytes() for field in fields(self))

    @property
    def count(self) -> int:
        return self.best.size

    @property
    def height(self) -> Array:
        """Nats above the best run of the setting, (rows,)."""
        return self.loss - self.best[self.label]

    def weights(self) -> Array:
        """Smooth row weights (rows,), zero outside the window; they sum to one in every setting."""
        near = np.exp(-np.abs(self.height) / SOFTNESS) * (np.abs(self.height) <= WINDOW)
        return near / np.bincount(self.label, near, self.count)[self.label]

    def select(self, rows: NDArray[np.bool_]) -> Settings:
        """The grid of some rows only; settings without any are gone."""
        kept, label = np.unique(self.label[rows], return_inverse=True)
        return Settings(
            label=label,
            log_params=self.log_params[kept],
            log_tokens=self.log_tokens[kept],
            log_batch=self.log_batch[rows],
            log_rate=self.log_rate[rows],
            loss=self.loss[rows],
            best=self.best[kept],
        )


def group_settings(x: Columns, y: Array) -> Settings:
    """Group finished runs by setting.

    Raises `TooFewRuns` below five runs and `NotIdentified` when no setting was trained at two learning rates.
    """
    if y.size < 5:
        raise TooFewRuns(f"a landscape needs at least 5 finished runs, there are {y.size}", hint=_SWEEP)
    label = label_settings(x)
    count = int(label.max()) + 1
    log_rate = np.log(x["learning_rate"])
    if max(np.unique(log_rate[label == s]).size for s in range(count)) < 2:
        raise NotIdentified(
            f"none of the {count} (params, tokens) settings was trained at two learning rates", hint=_SWEEP
        )
    return Settings(
        label=label,
        log_params=_means(label, np.log(x["params"])),
        log_tokens=_means(label, np.log(x["tokens"])),
        log_batch=np.log(x["batch_tokens"]),
        log_rate=log_rate,
        loss=y,
        best=np.array([_lowest_supported(y[label == s]) for s in range(count)]),
    )


_SWEEP = "scalecli probe sweep with several --learning-rate and --batch-tokens at every size"


def label_settings(x: Columns) -> NDArray[np.intp]:
    """Setting numbers (rows,), ordered by params, then variant, then tokens."""
    log_params, log_tokens = np.log(x["params"]), np.log(x["tokens"])
    variant = x.get(VARIANT, np.zeros(log_params.size))
    order = np.lexsort((log_tokens, variant, np.round(log_params, 9)))
    new_model = (np.abs(np.diff(log_params[order])) > 1e-9) | (np.diff(variant[order]) != 0)
    new_length = np.diff(log_tokens[order]) > np.log1p(ROUNDING)
    label = np.empty(order.size, dtype=np.intp)
    label[order] = np.concatenate([[0], np.cumsum(new_model | new_length)])
    return label


def _means(label: NDArray[np.intp], value: Array) -> Array:
    return np.bincount(label, value) / np.bincount(label)


def _lowest_supported(loss: Array) -> float:
    """The lowest loss with a tenth of the runs in the window above it: a few far below the rest are wrong."""
    ranked = np.sort(loss)
    support = np.searchsorted(ranked, ranked + WINDOW, side="right") - np.arange(ranked.size) - 1
    return float(ranked[np.argmax(support >= max(1, ranked.size // 10))])
