"""The range of good learning rates, from valleys with a known bottom."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalecli.errors import NotEnoughSignal, ProbeError
from scalecli.probes.config import ProbeConfig
from scalecli.probes.learning_rate.design import design
from scalecli.probes.learning_rate.estimate import rate_range


def valley(best: float, curvature: float, noise: float = 0.0, seeds: int = 3) -> list[dict]:
    rng = np.random.default_rng(0)
    return [
        {
            "learning_rate": rate,
            "loss": 2 + curvature / 2 * math.log(rate / best) ** 2 + noise * rng.normal(),
            "status": "ok",
        }
        for rate in np.geomspace(1e-4, 1e-1, 11)
        for _ in range(seeds)
    ]


@given(best=st.floats(5e-4, 2e-2), curvature=st.floats(0.01, 0.5))
def test_a_parabola_is_recovered(best: float, curvature: float) -> None:
    found = rate_range(valley(best, curvature), tolerance=0.01)
    assert found.best == pytest.approx(best, rel=1e-6)
    assert found.loss == pytest.approx(2.0, abs=1e-9)
    reach = math.exp(math.sqrt(0.02 / curvature))
    assert (found.low, found.high) == (
        pytest.approx(best / reach, rel=1e-6),
        pytest.approx(best * reach, rel=1e-6),
    )


def test_seed_noise_widens_the_range() -> None:
    quiet, noisy = (rate_range(valley(3e-3, 0.1, noise)) for noise in (0.0, 0.02))
    assert noisy.seed_std == pytest.approx(0.02, rel=0.5)
    assert noisy.tolerance > quiet.tolerance
    assert noisy.high / noisy.low > quiet.high / quiet.low
    assert noisy.low < 3e-3 < noisy.high


def test_one_seed_gives_no_noise() -> None:
    assert rate_range(valley(3e-3, 0.1, seeds=1)).seed_std is None


def test_diverged_rates_bound_the_stable_ones() -> None:
    runs = valley(3e-3, 0.1)
    for run in runs:
        if run["learning_rate"] > 0.02:
            run.update(status="diverged", loss=None)
    found = rate_range(runs)
    assert found.largest_stable < 0.02 < found.smallest_diverged
    assert found.best == pytest.approx(3e-3, rel=0.1)


@pytest.mark.parametrize(("best", "side"), [(1e-5, "smaller"), (1.0, "larger")])
def test_a_best_rate_at_the_end_asks_for_more(best: float, side: str) -> None:
    with pytest.raises(NotEnoughSignal) as error:
        rate_range(valley(best, 0.1))
    assert side in error.value.hint
    assert error.value.estimate == pytest.approx(1e-4 if side == "smaller" else 1e-1)


def test_two_rates_are_not_enough() -> None:
    with pytest.raises(NotEnoughSignal, match="needs 3"):
        rate_range([run for run in valley(3e-3, 0.1) if run["learning_rate"] < 2.5e-4])


def test_the_design_is_even_on_the_log_axis(config: ProbeConfig) -> None:
    configs = design(config, low=1e-3, high=1.6e-2, per_octave=2, seeds=2)
    rates = sorted({each.learning_rate for each in configs})
    assert len(rates) == 9
    assert np.allclose(np.diff(np.log2(rates)), 0.5, atol=0.01)
    assert len(configs) == 18
    with pytest.raises(ProbeError, match="span nothing"):
        design(config, low=1e-2, high=1e-3)
