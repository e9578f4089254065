"""Shapes: counts, realistic defaults, impossible wishes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalecli.accounting.flops import flops_6nd, training_flops, training_flops_per_token
from scalecli.accounting.shape import ModelShape, shape_for_params, with_experts
from scalecli.errors import PlanError

LLAMA_7B = ModelShape(layers=32, width=4096, ffn=11008, heads=32, kv_heads=32, vocab=32000)


def test_llama_has_its_published_number_of_parameters() -> None:
    assert LLAMA_7B.params == 6_738_415_616


def test_gpt3_shape_has_175_billion_parameters() -> None:
    gpt3 = ModelShape(
        layers=96, width=12288, ffn=49152, heads=96, kv_heads=96, vocab=50257,
        activation="gelu", norm="layer", tied=True,
    )  # fmt: skip
    assert gpt3.params == pytest.approx(175e9, rel=0.005)


def test_mixtral_has_its_published_total_and_active_parameters() -> None:
    mixtral = ModelShape(
        layers=32,
        width=4096,
        ffn=14336,
        heads=32,
        kv_heads=8,
        vocab=32000,
        num_experts=8,
        experts_per_token=2,
    )
    assert mixtral.params == pytest.approx(46.7e9, rel=0.002)
    assert mixtral.params_active == pytest.approx(12.9e9, rel=0.002)
    dense = with_experts(mixtral, 1, 1)
    assert dense.params == dense.params_active


@given(
    params=st.floats(3e4, 1e12),
    vocab=st.sampled_from([256, 8192, 32000]),
    kind=st.sampled_from(["total", "non-embedding"]),
)
def test_shapes_meet_their_size_or_say_why_not(params: float, vocab: int, kind: str) -> None:
    try:
        shape = shape_for_params(params, vocab=vocab, kind=kind)  # type: ignore[arg-type]
    except PlanError:
        smallest = 2 * vocab * 16 + 12 * 16**2
        assert params < 1.3 * smallest
        return
    count = shape.params if kind == "total" else shape.params_non_embedding
    assert count == pytest.approx(params, rel=0.25 if params < 1e7 else 0.02)
    assert shape.head_dim % 2 == 0
    assert 2.2 < shape.ffn / shape.width < 3.6 or params < 1e7


@pytest.mark.parametrize(
    ("params", "layers", "width", "head_dim"),
    [(7e9, 32, 4096, 128), (13e9, 40, 5120, 128), (175e9, 96, 12288, 128)],
)
def test_large_shapes_are_those_people_train(params: float, layers: int, width: int, head_dim: int) -> None:
    shape = shape_for_params(params, vocab=32000)
    assert (shape.layers, shape.width, shape.head_dim) == (layers, width, head_dim)


def test_proxies_are_narrower_for_their_depth_than_large_models() -> None:
    small, large = shape_for_params(1e6, vocab=256), shape_for_params(7e10, vocab=32000)
    assert 10 < small.width / small.layers < 64
    assert 100 < large.width / large.layers < 150


def test_a_vocabulary_larger_than_the_model_is_refused() -> None:
    with pytest.raises(PlanError, match="vocabulary of 128256"):
        shape_for_params(1e6, vocab=128256)


@pytest.mark.parametrize("params", [0.0, -1.0, float("nan"), float("inf")])
def test_sizes_that_are_no_sizes(params: float) -> None:
    with pytest.raises(PlanError):
        shape_for_params(params, vocab=256)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 5}, "not a multiple of 5 heads"),
        ({"kv_heads": 3}, "cannot share 3"),
        ({"layers": 0}, "layers is 0"),
        ({"experts_per_token": 2}, "cannot visit 2 of 1"),
    ],
)
def test_impossible_shapes(change: dict[str, int], message: str) -> None:
    sizes = {"layers": 2, "width": 64, "ffn": 128, "heads": 4, "kv_heads": 4, "vocab": 256} | change
    with pytest.raises(PlanError, match=message):
        ModelShape(**sizes)  # type: ignore[arg-type]


def test_flops_of_gpt3_are_those_of_the_megatron_formula() -> None:
    """72 B s l h^2 (1 + s/6h + V/12lh), which counts attention fully (Narayanan et al., 2104.04473, equation 3)."""
    l, h, s, v = 96, 12288, 2048, 51200  # noqa: E741
    shape = ModelShape(layers=l, width=h, ffn=4 * h, heads=96, kv_heads=96, vocab=v, activation="gelu")
    megatron = 72 * s * l * h**2 * (1 + s / (6 * h) + v / (12 * l * h))
    assert training_flops(shape, s, s, attention="full") == pytest.approx(megatron, rel=1e-9)


def test_causal_attention_counts_half_the_scores() -> None:
    full = training_flops_per_token(LLAMA_7B, 4096, attention="full")
    causal = training_flops_per_token(LLAMA_7B, 4096)
    weights = 6 * LLAMA_7B.matmul_params_active
    assert causal - weights == pytest.approx((full - weights) / 2, rel=1e-3)
    assert flops_6nd(1e9, 2e10) == 1.2e20
