"""Critical batch sizes: the hyperbola, its definitions, and laws of their growth."""

from __future__ import annotations

import numpy as np
import pytest

from scalecli.fitters.fit import FitOptions, fit_law
from scalecli.fitters.laws.critical_batch import CriticalBatch
from scalecli.fitters.laws.critical_batch_loss import CriticalBatchLoss
from scalecli.fitters.laws.three_term import ThreeTerm

LAW = CriticalBatch(S_min=2000.0, B_crit=4e5)
BATCHES = np.geomspace(1e4, 1e7, 12)


def test_steps_and_tokens_lie_on_the_hyperbola() -> None:
    steps = LAW.predict({"batch_tokens": BATCHES})
    tokens = steps * BATCHES
    np.testing.assert_allclose(tokens, LAW.tokens(BATCHES))
    np.testing.assert_allclose((steps / LAW.S_min - 1) * (tokens / LAW.min_tokens() - 1), 1.0)
    at_critical = LAW.predict({"batch_tokens": np.array([LAW.B_crit])})[0]
    assert (at_critical, LAW.tokens(LAW.B_crit)) == (2 * LAW.S_min, 2 * LAW.min_tokens())


def test_the_definition_by_overhead_counts_from_its_own_batch() -> None:
    """Zhang et al. 2024: the batch at which steps exceed linear scaling from B0 by 20 %."""
    start = 2e4
    batch = LAW.batch_at_overhead(0.2, start)
    scaled = LAW.predict({"batch_tokens": np.array([start])})[0] * start / batch
    assert LAW.predict({"batch_tokens": np.array([batch])})[0] == pytest.approx(1.2 * scaled)


def test_extra_tokens_bound_the_batch() -> None:
    assert LAW.tokens(LAW.batch_within(0.05)) == pytest.approx(1.05 * LAW.min_tokens())
    assert np.isnan(LAW.batch_tokens_for_steps(1999.0))
    assert LAW.batch_tokens_for_steps(4000.0) == pytest.approx(LAW.B_crit)


def test_intervals_cover_the_truth() -> None:
    """30 seeded worlds, 5 % noise in steps: nominal 90 % intervals of B_crit cover in at least 22 of them."""
    covered = 0
    for seed in range(30):
        noise = np.exp(0.05 * np.random.default_rng(seed).standard_normal(len(BATCHES)))
        x = {"batch_tokens": BATCHES}
        options = FitOptions(loss="least-squares", draws=100, diagnose=False)
        interval = fit_law(CriticalBatch, x, LAW.predict(x) * noise, options=options).query(
            lambda law: law.B_crit
        )
        assert interval.low is not None
        assert interval.high is not None
        covered += interval.low <= LAW.B_crit <= interval.high
    assert covered >= 22


def test_kaplans_law_is_recovered_from_its_own_constants() -> None:
    law = CriticalBatchLoss(B_star=2.1e8, alpha=0.21)
    loss = np.linspace(2.2, 4.5, 8)
    found = fit_law(
        CriticalBatchLoss, {"loss": loss}, law.predict({"loss": loss}), options=FitOptions(draws=0)
    )
    assert found.law.alpha == pytest.approx(0.21)
    assert found.law.loss_for_critical_batch_tokens(law.predict({"loss": loss})) == pytest.approx(loss)


def test_the_three_term_optimum_is_the_argmin_over_batches() -> None:
    law = ThreeTerm(E=1.5, A=300.0, B=30.0, C=20.0, alpha=0.33, beta=0.4, gamma=0.3)
    tokens = 2e10
    batch = np.geomspace(1e3, 1e8, 200_001)
    loss = law.predict({"params": np.full(batch.shape, 1e9), "steps": tokens / batch, "batch_tokens": batch})
    assert law.optimal_batch(tokens) == pytest.approx(batch[loss.argmin()], rel=1e-3)
    assert law.optimal_batch(tokens) * law.optimal_steps(tokens) == pytest.approx(tokens)
