"""The rows of a grid in centred logs: the coordinates in which the joint forms are fitted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scalecli.fitters.landscape.settings import Settings
from scalecli.fitters.law import Array

OFF = -60.0
"""Logarithm of a factor that is left out."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Centred logs of params, tokens, batch and rate, (rows,) each, and where their centres lie."""

    params: Array
    tokens: Array
    batch: Array
    rate: Array
    centre: dict[str, float]

    @classmethod
    def of(cls, settings: Settings, centre: dict[str, float] | None = None) -> Grid:
        """`centre` keeps the centres of another grid, so that parameters fitted there mean the same here."""
        centre = centre or {
            "params": float(settings.log_params.mean()),
            "tokens": float(settings.log_tokens.mean()),
            "batch": float(np.average(settings.log_batch, weights=settings.weights())),
            "rate": float(np.average(settings.log_rate, weights=settings.weights())),
        }
        return cls(
            params=settings.log_params[settings.label] - centre["params"],
            tokens=settings.log_tokens[settings.label] - centre["tokens"],
            batch=settings.log_batch - centre["batch"],
            rate=settings.log_rate - centre["rate"],
            centre=centre,
        )


@dataclass(frozen=True, slots=True)
class Optimum:
    """Where a form has its minimum. Per quantity (draws, 3): log value at the centres, exponents by params and tokens.

    NaN for a draw without an optimum; `batch` is NaN throughout where the form leaves the batch out.
    """

    rate: Array
    batch: Array


def place(optimum: Optimum, grid: Grid, log_params: Array, log_tokens: Array) -> tuple[Array, Array]:
    """Log rate and log batch (draws, points) of an optimum at these points."""
    n, t = log_params - grid.centre["params"], log_tokens - grid.centre["tokens"]
    features = np.stack([np.ones_like(n), n, t])
    return optimum.rate @ features + grid.centre["rate"], optimum.batch @ features + grid.centre["batch"]
