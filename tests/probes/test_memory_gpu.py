"""The closed forms against PyTorch's caching allocator."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from scalecli.accounting.memory import Recipe, estimate_memory
from scalecli.accounting.shape import ModelShape
from scalecli.probes.memory import kernels
from scalecli.probes.memory.measure import measure_training

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
SHAPE = ModelShape(layers=8, width=1024, ffn=2816, heads=16, kv_heads=16, vocab=32000)
SIZE = {"micro_batch_sequences": 4, "sequence_length": 1024}
WORKSPACES = 96 * 2**20  # of cuBLAS, one for each handle, and cuBLASLt


@pytest.mark.parametrize(
    ("shape", "recipe"),
    [
        (SHAPE, Recipe(optimizer_impl="fused")),
        (SHAPE, Recipe(precision="bf16-autocast", recompute="selective")),
        (replace(SHAPE, num_experts=4, experts_per_token=2), Recipe(recompute="full", logits="chunked")),
    ],
    ids=["fused", "autocast-selective", "experts-full"],
)
def test_closed_forms_agree_with_the_allocator(shape: ModelShape, recipe: Recipe) -> None:
    measured = measure_training(shape, recipe, device="cuda", **SIZE)
    peak = estimate_memory(shape, recipe, **SIZE).peak_bytes
    assert 0.98 * peak <= measured.allocated_bytes <= 1.02 * peak + WORKSPACES
    assert measured.allocated_bytes <= measured.reserved_bytes <= measured.used_bytes


def test_attention_is_the_same_on_both_devices() -> None:
    torch.manual_seed(0)
    packed = torch.randn(2, 300, 8 * 16, dtype=torch.float64, requires_grad=True)
    there = packed.detach().cuda().requires_grad_()
    for x in (packed, there):
        kernels.attention(x, 4, 2)[0].square().sum().backward()
    assert there.grad is not None
    assert packed.grad is not None
    torch.testing.assert_close(there.grad.cpu(), packed.grad, rtol=1e-3, atol=1e-5)  # log-sum-exp is float32
