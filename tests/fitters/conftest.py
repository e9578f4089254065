"""Runs made from known laws, and public runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from scalecli.fitters.law import Array
from scalecli.fitters.laws.chinchilla import Chinchilla

DATA = Path(__file__).parents[1] / "data"
TRUTH = Chinchilla(E=1.82, A=480.0, B=2100.0, alpha=0.348, beta=0.366)

Runs = tuple[dict[str, Array], Array, NDArray[np.intp]]


@pytest.fixture(scope="session")
def public() -> Callable[[str], pd.DataFrame]:
    return lambda name: pd.read_csv(DATA / name)


@pytest.fixture(scope="session")
def truth() -> Chinchilla:
    return TRUTH


@pytest.fixture(scope="session")
def make_runs() -> Callable[..., Runs]:
    """Runs of `models` sizes with errors of their own (sd 0.6 %) besides heavy-tailed noise: columns, loss, model."""

    def make(
        seed: int = 0, models: int = 30, rows: int = 240, shared: float = 0.006, own: float = 0.003
    ) -> Runs:
        random = np.random.default_rng(seed)
        model = np.sort(np.arange(rows) % models)
        size = np.exp(random.uniform(np.log(5e7), np.log(1.5e10), models))[model]
        flops = np.exp(random.uniform(np.log(5e18), np.log(3e21), rows))
        x = {"params": size, "tokens": flops / 6 / size}
        error = shared * random.standard_normal(models)[model] + own * random.standard_t(4, rows)
        return x, TRUTH.predict(x) * np.exp(error), model

    return make


@pytest.fixture(scope="session")
def runs(make_runs: Callable[..., Runs]) -> Runs:
    return make_runs()
