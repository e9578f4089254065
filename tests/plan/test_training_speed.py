"""Tokens a second on given devices."""

import pytest

from scalecli.accounting.flops import training_flops_per_token
from scalecli.accounting.memory import Recipe
from scalecli.accounting.shape import shape_for_params
from scalecli.plan.cost import NOTHING_KNOWN, Economy
from scalecli.plan.fleet import fleet_of
from scalecli.plan.speed import Speed

SHAPE = shape_for_params(1.3e9, vocab=50_257)


def speed(devices: str = "a100-80g", count: int = 8, economy: Economy = NOTHING_KNOWN) -> Speed:
    return Speed(fleet=fleet_of(devices, count), recipe=Recipe(), sequence_length=2048, economy=economy)


def test_larger_batches_take_longer_and_train_faster() -> None:
    found = speed(count=64)
    short, long = found.step_seconds(SHAPE, 64), found.step_seconds(SHAPE, 1024)
    assert short is not None
    assert long is not None
    assert short < long < 16 * short


def test_a_measured_utilisation_takes_the_place_of_the_model() -> None:
    found = speed(economy=Economy(measured_mfu=0.5))
    tokens = 64 * 2048
    expected = tokens * training_flops_per_token(SHAPE, 2048) / (0.5 * 312e12 * 8)
    assert found.step_seconds(SHAPE, 64) == pytest.approx(expected)


def test_what_fits_nowhere_has_no_speed() -> None:
    """A hundred times what one device trains by streaming layers from its host."""
    assert speed(count=1).tokens_per_second(shape_for_params(175e11, vocab=50_257)) is None


def test_interruptions_cost_time() -> None:
    usual = speed(count=512)
    said = speed(count=512, economy=Economy(goodput=0.8))
    rate = speed(count=512, economy=Economy(device_seconds=30 * 86_400))
    whole = usual.tokens_per_second(SHAPE)
    assert whole is not None
    assert said.tokens_per_second(SHAPE) == pytest.approx(0.8 * whole)
    interrupted = rate.tokens_per_second(SHAPE)
    assert interrupted is not None
    # a device a month of 512 is an interruption every 84 minutes, with ten minutes to restart
    assert 0.75 * whole < interrupted < 0.9 * whole


def test_without_a_batch_about_two_million_tokens() -> None:
    assert speed(count=8).usual_batch * 2048 == 2**21
    assert speed(count=4096).usual_batch == 4096


def test_mixed_devices() -> None:
    mixed = speed("a100-80g:8,v100-32g:8", 1).tokens_per_second(SHAPE)
    alone = speed(count=8).tokens_per_second(SHAPE)
    assert mixed is not None
    assert alone is not None
    assert alone < mixed < 2 * alone
