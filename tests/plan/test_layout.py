"""Layout search and step time: constraints, published utilisations, order."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalecli.accounting.memory import Layout, Recipe
from scalecli.accounting.memory.pipeline import bubble, in_flight
from scalecli.accounting.shape import ModelShape
from scalecli.data.catalogue import Accelerator, accelerator, sources
from scalecli.errors import DoesNotFit, PlanError
from scalecli.plan.layout import Choice, Demand, search_layouts
from scalecli.plan.steptime import StepTime, kernel_efficiency, step_time

LLAMA_13B = ModelShape(layers=40, width=5120, ffn=13824, heads=40, kv_heads=40, vocab=32000)
LLAMA_70B = ModelShape(layers=80, width=8192, ffn=28672, heads=64, kv_heads=8, vocab=128256)
GPT_175B = ModelShape(
    layers=96, width=12288, ffn=49152, heads=96, kv_heads=96, vocab=51200, activation="gelu", norm="layer"
)
GPT_1T = ModelShape(
    layers=128, width=25600, ffn=102400, heads=160, kv_heads=160, vocab=51200, activation="gelu", norm="layer"
)
A100, H100, MI250X = accelerator("a100-80g"), accelerator("h100-80g"), accelerator("mi250x")
L4 = accelerator("l4")


def search(
    shape: ModelShape, device: Accelerator, count: int, batch: int, length: int = 2048
) -> list[Choice]:
    return search_layouts(
        Demand(
            shape=shape,
            sequence_length=length,
            batch_sequences=batch,
            accelerator=device,
            count=count,
            recipe=Recipe(),
        )
    )


def timed(shape: ModelShape, layout: Layout, device: Accelerator, batch: int) -> StepTime:
    recipe = Recipe(accumulation=batch // layout.dp)
    return step_time(shape, recipe, layout, device, micro_batch_sequences=1, sequence_length=2048)


@pytest.mark.parametrize(
    ("shape", "layout", "device", "batch", "published"),
    [
        # Hagemann et al. (2311.05610): micro-batch 1, no recomputation, no tensor parallelism.
        (LLAMA_13B, Layout(dp=64, sharding="zero1"), A100, 2048, 0.705),
        # MegaScale (2402.15627), table 2: 12,288 devices, batch 6144, tensor 8, pipeline 8 with 6 chunks.
        (
            GPT_175B,
            Layout(dp=192, tp=8, pp=8, virtual_stages=6, schedule="interleaved", sharding="zero1"),
            A100,
            6144,
            0.552,
        ),
        # Frontier (2312.12705): 1,024 and 3,072 devices, batches of 640 and 1,600.
        (GPT_175B, Layout(dp=16, tp=4, pp=16, sharding="zero1"), MI250X, 640, 0.3614),
        (GPT_1T, Layout(dp=6, tp=8, pp=64, sharding="zero1"), MI250X, 1602, 0.3196),
    ],
)
def test_published_utilisations_are_met(
    shape: ModelShape, layout: Layout, device: Accelerator, batch: int, published: float
) -> None:
    step = timed(shape, layout, device, batch)
    low, high = step.mfu_range()
    assert step.mfu == pytest.approx(published, rel=0.15)
    assert low <= published <= high
    assert low > 0.75 * step.mfu
    assert high < 1.25 * step.mfu


def test_micro_batch_one_without_recomputation_is_preferred_when_it_fits() -> None:
    """The finding of Hagemann et al. (2311.05610), section 4, for mixed-precision AdamW and ZeRO-1."""
    demand = Demand(
        shape=LLAMA_13B, sequence_length=2048, batch_sequences=2048, accelerator=A100, count=64,
        recipe=Recipe(master_weights=True),
    )  # fmt: skip
    best = search_layouts(demand)[0]
    assert best.micro_batch_sequences == 1
    assert best.recipe.recompute == "none"
    assert best.layout.tp <= 2
    assert best.step is not None
    assert best.step.mfu == pytest.approx(0.705, rel=0.05)


def test_seventy_billion_on_512_devices() -> None:
    best, *others = search(LLAMA_70B, H100, 512, 1024, length=4096)
    assert best.layout.devices == 512
    assert best.device_bytes <= H100.memory_bytes
    assert best.layout.tp <= H100.devices_per_node
    assert best.step is not None
    assert 0.35 < best.step.mfu < 0.65
    assert others
    assert min(other.seconds for other in others) > best.seconds / 1.03
    assert any("slower" in other.reason for other in others)


def test_a_long_sequence_is_cut_over_context_ranks() -> None:
    best = search(LLAMA_13B, H100, 64, 64, length=131072)[0]
    assert best.layout.cp > 1 or best.layout.tp > 1
    assert best.device_bytes <= H100.memory_bytes


def test_no_layout_for_a_batch_that_does_not_divide() -> None:
    with pytest.raises(PlanError, match="batch of 3 sequences"):
        search(ModelShape(layers=3, width=96, ffn=96, heads=3, kv_heads=3, vocab=99), H100, 64, 3)


def test_what_does_not_fit_has_a_budget_that_adds_up() -> None:
    with pytest.raises(DoesNotFit) as caught:
        search(GPT_1T, L4, 1, 1)  # two layers of weights alone are more
    assert sum(caught.value.budget.values()) > L4.memory_bytes


@given(
    count=st.sampled_from([1, 2, 4, 8, 16, 24, 64]),
    per_device=st.integers(1, 6),
    layers=st.integers(2, 12),
    experts=st.sampled_from([1, 4]),
)
@settings(max_examples=25, deadline=None)
def test_layouts_obey_every_constraint(count: int, per_device: int, layers: int, experts: int) -> None:
    shape = ModelShape(
        layers=layers, width=512, ffn=1408, heads=8, kv_heads=4, vocab=32000, num_experts=experts
    )
    batch = count * per_device
    for choice in search(shape, A100, count, batch):
        layout = choice.layout
        assert layout.devices == count
        assert layout.dp * choice.recipe.accumulation * choice.micro_batch_sequences == batch
        assert layers % layout.pp == 0
        assert shape.heads % layout.tp == 0
        assert experts % layout.ep == 0
        assert choice.device_bytes <= A100.memory_bytes
        assert choice.step is not None
        assert 0 < choice.step.mfu < 1


def test_bubbles_of_the_schedules() -> None:
    """Narayanan et al. (2104.04473), section 2.2: (p - 1)/m, and 1/v of it when interleaved."""
    assert bubble(Layout(pp=8), 32) == 7 / 32
    assert bubble(Layout(pp=8, virtual_stages=4, schedule="interleaved"), 32) == 7 / 128
    assert bubble(Layout(pp=8, schedule="zero-bubble"), 32) == pytest.approx(7 / 96)
    assert [in_flight(Layout(pp=4), 16, stage) for stage in range(4)] == [4, 3, 2, 1]
    assert in_flight(Layout(pp=4, schedule="breadth-first"), 16, 3) == 16


def test_recomputation_takes_time_but_makes_no_model_flops() -> None:
    plain = step_time(LLAMA_13B, Recipe(), Layout(), A100, micro_batch_sequences=1, sequence_length=2048)
    full = step_time(
        LLAMA_13B, Recipe(recompute="full"), Layout(), A100, micro_batch_sequences=1, sequence_length=2048
    )
    assert full.model_flops_per_device == plain.model_flops_per_device
    assert full.compute + full.recompute == pytest.approx(4 / 3 * plain.compute)


def test_slower_links_never_make_a_step_faster() -> None:
    layout = Layout(dp=8, tp=8, sharding="zero3")
    slow = replace(A100, link_bandwidth=A100.link_bandwidth / 4, network_bandwidth=A100.network_bandwidth / 4)  # type: ignore[operator]
    assert timed(LLAMA_13B, layout, slow, 64).seconds > timed(LLAMA_13B, layout, A100, 64).seconds


def test_a_vendor_without_published_utilisation_gets_the_widest_range() -> None:
    unknown = kernel_efficiency("Acme")
    assert not unknown.known
    assert unknown.low <= kernel_efficiency("AMD").low
    assert unknown.high >= kernel_efficiency("NVIDIA").high
    assert math.isclose(unknown.value, math.sqrt(unknown.low * unknown.high))


def test_every_published_efficiency_has_its_source() -> None:
    for vendor in ("NVIDIA", "AMD"):
        efficiency = kernel_efficiency(vendor)
        assert efficiency.low < efficiency.value < efficiency.high
        assert efficiency.source in sources()
