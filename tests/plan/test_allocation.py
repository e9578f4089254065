"""Sizes and lengths for a budget."""

import math
from dataclasses import replace

import numpy as np
import pytest

from scalecli.accounting.memory import Recipe
from scalecli.data.catalogue import published_law
from scalecli.errors import PlanError
from scalecli.fitters.laws.chinchilla import Chinchilla
from scalecli.fitters.laws.critical_batch_loss import CriticalBatchLoss
from scalecli.fitters.laws.joint_moe import JointMoe
from scalecli.plan.allocation import Allocator, Found
from scalecli.plan.cost import NOTHING_KNOWN, Economy
from scalecli.plan.fleet import fleet_of
from scalecli.plan.speed import Speed
from scalecli.plan.spending import Spending

LAW = Chinchilla(**published_law("chinchilla-refit").values)
EXPERTS = JointMoe(**published_law("joint-moe").values)


def find(
    law: object = LAW, speed: Speed | None = None, experts: tuple[int, ...] = (1,), **budget: float
) -> Found:
    return Allocator(law=law, spending=Spending(**budget), vocab=32_000, speed=speed, experts=experts).find()


@pytest.fixture(scope="module")
def speed() -> Speed:
    """Its searches are kept, so that the tests share them."""
    return Speed(
        fleet=fleet_of("h100-80g", 16), recipe=Recipe(master_weights=True), sequence_length=4096,
        economy=Economy(price_per_hour=2.5),
    )  # fmt: skip


def test_compute_alone_gives_the_laws_own_optimum() -> None:
    found = find(flops=1e22)
    assert found.best.params == pytest.approx(LAW.optimal_params(np.array(1e22)), rel=1e-3)
    assert 6 * found.best.params * found.best.tokens == pytest.approx(1e22)
    assert found.shape.params == pytest.approx(found.best.params, rel=0.02)


def test_a_wanted_loss_gives_the_inverse() -> None:
    there = find(flops=1e22)
    back = find(loss=there.best.loss)
    assert back.best.params == pytest.approx(there.best.params, rel=1e-2)
    assert back.best.training_flops == pytest.approx(1e22, rel=1e-3)


def test_inference_makes_models_smaller_and_trains_them_longer() -> None:
    """Sardana et al. (2401.00448), section 3: 2e12 tokens of inference at the loss of a 13B or so."""
    loss = find(flops=2e22).best.loss
    plain, served = find(loss=loss).best, find(loss=loss, inference_tokens=2e12).best
    assert served.params < 0.75 * plain.params
    assert served.tokens > 1.5 * plain.tokens
    cost = served.training_flops + served.inference_flops
    assert cost < plain.training_flops + 2 * plain.params * 2e12
    brute = [
        6 * n * d + 2 * n * 2e12
        for n in np.geomspace(plain.params / 10, plain.params * 2, 2000)
        if (d := _tokens_for(n, loss)) < math.inf
    ]
    assert cost == pytest.approx(min(brute), rel=1e-3)


def _tokens_for(params: float, loss: float) -> float:
    rest = loss - LAW.E - LAW.A * params**-LAW.alpha
    return math.inf if rest <= 0 else float((LAW.B / rest) ** (1 / LAW.beta))


def test_no_inference_is_the_limit_of_little() -> None:
    assert find(flops=1e22, inference_tokens=1e6).best.params == pytest.approx(
        find(flops=1e22).best.params, rel=1e-3
    )


def test_days_spend_what_the_devices_can_do(speed: Speed) -> None:
    found = find(days=10.0, speed=speed).best
    assert found.days == pytest.approx(10)
    achieved = found.training_flops / (10 * 86_400 * 16 * 989.4e12)
    assert 0.3 < achieved < 0.6  # an MFU


def test_money_is_days_at_a_price(speed: Speed) -> None:
    money = find(money=10 * 24 * 16 * 2.5, speed=speed).best
    days = find(days=10.0, speed=speed).best
    assert money.amount == days.amount == pytest.approx(9600)
    assert money.params == pytest.approx(days.params)


def test_money_without_a_price_buys_nothing(speed: Speed) -> None:
    with pytest.raises(PlanError, match="without a price"):
        find(money=1e5, speed=replace(speed, economy=NOTHING_KNOWN))


def test_experts_can_be_the_more_memory_efficient_model() -> None:
    """Ludziejewski et al. (2502.05172): with tokens enough a mixture beats a dense model of the same bytes."""
    choices = (1, 2, 4, 8, 16, 32)
    roomy = find(EXPERTS, experts=choices, flops=1e21, serve_bytes=20e9)
    tight = find(EXPERTS, experts=choices, flops=1e21, serve_bytes=4e9)
    assert roomy.best.num_experts > 1
    assert tight.best.num_experts == 1
    dense = next(row for row in roomy.rows if row.num_experts == 1)
    assert roomy.best.loss < dense.loss
    assert all(row.serve_bytes <= 20e9 * 1.001 for row in roomy.rows)


def test_neighbours_are_no_better() -> None:
    found = find(flops=1e21)
    assert len(found.rows) == 5
    assert min(found.rows, key=lambda row: row.loss) == found.best


@pytest.mark.parametrize(
    "budget", [{"loss": 1.0}, {"flops": 1e18, "inference_tokens": 1e15}, {"flops": 1e22, "serve_bytes": 1e3}]
)
def test_budgets_that_buy_nothing(budget: dict[str, float]) -> None:
    with pytest.raises(PlanError, match="no model can be trained"):
        find(**budget)


def test_laws_that_need_what_no_budget_says() -> None:
    with pytest.raises(PlanError, match="needs loss, which no budget says"):
        find(CriticalBatchLoss(B_star=2e8, alpha=0.2), flops=1e20)
