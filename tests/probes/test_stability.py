"""Which batches and rates are stable: the arithmetic on known courses, and real trainings at rates that are not."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from scalecli.data.corpus import Corpus
from scalecli.errors import ProbeError
from scalecli.probes.columns import Row
from scalecli.probes.config import Optimizer, ProbeConfig
from scalecli.probes.stability.estimate import Trained, caps, trained
from scalecli.probes.stability.run import StabilityProbe, pairs, run


def rows(losses: list[float | None], rate: float = 1e-2, batch: int = 128) -> list[Row]:
    return [
        {
            "batch_tokens": batch, "learning_rate": rate, "loss": loss, "held_out": loss,
            "update_size": 0.3, "correlation": 0.2,
        }
        for loss in losses
    ]  # fmt: skip


def test_a_falling_loss_is_stable_and_a_rise_is_not() -> None:
    falling = [3 - 0.05 * step for step in range(20)]
    (calm,) = trained(rows(falling))
    assert (calm.stable, calm.rise, calm.loss) == (True, 0.0, pytest.approx(2.05))
    (spiked,) = trained(rows([*falling, 2.4, 2.1]))
    assert not spiked.stable
    assert spiked.rise == pytest.approx(2.4 - 2.05)


def test_a_loss_that_is_no_number_has_no_finite_rise() -> None:
    (gone,) = trained(rows([3.0, 2.9, 2.8, 2.7, None]))
    assert (gone.stable, gone.rise, gone.loss) == (False, math.inf, None)


def test_a_stable_rate_above_an_unstable_one_does_not_count() -> None:
    def at(rate: float, stable: bool) -> Trained:
        return Trained(128, rate, stable, 0.0, 2.0, 0.3, 0.2, 40)

    (cap,) = caps([at(0.1, True), at(0.2, False), at(0.4, True)])
    assert (cap.learning_rate, cap.open) == (0.1, False)
    (none,) = caps([at(0.1, False)])
    assert none.learning_rate is None
    (unknown,) = caps([at(0.1, True), at(0.2, True)])
    assert (unknown.learning_rate, unknown.open) == (0.2, True)


def test_two_readings_show_no_rise() -> None:
    with pytest.raises(ProbeError, match="2 readings"):
        trained(rows([3.0, 2.0]))


def test_pairs_train_on_equal_tokens(config: ProbeConfig) -> None:
    configs = pairs(config, StabilityProbe(batches=(4, 16), rates=(0.1, 0.01)))
    assert [(each.batch_sequences, each.learning_rate) for each in configs] == [
        (4, 0.01), (4, 0.1), (16, 0.01), (16, 0.1),
    ]  # fmt: skip
    assert {each.tokens for each in configs} == {config.tokens}


def test_real_trainings_have_a_limit(config: ProbeConfig, corpus: Corpus) -> None:
    """SGD without momentum or clipping leaves the valley at rates of a few tens here; small ones stay in it."""
    plain = replace(config, optimizer=Optimizer(name="sgd", beta1=0.0, weight_decay=0.0), grad_clip=0.0)
    configs = pairs(plain, StabilityProbe(batches=(8,), rates=(0.1, 1e4)))
    found = trained(list(run(configs, corpus=corpus, device="cpu")))
    assert [each.stable for each in found] == [True, False]
    calm = found[0]
    assert calm.correlation == pytest.approx(1.0, abs=1e-3)  # the update of plain descent is its gradient
    assert caps(found)[0].learning_rate == 0.1


def test_updates_of_adam_are_sized_in_rates(config: ProbeConfig, corpus: Corpus) -> None:
    calm = replace(config, optimizer=Optimizer(weight_decay=0.0))
    configs = pairs(calm, StabilityProbe(batches=(8,), rates=(1e-4, 1e-3)))
    slow, fast = trained(list(run(configs, corpus=corpus, device="cpu")))
    for each in (slow, fast):
        assert 0.1 < each.update_size < 1.1  # one rate in every weight where all gradients agree
    assert slow.correlation > 0
