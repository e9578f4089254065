"""Few groups of runs: residuals as if a group had not been seen, and intervals that hold as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from scalecli.fitters.estimate import Method, estimate
from scalecli.fitters.law import values
from scalecli.fitters.laws.critical_batch import CriticalBatch
from scalecli.fitters.objective import LossName, row_loss
from scalecli.fitters.problem import Data
from scalecli.fitters.resample import Clusters, leave_cluster_out


def test_residuals_of_clusters_left_out_are_those_of_fits_without_them() -> None:
    random = np.random.default_rng(0)
    label = np.repeat(np.arange(6), [1, 2, 3, 3, 4, 5])
    slopes, y = random.standard_normal((18, 3)), random.standard_normal(18)
    clusters = Clusters.of(label, 18)
    coefficients = np.linalg.lstsq(slopes, y, rcond=None)[0]
    found = leave_cluster_out(y - slopes @ coefficients, slopes, clusters)
    for which in range(6):
        out = label == which
        without = np.linalg.lstsq(slopes[~out], y[~out], rcond=None)[0]
        np.testing.assert_allclose(found[out], (y - slopes @ without)[out] * np.sqrt(5 / 6), rtol=1e-9)


def test_a_cluster_that_decides_its_own_prediction_has_a_finite_residual() -> None:
    slopes = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = leave_cluster_out(np.array([0.1, -0.1, 0.0, 0.0]), slopes, Clusters.of(None, 4))
    assert np.isfinite(found).all()
    assert found[3] == 0


def test_wild_draws_are_as_wide_as_t() -> None:
    drawn = Clusters.of(None, 5).multipliers(200_000, np.random.default_rng(0))
    # t with 4 degrees of freedom has the variance 2
    assert drawn.var() == pytest.approx(2.0, rel=0.1)
    assert drawn.mean() == pytest.approx(0.0, abs=0.02)


def test_intervals_from_five_batches_hold_about_as_often_as_they_say() -> None:
    truth = CriticalBatch(S_min=3000.0, B_crit=5e5)
    batch = {"batch_tokens": np.geomspace(6e4, 4e6, 5)}
    method = Method(row_loss(LossName.huber, 1e-3), {})
    held = []
    for world in range(60):
        random = np.random.default_rng(world)
        steps = truth.predict(batch) * np.exp(0.03 * random.standard_normal(5))
        found = estimate(CriticalBatch, Data(batch, steps, np.ones(5)), Clusters.of(None, 5), method)
        low, high = np.quantile(found.draws(200, random), [0.05, 0.95], axis=0)
        held.append((low <= values(truth)) & (values(truth) <= high))
    # 0.59 with residuals of the fit itself, and 0.9 is nominal
    assert 0.82 < np.mean(held) < 0.99
