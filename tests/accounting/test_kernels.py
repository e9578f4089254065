"""Time of kernels: what a matrix product waits for, and how bytes are counted."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalecli.accounting.kernels import (
    Engine,
    head_passes,
    layer_passes,
    matmul,
    occupancy,
    tokens_to_compute,
)
from scalecli.accounting.memory import Layout, Recipe
from scalecli.accounting.memory.rank import Rank, rank_of
from scalecli.accounting.shape import ModelShape
from scalecli.data.catalogue import Accelerator, accelerator
from scalecli.errors import PlanError
from scalecli.plan.step.engine import Efficiency, engine_of, kernel_efficiency, peak_flops

LLAMA_7B = ModelShape(layers=32, width=4096, ffn=11008, heads=32, kv_heads=32, vocab=32000)
A100, H100 = accelerator("a100-80g"), accelerator("h100-80g")
PLAIN, ONE = Recipe(), Layout()


def engine(device: Accelerator = A100, recipe: Recipe = PLAIN) -> Engine:
    return engine_of(device, recipe, kernel_efficiency(device))


def rank(shape: ModelShape = LLAMA_7B, recipe: Recipe = PLAIN, layout: Layout = ONE, size: int = 1) -> Rank:
    return rank_of(shape, recipe, layout, micro_batch_sequences=size, sequence_length=2048, stage=0)


def test_a_large_product_is_bound_by_computing_a_thin_one_by_memory_a_tiny_one_by_its_launch() -> None:
    e = engine()
    size = 8192
    assert matmul(e, size, size, size) == pytest.approx(
        2 * size**3 / (e.matmul_flops * occupancy(size, size, size, e.multiprocessors))
    )
    slow = replace(e, memory_bandwidth=e.memory_bandwidth / 4)
    assert matmul(slow, 32, size, size) == pytest.approx(2 * (64 + size) * size / slow.memory_bandwidth)
    assert matmul(e, 16, 16, 16) == e.launch_seconds


def test_tiles_and_waves() -> None:
    assert occupancy(256 * 108, 128, 4096, 108) == 1.0  # just one wave
    assert occupancy(256 * 109, 128, 4096, 108) < 0.7  # one tile more takes nearly as long as another wave
    assert occupancy(128, 128, 64, 108) == pytest.approx(1 / 108)  # one tile, and the other units idle
    assert occupancy(256, 128, 108 * 1024, 108) == 1.0  # a long inner dimension is split over the units


@given(m=st.integers(1, 5000), n=st.integers(1, 5000), k=st.integers(1, 5000))
@settings(max_examples=200)
def test_occupancy_is_a_share(m: int, n: int, k: int) -> None:
    assert 0 < occupancy(m, n, k, 132) <= 1
    assert occupancy(m, n, k, None) == 1


def test_a_layer_takes_longer_than_its_products_alone_and_backward_longer_than_forward() -> None:
    e = engine()
    passes = layer_passes(rank(), Recipe(), 2048, e)
    weights = LLAMA_7B.attention_params + LLAMA_7B.expert_params
    assert passes.both > 6 * weights * 2048 / e.matmul_flops
    assert 1.8 < passes.backward / passes.forward < 2.6


def test_decomposed_norms_stored_scores_and_autocast_cost_time() -> None:
    plain = layer_passes(rank(), Recipe(), 2048, engine()).both
    for changed in (
        Recipe(norm="decomposed"), Recipe(attention="stored"), Recipe(precision="bf16-autocast"), Recipe(dropout=0.1),
    ):  # fmt: skip
        assert layer_passes(rank(recipe=changed), changed, 2048, engine(recipe=changed)).both > plain


def test_frozen_weights_have_no_product_for_their_gradient() -> None:
    adapted = Recipe(lora_rank=8)
    frozen = layer_passes(rank(recipe=adapted), adapted, 2048, engine(recipe=adapted))
    whole = layer_passes(rank(), Recipe(), 2048, engine())
    assert frozen.forward == whole.forward
    assert frozen.backward < 0.75 * whole.backward


def test_tensor_parallel_ranks_share_the_work_of_a_layer_less_than_evenly() -> None:
    """The products become smaller, and the tiles fill the device worse."""
    one = layer_passes(rank(), Recipe(), 2048, engine()).both
    four = layer_passes(rank(layout=Layout(tp=4)), Recipe(), 2048, engine()).both
    assert one / 4 < four < one / 2


def test_small_models_wait_for_launches() -> None:
    tiny = ModelShape(layers=2, width=64, ffn=192, heads=2, kv_heads=2, vocab=256)
    e = engine()
    few = rank_of(tiny, Recipe(), Layout(), micro_batch_sequences=1, sequence_length=128, stage=0)
    passes = layer_passes(few, Recipe(), 128, e)
    slower = layer_passes(few, Recipe(), 128, replace(e, launch_seconds=2 * e.launch_seconds))
    assert slower.both > 1.5 * passes.both


def test_a_chunked_loss_computes_its_logits_twice() -> None:
    e = engine()
    chunked = head_passes(rank(), Recipe(logits="chunked"), e).both - head_passes(rank(), Recipe(), e).both
    assert chunked == pytest.approx(matmul(e, 2048, 32000, 4096, flops=e.head_flops))


def test_peaks_by_number_format() -> None:
    assert peak_flops(H100, Recipe()) == H100.peak_flops["bf16"]
    assert peak_flops(H100, Recipe(precision="fp32")) == H100.peak_flops["tf32"]
    with pytest.raises(PlanError, match="no bf16 or fp16 peak"):
        peak_flops(replace(H100, peak_flops={"fp32": 1e12}), Recipe())


def test_efficiencies_by_architecture() -> None:
    published = kernel_efficiency(A100)
    assert published.known
    assert kernel_efficiency(accelerator("a100-40g")) == published
    derived = kernel_efficiency(accelerator("b200"))
    assert not derived.known
    unknown = kernel_efficiency(replace(A100, architecture=None))
    assert not unknown.known
    assert unknown.low <= derived.low < published.low < published.high <= unknown.high


def test_what_was_measured_on_a_device_wins() -> None:
    measured = kernel_efficiency(replace(A100, kernel_efficiency=0.5, source="you"))
    assert isinstance(measured, Efficiency)
    assert (measured.value, measured.source) == (0.5, "you")
    assert measured.low < 0.5 < measured.high


def test_the_ridge_is_where_computing_takes_as_long_as_moving() -> None:
    e = engine(H100)
    tokens = tokens_to_compute(e, 4096, 11008)
    moving = e.through_memory(2 * (tokens * 4096 + 4096 * 11008 + tokens * 11008))
    assert 2 * tokens * 4096 * 11008 / e.matmul_flops == pytest.approx(moving)
    assert 150 < tokens < 400
    assert tokens_to_compute(e, 64, 64) == float("inf")
