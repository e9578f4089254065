"""Multipliers by kind of layer, and what optimizers cost: identities, and counts that can be done by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalecli.accounting.shape import ModelShape
from scalecli.data.catalogue import optimizers
from scalecli.errors import PlanError
from scalecli.plan.optimizer_cost import OptimizerCost, optimizer_costs
from scalecli.plan.rules.structure import KINDS, Structure
from scalecli.plan.rules.width import width_groups

SHAPE = ModelShape(layers=3, width=64, ffn=128, heads=4, kv_heads=4, vocab=1000)


@given(st.sampled_from(sorted(KINDS)), st.sampled_from([256, 1024, 4096]), st.sampled_from([256, 4096]))
def test_rates_are_in_inverse_proportion_to_fan_in_and_keep_rate_times_decay(
    kind: str, base: int, width: int
) -> None:
    layer = Structure(kind=kind, blocks=4, rank=8)
    embedding, *hidden, output = width_groups(base, width, layer)
    for group, factor in zip(hidden, layer.factors(width), strict=True):
        assert group.multiplier * factor.fan_in == pytest.approx(base)
        assert group.multiplier * group.weight_decay == pytest.approx(1.0)
    assert embedding.multiplier == output.multiplier == 1.0
    assert output.output == pytest.approx(base / width)


def test_factors_of_each_structure_at_width_256() -> None:
    fans = {
        kind: [factor.fan_in for factor in Structure(kind=kind, blocks=4, rank=8).factors(256)]
        for kind in KINDS
    }
    assert fans == {
        "dense": [256], "low-rank": [256, 8], "block-diagonal": [64], "monarch": [64, 64], "kronecker": [16, 16],
        "btt": [16, 128],
    }  # fmt: skip


def test_a_dense_start_has_the_variance_of_its_fan_in() -> None:
    (factor,) = Structure().factors(256)
    assert factor.initial_std == pytest.approx(256**-0.5)
    down, up = Structure(kind="low-rank", rank=16).factors(256)
    assert down.initial_std == pytest.approx(16**0.5 / 256)
    assert up.initial_std == pytest.approx(16**-0.5)


@pytest.mark.parametrize(
    "layer",
    [
        Structure(kind="conv"),
        Structure(kind="monarch"),
        Structure(kind="btt"),
        Structure(kind="monarch", blocks=512),
    ],
)
def test_what_is_no_structure_is_refused(layer: Structure) -> None:
    with pytest.raises(PlanError):
        layer.factors(256)


def costs(batch_tokens: float = 1e5) -> dict[str, OptimizerCost]:
    return {
        cost.name: cost for cost in optimizer_costs(SHAPE, batch_tokens=batch_tokens, sequence_length=128)
    }


def test_every_optimizer_of_the_catalogue_has_a_cost_and_adamw_two_values_a_weight() -> None:
    found = costs()
    assert set(found) == set(optimizers())
    assert found["adamw"].state_bytes == 8 * SHAPE.params
    assert found["sgd"].state_bytes == 0
    assert found["adamw"].step_flops == pytest.approx(14 * SHAPE.params)
    assert found["sgd"].traffic_bytes == pytest.approx(2 * SHAPE.params)


def test_mkor_counted_by_hand() -> None:
    """A layer has matrices of 192 x 64, 64 x 64 and thrice 128 x 64; embedding and head have factors as well."""
    hidden = 3 * [(64, 192), (64, 64), *3 * [(64, 128)]]
    every = [*hidden, (64, 1000), (64, 1000)]
    extra = sum(2 * m * n * (m + n) + 4 * (m * m + n * n) for m, n in hidden)
    mkor, momentum = costs()["mkor"], costs()["sgd-momentum"]
    assert mkor.step_flops == pytest.approx(6 * SHAPE.params + extra)
    assert mkor.state_bytes - momentum.state_bytes == 2 * sum(m * m + n * n for m, n in every)
    assert mkor.traffic_bytes - momentum.traffic_bytes == 2 * sum(m + n for m, n in hidden)


def test_a_larger_batch_makes_the_step_a_smaller_share() -> None:
    assert costs(2e5)["muon"].share == pytest.approx(costs(1e5)["muon"].share / 2)
