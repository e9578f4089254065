"""Solved models against what they solve: sums done term by term, random features drawn, SGD run; and fits of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scalecli.data.tables import RunTable
from scalecli.errors import DataError
from scalecli.fitters.fit import FitOptions
from scalecli.fitters.laws import law_named
from scalecli.fitters.oracles import ORACLES, oracle_named
from scalecli.fitters.oracles.dynamical import DynamicalModel
from scalecli.fitters.oracles.random_features import RandomFeatures
from scalecli.fitters.oracles.sgd_features import FEATURES, SgdFeatures
from scalecli.fitters.oracles.simulate import simulate
from scalecli.fitters.runs import fit_runs

QUICK = FitOptions(draws=50, diagnose=False)


def table(name: str, *, noise: float = 0.0, **settings: float) -> RunTable:
    _, frame = simulate(name, settings, noise=noise, shared=0.0, seed=0)
    return RunTable(frame, np.arange(len(frame)), len(frame), (), "test", "0")


def fitted(law: str, runs: RunTable) -> Any:
    return fit_runs(runs, law_named(law), options=QUICK).law


def test_the_integrals_of_the_dynamical_model_are_its_sums() -> None:
    model, feature = DynamicalModel(), np.arange(1.0, 3e6)
    for size, time in ((1000.0, 1.0), (1000.0, 50.0), (1000.0, 1e4), (1e5, 30.0)):
        learnt = feature[: int(size)] ** -model.a * np.exp(-2 * time * feature[: int(size)] ** -model.b)
        never = (feature[int(size) :] ** -model.a).sum() + feature[-1] ** (1 - model.a) / (model.a - 1)
        exact = learnt.sum() + never
        assert model.loss(np.array([size]), np.array([time]))[0] == pytest.approx(exact, rel=2e-3)


def test_size_and_time_have_exponents_of_their_own() -> None:
    runs, truth = table("dynamical-model"), DynamicalModel().truth()
    limits = runs.frame["limited_by"].to_numpy()
    by_size = fitted("power:params", runs.rows(limits == "size"))
    by_time = fitted("power:steps", runs.rows(limits == "time"))
    assert by_size.alpha == pytest.approx(truth["alpha of power:params where limited_by == 'size'"], rel=0.02)
    assert by_time.alpha == pytest.approx(truth["alpha of power:steps where limited_by == 'time'"], rel=0.02)


def test_random_features_drawn_at_random_have_the_loss_of_the_formula() -> None:
    random, model, most = np.random.default_rng(0), RandomFeatures(alpha=0.6), 1500
    spectrum = np.arange(1.0, most + 1) ** -(1 + model.alpha)
    for size, data in ((20, 80), (60, 15)):
        losses = []
        for _ in range(30):
            features = random.standard_normal((size, most)) / np.sqrt(most)
            x = random.standard_normal((data, most)) * np.sqrt(spectrum)
            target = random.standard_normal(most)
            weights = np.linalg.lstsq(x @ features.T, x @ target, rcond=None)[0]
            losses.append(((target - features.T @ weights) ** 2 * spectrum).sum())
        expected = model.loss(np.array([size]), np.array([data]))[0]
        # a spectrum that ends at 1500 holds less than one without end
        tail = most**-model.alpha / model.alpha
        error = np.std(losses) / np.sqrt(len(losses))
        assert abs(np.mean(losses) - expected) < 3 * error + tail


def test_size_and_data_are_alike_for_random_features() -> None:
    law = fitted("chinchilla", table("random-features", alpha=0.35))
    assert law.alpha == pytest.approx(0.35, abs=0.02)
    assert law.beta == pytest.approx(0.35, abs=0.02)
    assert np.log10(law.optimal_params(1e21) / law.optimal_params(1e20)) == pytest.approx(0.5, abs=0.02)


def test_sgd_run_on_the_features_needs_the_steps_of_the_recursion() -> None:
    random, model, batch = np.random.default_rng(1), SgdFeatures(), 16
    steps, rate, noise = model.fewest_steps(batch, 0.3)
    values = model.eigenvalues
    losses, scales = [], []
    for _ in range(40):
        error = random.choice([-1.0, 1.0], FEATURES)
        for _ in range(round(steps)):
            x = random.standard_normal((batch, FEATURES)) * np.sqrt(values)
            error = error - rate * (x * (x @ error)[:, None]).mean(axis=0)
        losses.append((values * error**2).sum() / values.sum())
        gradient = values * error
        scales.append(((values @ error**2) * values.sum() + gradient @ gradient) / (gradient @ gradient))
    assert np.mean(losses) == pytest.approx(0.3, rel=0.1)
    assert np.median(scales) == pytest.approx(noise, rel=0.35)


def test_the_batch_of_fewest_samples_is_far_below_that_of_least_time() -> None:
    runs = table("sgd-features")
    one = runs.frame[runs.frame["loss"] == 0.3]
    samples = one["steps"] * one["batch_tokens"]
    assert one["batch_tokens"].iloc[int(np.argmin(samples))] <= 2
    law = fitted("critical-batch", runs.rows((runs.frame["loss"] == 0.3).to_numpy()))
    assert law.B_crit > 4


def test_noise_is_of_the_size_asked_for() -> None:
    exact, noisy = (table("chinchilla", noise=noise).frame["loss"].to_numpy() for noise in (0.0, 0.01))
    assert np.std(np.log(noisy / exact)) == pytest.approx(0.01, rel=0.3)
    assert fitted("chinchilla", table("chinchilla", alpha=0.4)).alpha == pytest.approx(0.4, rel=1e-4)


def test_names_and_settings_that_do_not_exist_are_told() -> None:
    with pytest.raises(DataError, match="there is no oracle 'chinchila'; there are chinchilla"):
        oracle_named("chinchila")
    with pytest.raises(DataError, match="has no setting gamma; it has"):
        simulate("chinchilla", {"gamma": 1.0}, noise=0.0, shared=0.0, seed=0)


@pytest.mark.parametrize("oracle", ORACLES, ids=lambda oracle: oracle.name)
def test_every_oracle_has_finite_positive_runs(oracle: Any) -> None:
    columns = oracle().columns()
    measured = columns[oracle.measured]
    assert len({len(column) for column in columns.values()}) == 1
    assert (measured[np.isfinite(measured)] > 0).all()
    assert oracle().truth()
