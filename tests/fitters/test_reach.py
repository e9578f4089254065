"""How far hold-outs went on each axis, and that a fit carries it into its document and back."""

from __future__ import annotations

import numpy as np
import pytest

from scalecli.fitters.fit import Fit, FitOptions, fit_law
from scalecli.fitters.laws.chinchilla import Chinchilla
from scalecli.fitters.reach import Reach, reach_of


def test_ratios_are_of_held_out_to_trained_runs() -> None:
    x = {"params": np.array([1e7, 1e8, 1e9]), "tokens": np.array([2e9, 2e9, 8e9])}
    held = [np.array([False, False, True]), np.array([False, True, True])]
    reach = reach_of(x, held)
    assert reach["params"] == Reach(1e7, 1e9, pytest.approx(100.0))
    assert reach["tokens"].validated == pytest.approx(4.0)
    assert reach["tokens_per_param"].validated == pytest.approx(25.0)  # down from 200 to 8


def test_distance_is_one_inside_and_counts_both_ways() -> None:
    reach = Reach(10.0, 100.0, 2.0)
    assert [reach.beyond(value) for value in (5.0, 10.0, 50.0, 100.0, 300.0)] == pytest.approx(
        [2, 1, 1, 1, 3]
    )


def test_a_fit_knows_its_reach_and_keeps_it() -> None:
    size, data = np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(1e9, 1e11, 6))
    x = {"params": size.ravel(), "tokens": data.ravel()}
    truth = Chinchilla(E=1.7, A=400.0, B=1200.0, alpha=0.34, beta=0.31)
    loss = truth.predict(x) * np.exp(1e-3 * np.random.default_rng(0).normal(size=36))
    fit = fit_law(Chinchilla, x, loss, options=FitOptions(draws=20))
    assert fit.validation is not None
    assert fit.validation.reach["params"].high == pytest.approx(1e9)
    assert fit.validation.reach["params"].validated >= 1
    again = Fit.from_document(fit.document(draws=True))
    assert again.validation == fit.validation
