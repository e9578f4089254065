"""Largest curvature: products against differences of gradients, Lanczos and stability against known spectra."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scalecli.data.corpus import Corpus
from scalecli.errors import NotEnoughSignal, ProbeError
from scalecli.probes.config import Optimizer, ProbeConfig
from scalecli.probes.curvature.estimate import extremes, spike, stable_rate
from scalecli.probes.curvature.products import HessianProducts, flat
from scalecli.probes.curvature.run import CurvatureProbe, lanczos, run
from scalecli.probes.train.optimizers import adam_divisors
from scalecli.probes.train.trainer import Trainer


def trained(config: ProbeConfig, corpus: Corpus, steps: int = 20) -> Trainer:
    trainer = Trainer([config], corpus, device=torch.device("cpu"))
    for _ in range(steps):
        trainer.advance(1.0)
    return trainer


def gradient(trainer: Trainer, batch: torch.Tensor) -> torch.Tensor:
    loss = trainer.losses(batch).mean()
    return flat(torch.autograd.grad(loss, list(trainer.flat.parameters.values()))).double()


def test_products_are_differences_of_gradients(config: ProbeConfig, corpus: Corpus) -> None:
    trainer = trained(config, corpus)
    batch = trainer.subject.batch(30)
    products = HessianProducts(trainer, trainer.subject.parts(batch, 2))
    vector = torch.randn(products.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sizes = [parameter.numel() for parameter in trainer.model.parameters()]

    def moved(step: float) -> torch.Tensor:
        parts = [part.float() for part in (step * vector).split(sizes)]
        with torch.no_grad():
            for parameter, part in zip(trainer.model.parameters(), parts, strict=True):
                parameter += part.view_as(parameter)
        found = gradient(trainer, batch)
        with torch.no_grad():
            for parameter, part in zip(trainer.model.parameters(), parts, strict=True):
                parameter -= part.view_as(parameter)
        return found

    step = 3e-4
    differences = (moved(step) - moved(-step)) / (2 * step)
    assert float((products.times(vector) - differences).norm() / differences.norm()) < 0.01


def test_preconditioned_products_are_those_of_the_similar_matrix(config: ProbeConfig, corpus: Corpus) -> None:
    trainer = trained(config, corpus)
    parts = [trainer.subject.batch(30)]
    divisors = adam_divisors(trainer.flat, trainer.optimizers, config.optimizer)
    plain, seen = HessianProducts(trainer, parts), HessianProducts(trainer, parts, divisors=divisors)
    scale = flat(divisors).double().rsqrt()
    vector = torch.randn(plain.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(seen.times(vector), scale * plain.times(scale * vector), rtol=1e-4, atol=1e-6)


class Known:
    """A matrix of known spectrum, as products."""

    def __init__(self, spectrum: np.ndarray) -> None:
        basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(len(spectrum), len(spectrum))))
        self._matrix = torch.from_numpy(basis @ np.diag(spectrum) @ basis.T)
        self.size = len(spectrum)

    def times(self, vector: torch.Tensor) -> torch.Tensor:
        return self._matrix @ vector


def test_lanczos_finds_the_ends_of_a_spectrum_and_bounds_its_error() -> None:
    spectrum = np.concatenate([np.linspace(-1, 1, 200), [5.0, 20.0]])
    found = lanczos(cast(Any, Known(spectrum)), 20, seed=0)
    assert found.high == pytest.approx(20.0, rel=1e-6)
    assert found.low == pytest.approx(-1.0, abs=0.05)
    assert abs(found.high - 20.0) <= found.error + 1e-9


def test_lanczos_ends_where_the_vectors_span_all() -> None:
    found = lanczos(cast(Any, Known(np.array([1.0, 1.0, 3.0]))), 50, seed=0)
    assert (found.low, found.high, found.error) == pytest.approx((1.0, 3.0, 0.0))


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=8))
def test_extremes_of_a_diagonal(diagonal: list[float]) -> None:
    found = extremes(diagonal, [0.0] * len(diagonal))
    assert (found.low, found.high) == pytest.approx((min(diagonal), max(diagonal)))


@settings(deadline=None)
@given(st.floats(0.1, 100), st.sampled_from([0.0, 0.5, 0.9]))
def test_momentum_descends_just_below_the_stable_rate_and_climbs_just_above(h: float, beta: float) -> None:
    def last(rate: float) -> float:
        x, velocity = 1.0, 0.0
        for _ in range(4000):
            velocity = beta * velocity + h * x
            x -= rate * velocity
        return abs(x)

    limit = stable_rate(h, "sgd", beta)
    assert last(0.98 * limit) < 1e-2
    assert not last(1.02 * limit) < 10


def test_adam_with_its_divisor_held_is_stable_up_to_38_over_the_curvature() -> None:
    def last(rate: float) -> float:
        x, mean = 1.0, 0.0
        for _ in range(4000):
            mean = 0.9 * mean + 0.1 * 2.0 * x
            x -= rate * mean
        return abs(x)

    assert stable_rate(2.0, "adamw", 0.9) == pytest.approx(38 / 2.0)
    assert last(0.98 * 19) < 1e-2
    assert not last(1.02 * 19) < 10
    assert stable_rate(-1.0, "adamw", 0.9) == math.inf
    with pytest.raises(ProbeError, match="closed form"):
        stable_rate(1.0, "muon", 0.9)


def test_intervals_of_a_spike_cover_their_truth() -> None:
    """Three repeats at four batches, 20 % of scatter; 90 % wanted, three standard errors of 200 worlds are 6 %."""
    batch = np.repeat([128.0, 512, 2048, 8192], 3)
    covered = np.zeros(2)
    for seed in range(200):
        scatter = np.random.default_rng(seed).normal(0, 0.2, len(batch))
        found = spike(batch, (400 + 1e5 / batch) * np.exp(scatter))
        covered += [
            found.full_low <= 400 <= found.full_high,
            found.doubled_low <= 250 <= found.doubled_high,
        ]
        assert found.at(1e15) == pytest.approx(found.full)
        assert found.at(found.doubled) == pytest.approx(2 * found.full)
    assert (covered / 200 >= 0.84).all()
    assert (covered / 200 <= 0.96).all()


def test_curvature_that_does_not_fall_is_no_trend() -> None:
    """Nine in ten worlds and more are refused; the error carries their mean."""
    batch = np.repeat([128.0, 512, 2048], 4)
    carried = {}
    for seed in range(200):
        level = 400 * np.exp(np.random.default_rng(seed).normal(0, 0.3, len(batch)))
        try:
            spike(batch, level)
        except NotEnoughSignal as error:
            carried[error.estimate] = level.mean()
    assert len(carried) > 180
    assert list(carried) == pytest.approx(list(carried.values()))
    with pytest.raises(ProbeError, match="1 batch size"):
        spike(np.full(4, 128.0), level[:4])


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_training_has_positive_curvature_that_noise_raises(
    config: ProbeConfig, corpus: Corpus, name: Any
) -> None:
    probe = CurvatureProbe(start=30, batches=(1, 64), repeats=4, iterations=12)
    rows = list(run(replace(config, optimizer=Optimizer(name=name)), probe, corpus=corpus, device="cpu"))
    means = {
        batch: np.mean([float(row["curvature_high"] or 0) for row in rows if row["batch_tokens"] == batch])
        for batch in (16, 64 * 16)
    }
    assert len(rows) == 8
    assert means[16] > means[64 * 16] > 0
    assert {row["preconditioned"] for row in rows} == {int(name == "adamw")}


def test_what_cannot_be_measured_is_refused(config: ProbeConfig, corpus: Corpus) -> None:
    with pytest.raises(ProbeError, match="no step of a run"):
        next(run(config, CurvatureProbe(start=1000, batches=(1, 2)), corpus=corpus, device="cpu"))
    muon = replace(config, optimizer=Optimizer(name="muon"))
    with pytest.raises(ProbeError, match="closed form"):
        next(run(muon, CurvatureProbe(start=5, batches=(1, 2)), corpus=corpus, device="cpu"))
