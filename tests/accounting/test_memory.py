"""Closed forms of memory: known figures, sharding arithmetic, bounds, impossible wishes."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalecli.accounting.memory import Layout, Recipe, estimate_memory
from scalecli.accounting.shape import ModelShape
from scalecli.errors import PlanError

GIB = 2**30
LLAMA_7B = ModelShape(layers=32, width=4096, ffn=11008, heads=32, kv_heads=32, vocab=32000)
SMALL_125M = ModelShape(layers=12, width=768, ffn=2048, heads=12, kv_heads=12, vocab=50304)
LOOP = Recipe(optimizer_impl="loop")


@pytest.mark.parametrize(
    ("recipe", "batch", "peak", "moment"),
    [
        (LOOP, 1, 50.69, "step"),
        (Recipe(optimizer_impl="foreach"), 1, 62.76, "step"),
        (Recipe(optimizer_impl="fused"), 1, 50.22, "backward"),
        (Recipe(optimizer="muon"), 1, 38.45, "step"),
        (Recipe(optimizer="sgd"), 1, 25.12, "backward"),
        (LOOP, 4, 78.24, "loss"),
        (replace(LOOP, recompute="selective"), 4, 65.49, "loss"),
        (replace(LOOP, recompute="full"), 4, 51.24, "backward"),
        (replace(LOOP, logits="chunked"), 4, 76.10, "loss"),
    ],
)
def test_peaks_of_llama_7b(recipe: Recipe, batch: int, peak: float, moment: str) -> None:
    """Figures of an independent tracker over fake tensors with the kernels of a GPU, torch 2.13 [GiB]."""
    estimate = estimate_memory(LLAMA_7B, recipe, micro_batch_sequences=batch, sequence_length=2048)
    assert estimate.peak_bytes / GIB == pytest.approx(peak, abs=0.0055)
    assert estimate.moment == moment


@pytest.mark.parametrize(
    ("recipe", "batch", "saved"),
    [
        (Recipe(), 1, 9.6587),
        (Recipe(), 4, 38.6348),
        (Recipe(recompute="selective"), 4, 25.883),
        (Recipe(recompute="full"), 4, 3.1016),
        (Recipe(precision="bf16-autocast"), 1, 23.481),
        (Recipe(norm="decomposed"), 1, 12.706),
    ],
)
def test_bytes_saved_for_backward_of_llama_7b(recipe: Recipe, batch: int, saved: float) -> None:
    estimate = estimate_memory(LLAMA_7B, recipe, micro_batch_sequences=batch, sequence_length=2048)
    assert estimate.saved_for_backward_bytes / GIB == pytest.approx(saved, abs=0.0006)


def test_saved_bytes_are_the_published_closed_form() -> None:
    """L (16 n d + 8 n f + 4 n h + 8 n) + 4 n d + 4 n + 4 n V, for bf16, flash attention, fused norms, SwiGLU."""
    shape, n = SMALL_125M, 16 * 1024
    d, f, h, v = shape.width, shape.ffn, shape.heads, shape.vocab
    expected = shape.layers * (16 * n * d + 8 * n * f + 4 * n * h + 8 * n) + 4 * n * d + 4 * n + 4 * n * v
    estimate = estimate_memory(shape, Recipe(), micro_batch_sequences=16, sequence_length=1024)
    assert estimate.saved_for_backward_bytes == expected


def test_the_loss_is_the_peak_of_a_small_model_until_it_is_chunked() -> None:
    full = estimate_memory(SMALL_125M, LOOP, micro_batch_sequences=16, sequence_length=1024)
    chunked = estimate_memory(
        SMALL_125M, replace(LOOP, logits="chunked"), micro_batch_sequences=16, sequence_length=1024
    )
    assert full.moment == "loss"
    assert full.peak_bytes / GIB == pytest.approx(15.42, abs=0.006)
    assert chunked.peak_bytes / GIB == pytest.approx(7.46, abs=0.006)


def _terms(recipe: Recipe, layout: Layout, shape: ModelShape = LLAMA_7B) -> dict[str, int]:
    estimate = estimate_memory(shape, recipe, layout, micro_batch_sequences=1, sequence_length=2048)
    return {term.name: term.moments["step"] for term in estimate.terms}


def test_mixed_precision_adam_takes_sixteen_bytes_a_parameter() -> None:
    """ZeRO (1910.02054), section 3.1: 2 + 2 + 12."""
    terms = _terms(Recipe(master_weights=True, optimizer_impl="fused"), Layout())
    states = sum(terms[name] for name in ("weights", "gradients", "optimizer states", "master weights"))
    assert states == 16 * LLAMA_7B.params


@pytest.mark.parametrize(
    ("sharding", "per_param"), [("zero1", 4 + 12 / 8), ("zero2", 2 + 14 / 8), ("zero3", 16 / 8), ("ddp", 16)]
)
def test_zero_stages_divide_what_they_say(sharding: str, per_param: float) -> None:
    layout = Layout(sharding=sharding, dp=8)  # type: ignore[arg-type]
    terms = _terms(Recipe(master_weights=True, optimizer_impl="fused"), layout)
    states = sum(terms[name] for name in ("weights", "gradients", "optimizer states", "master weights"))
    assert states == pytest.approx(per_param * LLAMA_7B.params, rel=1e-6)


def test_tensor_parallel_divides_matrices_and_activations() -> None:
    whole = estimate_memory(LLAMA_7B, LOOP, micro_batch_sequences=4, sequence_length=2048)
    cut = estimate_memory(LLAMA_7B, LOOP, Layout(tp=8), micro_batch_sequences=4, sequence_length=2048)
    assert cut.saved_for_backward_bytes == pytest.approx(whole.saved_for_backward_bytes / 8, rel=0.001)
    assert cut.peak_bytes == pytest.approx(whole.peak_bytes / 8, rel=0.01)


def test_without_sequence_parallelism_the_stream_is_whole_on_every_rank() -> None:
    """Korthikanti et al. (2205.05198), table 2: s b h (10 + 24/t) against s b h 34/t, for their kernels."""
    split = estimate_memory(LLAMA_7B, LOOP, Layout(tp=8), micro_batch_sequences=1, sequence_length=2048)
    whole = estimate_memory(
        LLAMA_7B, LOOP, Layout(tp=8, sequence_parallel=False), micro_batch_sequences=1, sequence_length=2048
    )
    stream = 2048 * 4096 * 2
    extra = whole.saved_for_backward_bytes - split.saved_for_backward_bytes
    assert extra == pytest.approx((4 * LLAMA_7B.layers + 2) * stream * 7 / 8, rel=0.01)


def test_the_first_pipeline_stage_waits_with_the_most_micro_batches() -> None:
    recipe = replace(LOOP, accumulation=16)
    estimate = estimate_memory(LLAMA_7B, recipe, Layout(pp=4), micro_batch_sequences=4, sequence_length=2048)
    one = estimate_memory(LLAMA_7B, recipe, Layout(), micro_batch_sequences=4, sequence_length=2048)
    waiting = next(term.bytes for term in estimate.terms if term.name == "waiting micro-batches")
    layers = one.saved_for_backward_bytes - 4 * 2048 * (4 * 4096 + 4 + 4 * 32000)
    assert estimate.stage == 0
    assert waiting == 3 * layers // 4


def test_experts_are_sharded_only_over_ranks_that_share_them() -> None:
    moe = replace(LLAMA_7B, num_experts=8, experts_per_token=2)
    recipe = Recipe(optimizer_impl="fused")
    together = _terms(recipe, Layout(sharding="zero1", dp=8), moe)["optimizer states"]
    apart = _terms(recipe, Layout(sharding="zero1", dp=8, ep=8), moe)["optimizer states"]
    assert together == pytest.approx(apart, rel=1e-3)  # an eighth of eight experts, or a whole one
    weights = _terms(recipe, Layout(sharding="zero1", dp=8, ep=8), moe)["weights"]
    assert weights == 2 * (moe.params - 7 * moe.layers * moe.expert_params)


def test_states_of_each_optimizer_per_parameter() -> None:
    def per_param(optimizer: str, rank: int = 256) -> float:
        recipe = Recipe(precision="fp32", optimizer=optimizer, optimizer_rank=rank)  # type: ignore[arg-type]
        return _terms(recipe, Layout()).get("optimizer states", 0) / LLAMA_7B.params

    assert per_param("adamw") == 8
    assert per_param("lamb") == 8
    assert per_param("lion") == 4
    assert per_param("sgd") == 0
    assert per_param("sgd-momentum") == 4
    assert per_param("muon") == pytest.approx(4, rel=1e-3)
    assert per_param("adamw-8bit") == pytest.approx(2 + 8 / 256, rel=1e-3)
    assert per_param("adafactor") < 0.01
    assert per_param("apollo") == pytest.approx(8 * 256 / 4096, rel=0.15)


def test_recomputed_layers_take_only_what_they_start_from_off_the_device() -> None:
    def traffic(recompute: str, recomputed: int | None, offloaded: int | None) -> int:
        estimate = estimate_memory(
            LLAMA_7B, replace(LOOP, recompute=recompute, recompute_layers=recomputed),
            Layout(offload="activations", offload_layers=offloaded), micro_batch_sequences=1, sequence_length=2048,
        )  # fmt: skip
        (part,) = estimate.moved
        assert part.traffic == 2 * part.bytes
        return part.bytes

    whole, start = traffic("none", None, 1), traffic("full", 1, 1)
    assert start == 2048 * 4096 * 2
    assert whole > 10 * start
    assert traffic("full", 3, 8) == 3 * start + 5 * whole
    assert traffic("full", 8, 3) == 3 * start
    assert traffic("full", None, None) == 32 * start


def test_offloaded_states_move_to_the_host() -> None:
    here = estimate_memory(LLAMA_7B, LOOP, micro_batch_sequences=1, sequence_length=2048)
    moved = estimate_memory(
        LLAMA_7B, LOOP, Layout(offload="optimizer"), micro_batch_sequences=1, sequence_length=2048
    )
    assert here.host_bytes == 0
    assert moved.host_bytes > 4 * LLAMA_7B.params
    assert moved.peak_bytes < here.peak_bytes - 3 * LLAMA_7B.params


def test_a_quantised_base_shrinks_frozen_weights_alone() -> None:
    lora = Recipe(lora_rank=16, optimizer_impl="fused")
    quantised = replace(lora, base_bits=4)
    plain = estimate_memory(LLAMA_7B, lora, micro_batch_sequences=1, sequence_length=2048)
    small = estimate_memory(LLAMA_7B, quantised, micro_batch_sequences=1, sequence_length=2048)
    assert plain.saved_for_backward_bytes == small.saved_for_backward_bytes
    assert 2 * LLAMA_7B.params * 0.6 < plain.peak_bytes - small.peak_bytes < 2 * LLAMA_7B.params * 0.75


def test_backward_in_chunks_of_the_sequence_lowers_its_peak() -> None:
    full = replace(LOOP, recompute="full", optimizer="sgd", logits="chunked", logit_chunks=64)
    chunked = replace(full, sequence_chunks=8)
    long = {"micro_batch_sequences": 1, "sequence_length": 65536}
    before, after = (
        estimate_memory(LLAMA_7B, recipe, **long).moments["backward"] for recipe in (full, chunked)
    )
    layer = (16 * LLAMA_7B.width + 8 * LLAMA_7B.ffn + 4 * LLAMA_7B.heads + 8) * long["sequence_length"]
    assert 0.7 * layer < before - after < 7 / 8 * layer  # a layer's activations, of which one piece is alive


@given(
    batch=st.integers(1, 8),
    length=st.sampled_from([128, 512, 2048]),
    recompute=st.sampled_from(["none", "selective", "full"]),
    precision=st.sampled_from(["bf16", "bf16-autocast", "fp32"]),
    experts=st.sampled_from([1, 4]),
    activation=st.sampled_from(["swiglu", "gelu"]),
    accumulation=st.sampled_from([1, 4]),
)
@settings(max_examples=40, deadline=None)
def test_estimates_are_consistent(
    batch: int, length: int, recompute: str, precision: str, experts: int, activation: str, accumulation: int
) -> None:
    shape = ModelShape(
        layers=4,
        width=256,
        ffn=512,
        heads=4,
        kv_heads=2,
        vocab=1000,
        num_experts=experts,
        activation=activation,
    )  # type: ignore[arg-type]
    recipe = Recipe(recompute=recompute, precision=precision, accumulation=accumulation)  # type: ignore[arg-type]

    def at(sequences: int, recipe: Recipe = recipe) -> int:
        return estimate_memory(
            shape, recipe, micro_batch_sequences=sequences, sequence_length=length
        ).peak_bytes

    estimate = estimate_memory(shape, recipe, micro_batch_sequences=batch, sequence_length=length)
    assert sum(term.bytes for term in estimate.terms) == estimate.peak_bytes == max(estimate.moments.values())
    assert all(size >= 0 for term in estimate.terms for size in term.moments.values())
    assert at(batch) <= at(batch + 1)
    assert at(batch, replace(recipe, optimizer_impl="fused")) <= at(batch)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (Layout(tp=3), "32 attention heads cannot be split over 3"),
        (Layout(pp=64), "32 layers are fewer than 64 pipeline stages"),
        (Layout(cp=3), "2048 tokens cannot be split over 3"),
        (Layout(sharding="ddp", dp=2, ep=2), "1 experts cannot be split over 2"),
    ],
)
def test_layouts_that_do_not_divide(layout: Layout, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        estimate_memory(LLAMA_7B, Recipe(), layout, micro_batch_sequences=1, sequence_length=2048)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recipe(precision="fp64"), "precision 'fp64' is not known"),  # type: ignore[arg-type]
        (lambda: Recipe(accumulation=0), "accumulation is 0"),
        (lambda: Recipe(dropout=1.0), "dropout is 1.0"),
        (lambda: Recipe(precision="fp32", master_weights=True), "second copy"),
        (lambda: Recipe(base_bits=4), "frozen weights"),
        (lambda: Layout(tp=0), "tp is 0"),
        (lambda: Layout(dp=4), "need a sharding"),
        (lambda: Layout(sharding="ddp", dp=4, ep=3), "do not divide"),
        (
            lambda: estimate_memory(LLAMA_7B, Recipe(), micro_batch_sequences=0, sequence_length=2048),
            "holds nothing",
        ),
    ],
)
def test_impossible_wishes(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(PlanError, match=message):
        make()
