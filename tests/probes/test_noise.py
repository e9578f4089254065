"""The noise scale: its arithmetic against known gradients, and its measurement against per-example gradients."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalecli.data.corpus import Corpus
from scalecli.errors import NotEnoughSignal, ProbeError
from scalecli.probes.config import Optimizer, ProbeConfig
from scalecli.probes.noise.estimate import SquaredNorms, noise_scale
from scalecli.probes.noise.run import NoiseProbe, norms_of, run
from scalecli.probes.noise.schedule import norm_test, stages


def synthetic(
    true_scale: float, steps: int, batch: int, rng: np.random.Generator, size: int = 64
) -> list[SquaredNorms]:
    """Gaussian per-example gradients around a gradient of norm 1, whose B_simple is known; eight micro-batches."""
    micro = batch // 8
    mean = np.full(size, size**-0.5)
    spread = np.sqrt(true_scale / size)
    rows = []
    for _ in range(steps):
        parts = mean + rng.normal(0, spread / np.sqrt(micro), (8, size))
        small, big = (parts**2).sum(1).mean(), (parts.mean(0) ** 2).sum()
        rows.append(SquaredNorms(small=small, big=big, small_examples=micro, big_examples=batch))
    return rows


@pytest.mark.parametrize(("true_scale", "steps", "batch"), [(64.0, 40, 64), (256.0, 30, 128)])
def test_intervals_cover_the_known_value(true_scale: float, steps: int, batch: int) -> None:
    rng = np.random.default_rng(0)
    found = [noise_scale(synthetic(true_scale, steps, batch, rng)) for _ in range(300)]
    covered = np.mean([each.low <= true_scale <= each.high for each in found])
    # 90 % wanted; three standard errors of 300 trials are 5 %.
    assert 0.85 <= covered <= 0.96
    assert np.median([each.value for each in found]) == pytest.approx(true_scale, rel=0.05)


def test_more_examples_give_a_narrower_interval() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for steps in (20, 320):
        found = noise_scale(synthetic(64.0, steps, 64, rng))
        widths.append(found.high / found.low)
        assert found.examples == steps * 64
    assert widths[1] < widths[0] ** 0.5


@given(
    signal=st.floats(1e-3, 1e3),
    noise=st.floats(1e-3, 1e3),
    small=st.integers(1, 64),
    ratio=st.integers(2, 16),
)
def test_two_sizes_give_both_unknowns(signal: float, noise: float, small: int, ratio: int) -> None:
    big = small * ratio
    norms = SquaredNorms(
        small=signal + noise / small, big=signal + noise / big, small_examples=small, big_examples=big
    )
    scale = signal + noise
    assert norms.signal() == pytest.approx(signal, abs=1e-9 * scale)
    assert norms.noise() == pytest.approx(noise, abs=1e-6 * scale)


def test_too_little_signal_is_an_error_with_the_estimate_and_no_clamp() -> None:
    rows = synthetic(1e5, 6, 16, np.random.default_rng(3))
    with pytest.raises(NotEnoughSignal, match="without an upper limit") as error:
        noise_scale(rows)
    signal, noise = (np.mean([getattr(row, part)() for row in rows]) for part in ("signal", "noise"))
    assert error.value.estimate == pytest.approx(noise / signal)


@pytest.mark.parametrize(("small", "big"), [(8, 8), (0, 4)])
def test_one_batch_size_is_refused(small: int, big: int) -> None:
    with pytest.raises(ProbeError, match="two batch sizes"):
        SquaredNorms(small=1.0, big=1.0, small_examples=small, big_examples=big)


@pytest.fixture(scope="module")
def wide(config: ProbeConfig) -> ProbeConfig:
    return replace(config, batch_sequences=16, steps=25)


def test_micro_batches_agree_with_single_examples(wide: ProbeConfig, corpus: Corpus) -> None:
    eight, single = (
        noise_scale(
            norms_of(list(run(wide, NoiseProbe(start=5, micro_batches=parts), corpus=corpus, device="cpu")))
        )
        for parts in (8, 16)
    )
    assert eight.value == pytest.approx(single.value, rel=0.25)
    assert eight.low <= single.value <= eight.high
    assert eight.examples == 20 * 16


def test_measuring_does_not_change_the_training(wide: ProbeConfig, corpus: Corpus) -> None:
    always, sometimes = (
        [row["loss"] for row in run(wide, NoiseProbe(every=every), corpus=corpus, device="cpu")]
        for every in (1, 13)
    )
    assert always[::13] == pytest.approx(sometimes, rel=1e-5)


def test_layers_add_up_to_the_model(wide: ProbeConfig, corpus: Corpus) -> None:
    probe = NoiseProbe(start=23, by_layer=True)
    rows = list(run(wide, probe, corpus=corpus, device="cpu"))
    for step in (23, 24):
        parts = {row["layer"]: row["big"] for row in rows if row["step"] == step}
        assert sum(value for name, value in parts.items() if name != "all") == pytest.approx(parts["all"])
        assert "blocks.1.attention.qkv" in parts


def test_preconditioned_norms_are_what_adam_sees(wide: ProbeConfig, corpus: Corpus) -> None:
    probe = NoiseProbe(start=15, preconditioned=True, by_layer=True)
    rows = list(run(wide, probe, corpus=corpus, device="cpu"))
    # A gradient entry over its own root mean square is of order one, so the norm is near the number of weights.
    mean = np.mean([row.big for row in norms_of(rows)])
    assert 0.3 < mean / wide.shape.params < 3
    sgd = replace(wide, optimizer=Optimizer(name="sgd"))
    with pytest.raises(ProbeError, match="second moments"):
        next(run(sgd, probe, corpus=corpus, device="cpu"))


def test_a_batch_that_cannot_be_cut_is_refused(wide: ProbeConfig, corpus: Corpus) -> None:
    with pytest.raises(ProbeError, match="cannot be cut into 5"):
        next(run(wide, NoiseProbe(micro_batches=5), corpus=corpus, device="cpu"))


def test_in_the_hessian_the_noise_of_a_quadratic_is_that_of_its_eigenvalues(
    wide: ProbeConfig, corpus: Corpus
) -> None:
    """u'Hu is measured like |u|^2: its two sizes of batch give signal and noise, and training goes on as without."""
    probe = NoiseProbe(start=20, every=2, hessian=True)
    rows = list(run(wide, probe, corpus=corpus, device="cpu"))
    plain = list(run(wide, replace(probe, hessian=False), corpus=corpus, device="cpu"))
    assert [row["big"] for row in rows] == pytest.approx([row["big"] for row in plain], rel=1e-5)
    curved = norms_of(rows, hessian=True)
    assert np.mean([norms.noise() for norms in curved]) > 0
    with pytest.raises(KeyError):
        norms_of(plain, hessian=True)


def gaussian_norms(scale: float, micro: int, big: int, steps: int) -> list[SquaredNorms]:
    """Norms without sampling noise: |G|^2 = 1 and tr(Sigma) = scale."""
    return [
        SquaredNorms(small=1 + scale / micro, big=1 + scale / big, small_examples=micro, big_examples=big)
    ] * steps


def test_the_norm_test_holds_the_batch_at_a_multiple_of_the_noise_scale() -> None:
    """B' = Var / (eta^2 |g_B|^2) has its fixed point at (1 / eta^2 - 1) B_simple: 64 at eta^2 = 1/2."""
    batch = 64
    assert norm_test(gaussian_norms(64.0, 8, batch, 5), eta=math.sqrt(0.5)) == batch
    assert norm_test(gaussian_norms(64.0, 2, 16, 5), eta=math.sqrt(0.5)) < batch
    assert norm_test(gaussian_norms(64.0, 8, batch, 5), eta=0.5) == 2 * batch


def test_the_norm_tests_batches_never_fall_and_those_of_the_noise_scale_may() -> None:
    stretches = [
        (tokens, step, gaussian_norms(scale, 2, 16, 4))
        for tokens, step, scale in ((1e3, 0, 32.0), (2e3, 10, 400.0), (3e3, 20, 50.0))
    ]
    found = stages(stretches, [32.0, 400.0, 50.0])
    batches = [stage.norm_test for stage in found]
    assert batches == sorted(batches)
    assert batches[0] < batches[1] == batches[2]
    assert [stage.noise_scale for stage in found] == [32.0, 400.0, 50.0]
    with pytest.raises(ProbeError, match="between 0 and 1"):
        stages(stretches, [None, None, None], eta=1.0)
