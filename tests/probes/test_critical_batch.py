"""Critical batch sizes: from curves with a known one, and from real branches."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalecli.data.corpus import Corpus
from scalecli.errors import NotEnoughSignal, ProbeError
from scalecli.probes.config import Evaluation, ProbeConfig
from scalecli.probes.critical_batch.branches import BranchProbe, local_critical_batch, run
from scalecli.probes.critical_batch.steps_to_target import (
    Curve,
    crossing,
    curves_of,
    design,
    reachable_target,
    rows,
)
from scalecli.probes.family import member
from scalecli.probes.train import train


def known_curve(config: ProbeConfig, rate_penalty: float = 1.0) -> Curve:
    """Loss that reaches 2 + 1 / p after S_min p (1 + B_crit / B) steps, with S_min = 40 and B_crit = 1000 tokens."""
    steps = np.geomspace(2, 4000, 60)
    progress = steps / (40 * (1 + 1000 / config.batch_tokens)) / rate_penalty
    return Curve(config, steps, 2 + 1 / progress)


def test_known_steps_are_recovered(config: ProbeConfig) -> None:
    curves = [
        known_curve(replace(config, batch_sequences=sequences, learning_rate=rate), penalty)
        for sequences in (8, 32, 128, 512)
        for rate, penalty in ((1e-3, 1.5), (2e-3, 1.0), (4e-3, 1.2))
    ]
    found = rows(curves, 2.5)
    assert [row["learning_rate"] for row in found] == [2e-3] * 4
    for row in found:
        assert row["steps"] == pytest.approx(80 * (1 + 1000 / row["batch_tokens"]), rel=0.01)
        assert row["tokens"] == row["steps"] * row["batch_tokens"]


@given(target=st.floats(2.05, 3.5))
def test_crossings_are_between_the_readings(config: ProbeConfig, target: float) -> None:
    curve = known_curve(config)
    step = crossing(curve, target)
    if step is None:
        assert curve.loss.min() > target or curve.loss[0] <= target
    else:
        index = int(np.searchsorted(curve.steps, step))
        assert curve.loss[index] <= target + 1e-9 <= curve.loss[index - 1] + 2e-9


def test_the_target_is_what_every_batch_reached(config: ProbeConfig) -> None:
    curves = [known_curve(replace(config, batch_sequences=sequences)) for sequences in (8, 64)]
    assert reachable_target(curves) == pytest.approx(max(curve.loss.min() for curve in curves))


def test_too_few_batches_are_not_enough(config: ProbeConfig) -> None:
    curves = [known_curve(replace(config, batch_sequences=sequences)) for sequences in (8, 64)]
    with pytest.raises(NotEnoughSignal) as error:
        rows(curves, 2.5)
    assert error.value.estimate == 2


def test_the_design_reads_each_batch_alike(corpus: Corpus) -> None:
    configs = design(
        replace(corpus, vocab=256), "here", member(16, 256), batch_tokens=[256, 1024], tokens=1e5, seeds=2
    )
    assert len(configs) == 2 * 3 * 2
    for config in configs:
        assert config.schedule.name == "constant"
        assert 35 <= config.steps / config.evaluation.every <= 50
        assert config.evaluation.averager == "power"


def test_averaged_weights_read_better_at_a_constant_rate(config: ProbeConfig, corpus: Corpus) -> None:
    constant = replace(
        config, schedule=replace(config.schedule, name="constant"), learning_rate=3e-2, steps=120
    )
    plain, averaged = (
        list(
            train(
                replace(constant, evaluation=Evaluation(sequences=32, every=30, averager=averager)),
                corpus=corpus,
                device="cpu",
            )
        )
        for averager in ("none", "power")
    )
    assert averaged[-1]["loss"] < plain[-1]["loss"]
    assert averaged[-1]["train_loss"] == plain[-1]["train_loss"]
    readings = {constant.run_id: [(row["step"], row["loss"]) for row in averaged[:-1]]}
    (curve,) = curves_of([constant], readings)
    assert curve.steps.tolist() == [30, 60, 90]


def test_branches_of_a_real_training(config: ProbeConfig, corpus: Corpus) -> None:
    probe = BranchProbe(start=40, tokens=4096, factors=(1, 4, 32))
    branches = list(run(config, probe, corpus=corpus, device="cpu"))
    assert [row["batch_tokens"] for row in branches] == [128, 512, 4096]
    assert {row["tokens"] for row in branches} == {4096}
    assert [row["learning_rate"] for row in branches] == pytest.approx(
        [0.01 * math.sqrt(k) for k in (1, 4, 32)]
    )
    # One step of everything at once cannot do what 32 steps do.
    assert branches[2]["loss"] > branches[0]["loss"] + 0.02
    found = local_critical_batch(branches, tolerance=0.02)
    assert found.tested[0] <= found.tokens <= found.tested[1]


def test_a_tolerance_that_is_never_left_is_a_lower_limit() -> None:
    branches = [{"batch_tokens": batch, "loss": 2.0} for batch in (128, 256, 512)]
    with pytest.raises(NotEnoughSignal, match="larger") as error:
        local_critical_batch(branches)  # type: ignore[arg-type]
    assert error.value.estimate == 512


def test_the_crossing_of_the_tolerance_is_interpolated() -> None:
    losses = {128: 2.0, 256: 2.0, 512: 2.02, 1024: None}
    branches = [{"batch_tokens": batch, "loss": loss} for batch, loss in losses.items()]
    found = local_critical_batch(branches, tolerance=0.01)  # type: ignore[arg-type]
    assert found.tokens == pytest.approx(256 * math.sqrt(2))
    assert found.tested == (256, 512)


def test_impossible_branches_are_refused(config: ProbeConfig, corpus: Corpus) -> None:
    for probe in (BranchProbe(start=61, tokens=1e3), BranchProbe(start=5, tokens=1e3, factors=(2, 4))):
        with pytest.raises(ProbeError):
            next(run(config, probe, corpus=corpus, device="cpu"))
