"""Sizes that kernels like."""

from dataclasses import replace

from scalecli.accounting.memory import Recipe
from scalecli.accounting.shape import ModelShape
from scalecli.plan.dimensions import odd_head, roundings

GPT2 = ModelShape(
    layers=12,
    width=768,
    ffn=3072,
    heads=12,
    kv_heads=12,
    vocab=50257,
    activation="gelu",
    norm="layer",
    tied=True,
)


def test_gpt2s_vocabulary_is_rounded_to_the_known_size() -> None:
    (found,) = roundings(GPT2, Recipe())
    assert (found.name, found.value, found.rounded) == ("vocabulary", 50257, 50304)
    assert found.more_params == 47 * 768


def test_parts_of_tensor_parallel_ranks_are_aligned_too() -> None:
    shape = replace(GPT2, vocab=50304, ffn=3072)
    assert not list(roundings(shape, Recipe(), tensor_parallel=1))
    assert [(r.name, r.rounded) for r in roundings(shape, Recipe(), tensor_parallel=4)] == [
        ("vocabulary", 50432)
    ]


def test_float32_rows_are_shorter() -> None:
    assert not list(roundings(replace(GPT2, vocab=50272), Recipe(precision="fp32")))


def test_a_width_that_heads_do_not_divide_has_no_rounding() -> None:
    odd = replace(GPT2, width=780, ffn=3072, heads=12, vocab=50304)
    assert "width" not in {r.name for r in roundings(odd, Recipe())}


def test_heads_without_a_kernel() -> None:
    assert odd_head(GPT2) is None
    assert odd_head(replace(GPT2, width=780)) == 65
    assert odd_head(replace(GPT2, heads=2, kv_heads=2)) == 384
