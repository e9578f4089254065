"""The decoder against a plain nn.Linear implementation, and its parameter count against the closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scalecli.accounting.shape import ModelShape, shape_for_params
from scalecli.errors import ProbeError
from scalecli.probes.decoder import Decoder, initialise, rotary, rotate
from scalecli.probes.parametrization import Multipliers

SHAPE = ModelShape(layers=2, width=16, ffn=24, heads=4, kv_heads=2, vocab=11)


def decoder(shape: ModelShape, *, copies: int = 1, seeds: list[int] | None = None) -> Decoder:
    model = Decoder(shape, Multipliers.of(shape, "standard", 64), length=16, copies=copies)
    initialise(model, seeds or list(range(copies)))
    return model


@settings(max_examples=30, deadline=None)
@given(
    layers=st.integers(1, 3),
    heads=st.sampled_from([1, 2, 4]),
    shared=st.booleans(),
    head_dim=st.sampled_from([2, 4, 8]),
    ffn=st.integers(1, 40),
    vocab=st.integers(2, 40),
    activation=st.sampled_from(["swiglu", "gelu"]),
    norm=st.sampled_from(["rms", "layer"]),
    tied=st.booleans(),
    qk_norm=st.booleans(),
)
def test_parameter_count_is_the_closed_form(
    layers: int, heads: int, shared: bool, head_dim: int, ffn: int, vocab: int, activation: str, norm: str,
    tied: bool, qk_norm: bool,
) -> None:  # fmt: skip
    shape = ModelShape(
        layers=layers, width=heads * head_dim, ffn=ffn, heads=heads, kv_heads=1 if shared else heads,
        vocab=vocab, activation=activation, norm=norm, tied=tied, qk_norm=qk_norm,
    )  # type: ignore[arg-type]  # fmt: skip
    model = decoder(shape)
    assert sum(parameter.numel() for parameter in model.parameters()) == shape.params
    assert model(torch.zeros(1, 2, 3, dtype=torch.long)).shape == (1, 6, vocab)


@pytest.mark.parametrize("size", [2e4, 1e5, 1e6])
def test_ladder_shapes_have_the_counted_parameters(size: float) -> None:
    shape = shape_for_params(size, vocab=256)
    assert sum(parameter.numel() for parameter in decoder(shape).parameters()) == shape.params


def plain_forward(model: Decoder, tokens: Tensor) -> Tensor:
    """The same network written for one model with F.linear and explicit attention; (b, t) to (b, t, v)."""
    shape = model.shape
    batch, length = tokens.shape
    x = model.embedding[0][tokens]
    for block in model.blocks:
        y = F.rms_norm(x, (shape.width,), block.attention_norm.gain[0])
        widths = [shape.width, shape.kv_heads * shape.head_dim, shape.kv_heads * shape.head_dim]
        query, key, value = (
            F.linear(y, w).view(batch, length, -1, shape.head_dim).transpose(1, 2)
            for w in block.attention.qkv[0].split(widths)
        )
        query, key = plain_rotate(query), plain_rotate(key)
        group = shape.heads // shape.kv_heads
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
        scores = query @ key.mT / math.sqrt(shape.head_dim)
        scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, length, shape.width)
        x = x + F.linear(mixed, block.attention.out[0])
        y = F.rms_norm(x, (shape.width,), block.feed_forward_norm.gain[0])
        gate, up = F.linear(y, block.feed_forward.up[0]).chunk(2, -1)
        x = x + F.linear(F.silu(gate) * up, block.feed_forward.down[0])
    return F.linear(F.rms_norm(x, (shape.width,), model.norm.gain[0]), model.head[0])


def plain_rotate(x: Tensor) -> Tensor:
    """Rotary positions with sines and cosines, (b, h, t, d)."""
    length, dim = x.shape[-2:]
    out = torch.empty_like(x)
    for i in range(dim // 2):
        angle = torch.arange(length) * 10_000.0 ** (-2 * i / dim)
        even, odd = x[..., 2 * i], x[..., 2 * i + 1]
        out[..., 2 * i] = even * angle.cos() - odd * angle.sin()
        out[..., 2 * i + 1] = even * angle.sin() + odd * angle.cos()
    return out


def test_forward_and_gradient_equal_a_plain_implementation() -> None:
    model = decoder(SHAPE)
    torch.nn.init.normal_(model.head, std=0.3)
    tokens = torch.randint(0, SHAPE.vocab, (3, 7))
    ours = model(tokens[None])[0].view(3, 7, -1)
    plain = plain_forward(model, tokens)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
    weight = torch.randn_like(ours)
    ours_grads = torch.autograd.grad((ours * weight).sum(), list(model.parameters()))
    plain_grads = torch.autograd.grad((plain * weight).sum(), list(model.parameters()))
    torch.testing.assert_close(ours_grads, plain_grads, rtol=1e-3, atol=1e-4)


def test_copies_are_the_models_they_would_be_alone() -> None:
    shape = replace(SHAPE, qk_norm=True)
    tokens = torch.randint(0, SHAPE.vocab, (3, 2, 5))
    stacked = decoder(shape, copies=3, seeds=[4, 5, 6])
    torch.nn.init.ones_(stacked.head)
    for copy, seed in enumerate([4, 5, 6]):
        alone = decoder(shape, seeds=[seed])
        torch.nn.init.ones_(alone.head)
        torch.testing.assert_close(stacked(tokens)[copy], alone(tokens[copy : copy + 1])[0])


def test_positions_are_relative() -> None:
    rotation = rotary(12, 8)
    query, key = torch.randn(2, 8)
    turned = [rotate(vector.expand(1, 12, 1, 8), rotation)[0, :, 0] for vector in (query, key)]
    scores = turned[0] @ turned[1].T
    torch.testing.assert_close(scores[5, 2], scores[9, 6])


def test_nothing_sees_the_future() -> None:
    model = decoder(SHAPE)
    torch.nn.init.normal_(model.head)
    tokens = torch.randint(0, SHAPE.vocab, (1, 1, 8))
    changed = tokens.clone()
    changed[..., 5] = (tokens[..., 5] + 1) % SHAPE.vocab
    difference = (model(tokens) - model(changed))[0].abs().sum(-1)
    assert (difference[:5] == 0).all()
    assert (difference[5:] > 0).all()


def test_heads_of_odd_dimension_are_refused() -> None:
    with pytest.raises(ProbeError, match="even"):
        decoder(replace(SHAPE, width=20, heads=4, kv_heads=4))


MIXTURE = replace(SHAPE, num_experts=4, experts_per_token=2)


def test_a_mixture_has_the_counted_parameters() -> None:
    model = decoder(MIXTURE, copies=2)
    assert sum(parameter[0].numel() for parameter in model.parameters()) == MIXTURE.params


def test_tokens_visit_their_best_experts_with_weights_that_add_to_one() -> None:
    experts = decoder(MIXTURE).blocks[0].feed_forward
    x = torch.randn(1, 6, MIXTURE.width)
    likes = torch.bmm(x, experts.router.mT).softmax(-1)[0]
    expected = torch.zeros(6, MIXTURE.width)
    for token in range(6):
        weights, chosen = likes[token].topk(2)
        for weight, expert in zip(weights / weights.sum(), chosen, strict=True):
            gate, up = (x[0, token] @ experts.up[0].chunk(4)[expert].mT).chunk(2)
            expected[token] += weight * ((F.silu(gate) * up) @ experts.down[0].chunk(4)[expert].mT)
    torch.testing.assert_close(experts(x)[0], expected)


def test_visiting_every_expert_of_equal_weights_is_the_dense_block() -> None:
    mixture = decoder(replace(SHAPE, num_experts=2, experts_per_token=2)).blocks[0].feed_forward
    dense = decoder(SHAPE).blocks[0].feed_forward
    with torch.no_grad():
        mixture.up.copy_(dense.up.repeat(1, 2, 1))
        mixture.down.copy_(dense.down.repeat(1, 2, 1))
    x = torch.randn(1, 5, SHAPE.width)
    torch.testing.assert_close(mixture(x), dense(x))


def test_the_bias_moves_tokens_to_idle_experts() -> None:
    experts = decoder(MIXTURE).blocks[0].feed_forward
    with torch.no_grad():
        experts.router[0, 0] += 0.1
    x = torch.randn(1, 200, MIXTURE.width).abs()

    def imbalance() -> float:
        experts.load.zero_()
        experts(x)
        return float(experts.load.max() / experts.load.mean())

    before = imbalance()
    for _ in range(500):
        experts(x)
        experts.balance()
    assert before > 1.6
    assert imbalance() < 1.3
