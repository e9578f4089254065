"""Fits whose truth and uncertainty are known: a law, and draws scattered about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from scalecli.fitters.calibrate import Band
from scalecli.fitters.fit import Fit
from scalecli.fitters.law import parameters, values
from scalecli.fitters.laws.chinchilla import Chinchilla
from scalecli.fitters.laws.critical_batch import CriticalBatch
from scalecli.fitters.laws.critical_batch_loss import CriticalBatchLoss
from scalecli.fitters.laws.critical_batch_tokens import CriticalBatchTokens
from scalecli.fitters.laws.landscape_two_stage import LandscapeTwoStage
from scalecli.fitters.laws.noise_scale import NoiseScale
from scalecli.fitters.verdict import Status

LANDSCAPE = LandscapeTwoStage(
    E=1.7, A=400.0, alpha=0.34, B=1200.0, beta=0.31, lr_scale=100.0, lr_params=-0.55, lr_tokens=0.02,
    batch_scale=0.6, batch_params=0.0, batch_tokens=0.57, curvature_lr=0.02, curvature_cross=-0.006,
    curvature_batch=0.01,
)  # fmt: skip
LOSS = Chinchilla(E=1.7, A=400.0, B=1200.0, alpha=0.34, beta=0.31)
RUNS = {"params": (5e7, 4e8), "tokens": (1e9, 2.4e10), "flops": (3e17, 6e19)}
DRAWS = 200


def known_fit(
    law: Any,
    spread: float,
    domain: Mapping[str, tuple[float, float]] = RUNS,
    setup: Mapping[str, Any] | None = None,
) -> Fit:
    """A fit of exactly this law whose scale parameters scatter by `spread` in the logarithm."""
    scales = [mark.log for mark in parameters(type(law)).values()]
    scatter = np.random.default_rng(0).normal(0, spread, (DRAWS, len(scales))) * scales
    return Fit(
        law=law,
        draws=values(law) * np.exp(scatter),
        interval=0.9,
        objective={"name": "huber_log", "delta": 1e-3, "value": 0.0},
        status=Status.converged,
        convergence={"starts": 1, "agree": 1, "gradient_norm": 0.0},
        rows={"read": 100, "used": 100, "dropped": []},
        groups=10,
        domain={name: ends for name, ends in domain.items() if name in {*law.inputs, "flops"}},
        band=Band(np.zeros(DRAWS), 1.0),
        validation=None,
        warnings=(),
        diagnostics={},
        provenance={"seed": 0, "setup": dict(setup or {})},
    )


@pytest.fixture(scope="session")
def make_fit() -> Callable[..., Fit]:
    return known_fit


@pytest.fixture(scope="session")
def landscape() -> LandscapeTwoStage:
    return LANDSCAPE


@pytest.fixture(scope="session")
def loss_law() -> Chinchilla:
    return LOSS


@pytest.fixture(scope="session")
def fits() -> dict[str, Fit]:
    """One for each question that a plan asks."""
    return {
        "landscape": known_fit(
            LANDSCAPE, 0.02, {**RUNS, "batch_tokens": (2e4, 1e6), "learning_rate": (1e-4, 1e-2)}
        ),
        "loss": known_fit(LOSS, 0.01),
        "critical_tokens": known_fit(CriticalBatchTokens(c=20.0, b=0.47), 0.1),
        "critical_loss": known_fit(CriticalBatchLoss(B_star=2e8, alpha=0.21), 0.1, {"loss": (2.4, 4.0)}),
        "critical": known_fit(CriticalBatch(S_min=3000.0, B_crit=5e5), 0.1, {"batch_tokens": (3e4, 8e6)}),
        "noise_scale": known_fit(NoiseScale(B_star=2e6, alpha=0.21), 0.1, {"loss": (2.4, 4.0)}),
    }


@pytest.fixture(scope="session")
def fits_named(fits: dict[str, Fit]) -> Callable[[set[str]], list[Fit]]:
    """Several of them; a function, because Hypothesis prints its arguments."""
    return lambda names: [fits[name] for name in sorted(names)]
