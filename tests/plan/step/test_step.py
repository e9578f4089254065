"""A whole step: its parts, what hides, and the utilisations that were published."""

from dataclasses import replace

import pytest

from scalecli.accounting.memory import Layout, Recipe
from scalecli.accounting.shape import ModelShape
from scalecli.data.catalogue import Accelerator, accelerator, accelerators, sources
from scalecli.data.catalogue.utilisations import PublishedStep, published_steps
from scalecli.errors import PlanError
from scalecli.plan.step.conditions import Conditions, Overlap
from scalecli.plan.step.engine import Efficiency
from scalecli.plan.step.reduction import UNCOMPRESSED, reduction, reductions
from scalecli.plan.step.report import step_part
from scalecli.plan.steptime import StepTime, step_time

LLAMA_13B = ModelShape(layers=40, width=5120, ffn=13824, heads=40, kv_heads=40, vocab=32000)
EXPERTS = replace(LLAMA_13B, num_experts=16, experts_per_token=2)
A100 = accelerator("a100-80g")
PLAIN = Recipe()


def timed(layout: Layout, recipe: Recipe = PLAIN, shape: ModelShape = LLAMA_13B, **kinds: object) -> StepTime:
    defaults = {"accelerator": A100, "micro_batch_sequences": 1, "sequence_length": 2048}
    return step_time(shape, recipe, layout, **(defaults | kinds))  # type: ignore[arg-type]


def of_published(step: PublishedStep) -> tuple[float, float, float]:
    found = step_time(
        step.shape, step.recipe, step.layout, accelerator(step.accelerator),
        micro_batch_sequences=step.micro_batch_sequences, sequence_length=step.sequence_length,
    )  # fmt: skip
    factor = 4 / 3 if step.counted == "hardware" else 1.0
    value = factor * found.utilisation(step.attention)
    low, high = found.mfu_range()
    return value, value * low / found.mfu, value * high / found.mfu


@pytest.mark.parametrize(
    "name",
    [
        "llama-13b-64",
        "megascale-175b-12288",
        "frontier-22b",
        "frontier-175b",
        "frontier-1t",
        "llama-405b-16384",
    ],
)
def test_published_utilisations_are_met(name: str) -> None:
    step = next(step for step in published_steps() if step.name == name)
    value, low, high = of_published(step)
    assert value == pytest.approx(step.utilisation, rel=0.15)
    assert low <= step.utilisation <= high
    assert low > 0.75 * value
    assert high < 1.25 * value


def test_nine_of_ten_steps_that_nothing_was_set_from_are_within_fifteen_per_cent() -> None:
    checks = [step for step in published_steps() if step.role == "check"]
    close = [abs(of_published(step)[0] / step.utilisation - 1) < 0.15 for step in checks]
    held = [of_published(step)[1] <= step.utilisation <= of_published(step)[2] for step in checks]
    assert len(checks) >= 40
    assert sum(close) >= 0.9 * len(checks)
    assert sum(held) >= 0.9 * len(checks)


def test_published_steps_say_where_they_are_from() -> None:
    for step in published_steps():
        assert step.source in sources()
        assert step.accelerator in accelerators()
        assert 0.2 < step.utilisation < 0.8
        micro = step.layout.dp * step.recipe.accumulation * step.micro_batch_sequences
        assert micro == step.batch_sequences, step.name


def test_parts_add_up_and_utilisation_is_of_the_whole() -> None:
    step = timed(Layout(dp=16, tp=4, pp=4, sharding="zero1"), Recipe(accumulation=8))
    part = step_part(step, 256, 400.0)
    assert sum(part["parts"].values()) == pytest.approx(step.seconds)
    assert part["tokens_per_second"] == pytest.approx(16 * 8 * 2048 / step.seconds)
    assert part["mfu"]["low"] < part["mfu"]["value"] < part["mfu"]["high"]
    assert part["mfu_full_attention"] > part["mfu"]["value"]
    assert part["energy_kwh"] == pytest.approx(256 * 0.4 * step.seconds / 3600)
    assert {each["name"] for each in part["communication"]} == {
        "tensor-parallel",
        "pipeline",
        "data-parallel",
    }


def test_recomputation_takes_time_but_makes_no_model_flops() -> None:
    plain, full = timed(Layout()), timed(Layout(), Recipe(recompute="full"))
    assert full.model_flops_per_device == plain.model_flops_per_device
    assert full.compute == plain.compute
    assert full.recompute / full.compute == pytest.approx(1 / 3, abs=0.03)


def test_slower_links_never_make_a_step_faster() -> None:
    layout = Layout(dp=8, tp=8, sharding="zero3")
    slow = replace(A100, link_bandwidth=75e9, network_bandwidth=6e9)
    assert timed(layout, accelerator=slow).seconds > timed(layout).seconds


def test_a_head_on_the_last_stage_makes_stages_unequal() -> None:
    step = timed(Layout(pp=8), Recipe(accumulation=8), replace(LLAMA_13B, vocab=256_000))
    assert step.imbalance > 0.1 * step.seconds
    assert timed(Layout(), Recipe(accumulation=8)).imbalance == 0


def test_what_hides_can_be_said() -> None:
    layout = Layout(tp=8)
    hidden = Conditions(overlap=Overlap().with_shares({"tensor": 0.75}))
    exposed = timed(layout).exposed("tensor-parallel")
    assert timed(layout, conditions=hidden).exposed("tensor-parallel") == pytest.approx(exposed / 4)
    with pytest.raises(PlanError, match="no share"):
        Overlap(tensor=1.2)
    with pytest.raises(PlanError, match="nothing called 'tp'"):
        Overlap().with_shares({"tp": 0.5})


def test_a_ring_over_a_long_sequence_hides_behind_attention_and_over_a_short_one_does_not() -> None:
    """TokenRing's ratio: passes of keys grow with the length, attention with its square."""
    slow = replace(A100, link_bandwidth=30e9)
    ratios = [
        timed(Layout(cp=8), accelerator=slow, sequence_length=length).exchanges[0]
        for length in (2048, 131072)
    ]
    assert ratios[0].seconds > ratios[0].beside
    assert ratios[1].seconds < ratios[1].beside
    assert ratios[0].exposed > 0
    assert ratios[1].exposed == 0


def test_narrow_dispatch_and_near_experts_shorten_the_all_to_all() -> None:
    near, far = (Layout(dp=16, ep=ep, sharding="zero1") for ep in (8, 16))
    inside, across = (timed(layout, shape=EXPERTS).exposed("expert-parallel") for layout in (near, far))
    assert across > 3 * inside
    narrow = timed(far, shape=EXPERTS, conditions=Conditions(dispatch_width=1280)).exposed("expert-parallel")
    assert narrow == pytest.approx(across / 4, rel=0.1)


def test_capacity_makes_experts_slower_and_their_exchange_longer() -> None:
    layout = Layout(dp=16, ep=16, sharding="zero1")
    plain, roomy = (timed(layout, Recipe(expert_capacity=c), EXPERTS) for c in (1.0, 1.5))
    assert roomy.compute > plain.compute
    assert roomy.exposed("expert-parallel") == pytest.approx(1.5 * plain.exposed("expert-parallel"), rel=0.05)


def test_shards_within_a_node_do_not_wait_for_a_slow_network() -> None:
    slow = replace(A100, network_bandwidth=1e9)
    whole = timed(Layout(dp=64, sharding="zero3"), accelerator=slow)
    hybrid = timed(Layout(dp=64, sharding="zero3", shard_group=8), accelerator=slow)
    assert hybrid.exposed("data-parallel") < 0.7 * whole.exposed("data-parallel")


def test_a_breadth_first_pipeline_gathers_its_weights_once() -> None:
    recipe = Recipe(accumulation=16)
    first = {"dp": 8, "pp": 4, "sharding": "zero3"}
    depth = timed(Layout(**first), recipe)  # type: ignore[arg-type]
    breadth = timed(Layout(**first, schedule="breadth-first"), recipe)  # type: ignore[arg-type]
    sent = [
        each.bytes for step in (depth, breadth) for each in step.exchanges if each.name == "data-parallel"
    ]
    assert sent[0] == pytest.approx(16 * sent[1])


@pytest.mark.parametrize(
    ("name", "ranks", "expected"),
    [
        ("none", 64, 2.0),
        ("int8", 64, 1.0),
        ("1-bit-adam", 64, 0.15 * 2 + 0.85 / 8),  # a fifth of the volume
        ("distributed-lion", 64, 1 / 8),
        ("distributed-lion-average", 64, (1 + 7.01) / 16),
    ],
)
def test_bytes_of_a_reduced_gradient(name: str, ranks: int, expected: float) -> None:
    assert reduction(name).bytes_per_weight(2, ranks) == pytest.approx(expected, rel=0.01)


def test_reductions_have_sources_and_close_names() -> None:
    assert reductions()["none"] is UNCOMPRESSED
    assert all(each.source in sources() for name, each in reductions().items() if name != "none")
    with pytest.raises(PlanError, match="1-bit-adam"):
        reduction("1bit-adam")


def test_compressed_gradients_shorten_a_step_that_waits_for_them() -> None:
    slow: Accelerator = replace(A100, network_bandwidth=1e9)
    layout = Layout(dp=64, sharding="ddp")
    plain = timed(layout, accelerator=slow).exposed("data-parallel")
    compressed = timed(
        layout, accelerator=slow, conditions=Conditions(reduction=reduction("distributed-lion"))
    )
    assert compressed.exposed("data-parallel") < 0.6 * plain


def test_a_measured_efficiency_replaces_the_published_one() -> None:
    mine = Efficiency(value=0.4, low=0.38, high=0.42, source="you")
    slow, usual = timed(Layout(), conditions=Conditions(efficiency=mine)), timed(Layout())
    assert slow.efficiency is mine
    assert 0.4 < slow.mfu / usual.mfu < 0.6
