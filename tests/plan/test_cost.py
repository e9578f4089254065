"""Time, money and energy."""

from dataclasses import replace

import pytest

from scalecli.accounting.flops import training_flops, training_flops_per_token
from scalecli.accounting.memory import Layout, Recipe
from scalecli.accounting.shape import ModelShape
from scalecli.data.catalogue import accelerator
from scalecli.errors import PlanError
from scalecli.plan.cost import Economy, plan_cost
from scalecli.plan.steptime import step_time

A100 = accelerator("a100-80g")
LLAMA_65B = ModelShape(layers=80, width=8192, ffn=22016, heads=64, kv_heads=64, vocab=32000)
FLOPS = training_flops(LLAMA_65B, 1.4e12, 2048)


def test_llama_65b_takes_the_published_device_hours() -> None:
    """Touvron et al. (2302.13971), table 15: 1,022,362 A100 hours; section 2.4: 380 tokens a second and device."""
    mfu = 380 * training_flops_per_token(LLAMA_65B, 2048) / A100.peak_flops["bf16"]
    cost = plan_cost(FLOPS, accelerator=A100, count=2048, recipe=Recipe(), economy=Economy(measured_mfu=mfu))
    assert cost.device_hours.value == pytest.approx(1_022_362, rel=0.01)
    assert cost.days.value == pytest.approx(21, rel=0.02)
    assert cost.energy_kwh is not None
    assert cost.energy_kwh.value == pytest.approx(
        449_000 / 1.1, rel=0.1
    )  # their 449 MWh count 10 % of cooling


def test_interval_follows_the_utilisation() -> None:
    layout = Layout(sharding="zero1", dp=64, tp=4)
    step = step_time(
        LLAMA_65B, Recipe(accumulation=16), layout, A100, micro_batch_sequences=1, sequence_length=2048
    )
    cost = plan_cost(FLOPS, accelerator=A100, count=256, recipe=Recipe(), step=step)
    assert cost.days.low is not None
    assert cost.days.high is not None
    assert cost.days.low < cost.days.value < cost.days.high
    assert cost.days.high / cost.days.low == pytest.approx(cost.mfu.high / cost.mfu.low)  # type: ignore[operator]


def test_money_is_known_only_with_a_price() -> None:
    free = plan_cost(FLOPS, accelerator=A100, count=8, recipe=Recipe())
    economy = Economy(price_per_hour=2.0, currency="EUR")
    priced = plan_cost(FLOPS, accelerator=A100, count=8, recipe=Recipe(), economy=economy)
    assert free.amount is None
    assert free.currency is None
    assert priced.currency == "EUR"
    assert priced.amount is not None
    assert priced.amount.value == pytest.approx(2 * priced.device_hours.value)


def test_goodput_stretches_time() -> None:
    whole = plan_cost(FLOPS, accelerator=A100, count=8, recipe=Recipe())
    broken = plan_cost(FLOPS, accelerator=A100, count=8, recipe=Recipe(), goodput=0.5)
    assert broken.days.value == pytest.approx(2 * whole.days.value)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"measured_mfu": 1.2}, "MFU of 1.2"),
        ({"goodput": 0.0}, "goodput of 0"),
        ({"price_per_hour": -1.0}, "negative"),
        ({"goodput": 0.9, "device_seconds": 1e6}, "twice"),
    ],
)
def test_impossible_economies(wish: dict[str, float], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Economy(**wish)  # type: ignore[arg-type]


@pytest.mark.parametrize(("count", "goodput", "message"), [(0, 1.0, "0 devices"), (8, 0.0, "ever finished")])
def test_impossible_costs(count: int, goodput: float, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan_cost(FLOPS, accelerator=A100, count=count, recipe=Recipe(), goodput=goodput)


def test_a_number_format_the_device_lacks() -> None:
    with pytest.raises(PlanError, match="no bf16 or fp16 peak"):
        plan_cost(FLOPS, accelerator=replace(A100, peak_flops={"fp32": 1e12}), count=1, recipe=Recipe())
