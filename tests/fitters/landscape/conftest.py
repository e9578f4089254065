"""Small grids of runs from a known landscape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from scalecli.fitters.law import Array
from scalecli.fitters.laws.landscape_two_stage import LandscapeTwoStage

QUADRATIC = LandscapeTwoStage(
    E=1.7,
    A=400.0,
    alpha=0.34,
    B=1000.0,
    beta=0.35,
    lr_scale=30.0,
    lr_params=-0.6,
    lr_tokens=0.2,
    batch_scale=0.6,
    batch_params=0.0,
    batch_tokens=0.57,
    curvature_lr=0.02,
    curvature_cross=-0.008,
    curvature_batch=0.015,
)

TARGET = {"params": 7e9, "tokens": 1.4e11}

RATES, BATCHES = np.linspace(-2, 2, 9), np.linspace(-2, 2, 7)


def make_grid(
    law: Any,
    *,
    sizes: tuple[float, ...] = (6e7, 1.2e8, 2.5e8, 5e8),
    ratios: tuple[float, ...] = (10, 30, 100),
    rates: Array = RATES,
    batches: Array = BATCHES,
    shift: float = 0.5,
    noise: float = 0.0,
    seed: int = 0,
) -> tuple[dict[str, Array], Array]:
    """Runs at log offsets `rates` x `batches` from each setting's optimum, moved by up to `shift`."""
    rng = np.random.default_rng(seed)
    rows = []
    for params in sizes:
        for tokens in (params * ratio for ratio in ratios):
            rate = law.optimal_learning_rate(params, tokens) * np.exp(rates + rng.uniform(-shift, shift))
            batch = law.optimal_batch_tokens(params, tokens) * np.exp(batches + rng.uniform(-shift, shift))
            rows += [(params, tokens, b, r) for r in rate for b in batch]
    x = dict(zip(("params", "tokens", "batch_tokens", "learning_rate"), np.array(rows).T, strict=True))
    return x, law.predict(x) + noise * rng.standard_normal(len(rows))


@pytest.fixture
def grid() -> Callable[..., tuple[dict[str, Array], Array]]:
    return make_grid


@pytest.fixture
def quadratic() -> LandscapeTwoStage:
    return QUADRATIC


@pytest.fixture
def target() -> dict[str, float]:
    return TARGET
