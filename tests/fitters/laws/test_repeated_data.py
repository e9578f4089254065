"""The data-constrained law on the runs of Muennighoff et al. 2023: their constants, and how little they are worth."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

import numpy as np
import pandas as pd
import pytest

from scalecli.data.catalogue import published_law
from scalecli.fitters.fit import FitOptions, fit_law
from scalecli.fitters.law import with_values
from scalecli.fitters.laws.repeated_data import RepeatedData
from scalecli.fitters.objective import LossName, row_loss

Public = Callable[[str], pd.DataFrame]
Runs = tuple[dict[str, np.ndarray], np.ndarray]

PUBLISHED = RepeatedData(**published_law("muennighoff").values)
BASE = {name: getattr(PUBLISHED, name) for name in ("E", "A", "B", "alpha", "beta")}


@pytest.fixture(name="runs")
def _runs(public: Public) -> Runs:
    """The 182 runs of the published fit."""
    frame = public("repeated_data/runs.csv").query("in_published_fit == 1")
    columns = {name: frame[name].to_numpy(float) for name in RepeatedData.inputs}
    return columns, frame.loss.to_numpy()


def _objective(law: RepeatedData, x: dict[str, np.ndarray], loss: np.ndarray) -> float:
    residual = np.log(law.predict(x) / loss)
    return float(row_loss(LossName.huber, 1e-3).pieces(residual).value.sum())


def _r_squared(law: RepeatedData, x: dict[str, np.ndarray], loss: np.ndarray) -> float:
    return float(1 - ((loss - law.predict(x)) ** 2).sum() / ((loss - loss.mean()) ** 2).sum())


def test_published_constants_give_the_published_figures(runs: Runs) -> None:
    """Objective and R^2 as printed in the authors' notebook, with and without the decay of repetitions."""
    assert len(runs[1]) == 182
    assert _objective(PUBLISHED, *runs) == pytest.approx(0.0158259, rel=1e-5)
    assert _r_squared(PUBLISHED, *runs) == pytest.approx(0.7722, abs=5e-5)
    no_decay = RepeatedData(**BASE, R_data=1e9, R_params=1e9)
    assert _r_squared(no_decay, *runs) == pytest.approx(0.4452, abs=5e-5)


def test_the_usable_size_is_the_chinchilla_optimum(runs: Runs) -> None:
    size = np.geomspace(1e5, 1e9, 400_001)
    flops = 6 * 1e8 * PUBLISHED._best_params(1e8)
    loss = PUBLISHED.A * size**-PUBLISHED.alpha + PUBLISHED.B * (flops / 6 / size) ** -PUBLISHED.beta
    assert PUBLISHED._best_params(1e8) == pytest.approx(5_098_652, rel=1e-6)
    assert size[loss.argmin()] == pytest.approx(PUBLISHED._best_params(1e8), rel=1e-3)


def test_the_published_pair_is_a_local_minimum_and_poorly_determined(runs: Runs) -> None:
    """A wider search ends far away, at a slightly lower objective, and the intervals say how little is known."""
    fit = fit_law(RepeatedData, *runs, options=FitOptions(pins=BASE, draws=200, diagnose=False))
    assert fit.law.R_data == pytest.approx(95.4, rel=0.01)
    assert fit.law.R_params == pytest.approx(1.71, rel=0.01)
    assert fit.objective["value"] == pytest.approx(0.0158047, rel=1e-5)
    assert _objective(PUBLISHED, *runs) < 1.002 * fit.objective["value"]
    for name in ("R_data", "R_params"):
        interval = fit.query(attrgetter(name))
        assert interval.low is not None
        assert interval.high is not None
        assert interval.high > 3 * interval.low
    decay = fit.query(lambda law: law.R_data)
    assert decay.low is not None
    assert decay.low < PUBLISHED.R_data


def test_the_search_finds_the_published_minimum_when_told_where(runs: Runs) -> None:
    """With R_params held at its published value, R_data comes out at the authors' value."""
    fit = fit_law(
        RepeatedData,
        *runs,
        options=FitOptions(pins=BASE | {"R_params": PUBLISHED.R_params}, draws=0, diagnose=False),
    )
    assert fit.law.R_data == pytest.approx(PUBLISHED.R_data, rel=0.01)


def test_four_epochs_are_nearly_as_good_as_fresh_data() -> None:
    effective = PUBLISHED.effective_tokens(4e9, 1e9)
    assert 0.9 * 4e9 < effective < 4e9
    assert PUBLISHED.effective_tokens(1e9, 1e9) == pytest.approx(1e9)
    assert PUBLISHED.effective_tokens(1e14, 1e9) == pytest.approx(1e9 * (1 + PUBLISHED.R_data))


def test_draws_keep_the_kink_of_each() -> None:
    """The size that is usable differs between draws; each draw has its own kink."""
    x = {
        "params": np.array([1e6, 1e9]),
        "tokens": np.array([1e9, 1e9]),
        "unique_tokens": np.array([1e8, 1e8]),
    }
    vectors = np.array(
        [[1.9, 500.0, 1500.0, 0.35, 0.35, 15.0, 5.0], [1.9, 5e4, 1500.0, 0.35, 0.35, 15.0, 5.0]]
    )
    bundle = with_values(RepeatedData, vectors)
    np.testing.assert_allclose(
        bundle.gradient(x), [with_values(RepeatedData, one).gradient(x) for one in vectors]
    )
