"""The tracker runs real modules on the meta device; the closed forms have to agree with it byte for byte, nearly."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from random import Random

import pytest
import torch
from torch import nn

from benchmarks.memory_cases import random_case
from scalecli.accounting.memory import Layout, MemoryEstimate, Recipe, estimate_memory
from scalecli.accounting.memory.contrastive import contrastive_bytes
from scalecli.accounting.shape import ModelShape
from scalecli.errors import PlanError
from scalecli.probes.memory import kernels
from scalecli.probes.memory.measure import measure_training
from scalecli.probes.memory.optimizers import FusedAdamW
from scalecli.probes.memory.trace import Trace, trace_foreign, trace_training
from scalecli.probes.memory.tracker import MemoryTracker
from scalecli.probes.subjects.own import OwnFamily
from scalecli.probes.task import Task

TOLERANCE = 1e-3
DENSE = ModelShape(layers=3, width=256, ffn=688, heads=4, kv_heads=4, vocab=1000)
EXPERTS = replace(DENSE, num_experts=4, experts_per_token=2)
SHAPES = {
    "gqa": replace(DENSE, kv_heads=2),
    "gelu": replace(DENSE, activation="gelu"),
    "layer-norm": replace(DENSE, norm="layer"),
    "qk-norm": replace(DENSE, qk_norm=True),
    "tied": replace(DENSE, tied=True, vocab=8000),
    "deep": replace(DENSE, layers=7),
}
FUSED = Recipe(optimizer_impl="fused")
PRECISIONS = ("bf16", "bf16-autocast", "fp32", "fp8")
RECIPES = {
    **{
        f"{precision}-{recompute}": replace(FUSED, precision=precision, recompute=recompute)
        for precision, recompute in product(PRECISIONS, ("none", "selective", "full"))
    },
    "loop": Recipe(optimizer_impl="loop"),
    "foreach": Recipe(optimizer_impl="foreach"),
    "chunked": replace(FUSED, logits="chunked"),
    "chunked-autocast": replace(FUSED, logits="chunked", precision="bf16-autocast"),
    "accumulation": replace(FUSED, accumulation=2),
    "streamed": replace(FUSED, recompute="full", sequence_chunks=4),
}
ONCE = {
    "sgd": Recipe(optimizer="sgd"),
    "sgd-momentum": Recipe(optimizer="sgd-momentum"),
    "muon": Recipe(optimizer="muon"),
    "muon-fp32": Recipe(optimizer="muon", precision="fp32"),
    "lamb": Recipe(optimizer="lamb"),
    "lars": Recipe(optimizer="lars"),
    "lion": Recipe(optimizer="lion", optimizer_impl="loop"),
    "mkor": Recipe(optimizer="mkor"),
    "adafactor": Recipe(optimizer="adafactor", optimizer_impl="loop"),
    "apollo": Recipe(optimizer="apollo", optimizer_rank=16),
    "adamw-8bit": Recipe(optimizer="adamw-8bit"),
    "master": Recipe(master_weights=True, optimizer_impl="loop"),
    "master-foreach": Recipe(master_weights=True),
    "fp8-lm": Recipe(precision="fp8-lm"),
    "fp16-moments": Recipe(precision="fp32", moments="fp16"),
    "fp32-gradients": Recipe(gradients="fp32", optimizer="sgd"),
    "lora": replace(FUSED, lora_rank=8),
    "lora-everywhere": replace(FUSED, lora_rank=8, lora_targets="all"),
    "lora-autocast": replace(FUSED, lora_rank=8, precision="bf16-autocast"),
    "lora-selective": replace(FUSED, lora_rank=8, recompute="selective"),
    "lora-full": replace(FUSED, lora_rank=8, recompute="full"),
    "lora-quantised": replace(FUSED, lora_rank=8, base_bits=4),
    "bitfit": replace(FUSED, tuning="bitfit"),
    "difffit": replace(FUSED, tuning="difffit"),
    "ia3": replace(FUSED, tuning="ia3"),
    "dropout": replace(FUSED, dropout=0.1),
    "dropout-autocast-full": replace(FUSED, dropout=0.1, precision="bf16-autocast", recompute="full"),
    "decomposed-norm": replace(FUSED, norm="decomposed"),
    "stored-scores": replace(FUSED, attention="stored", dropout=0.1),
    "two-layers-recomputed": replace(FUSED, recompute="full", recompute_layers=2),
    "compressed": replace(FUSED, saved_compression=4),
    "sampled-rows": replace(FUSED, sampled_rows=0.3),
    "contrast": replace(FUSED, contrastive_pairs=512),
    "contrast-tiled": replace(FUSED, contrastive_pairs=512, contrastive_tile=64),
}
FEW = ("bf16-none", "bf16-autocast-selective", "fp32-full", "accumulation")
CASES = [
    *[pytest.param(shape, recipe, id=f"{s}-{r}") for s, shape in (("dense", DENSE), ("experts", EXPERTS))
      for r, recipe in RECIPES.items()],
    *[pytest.param(shape, RECIPES[r], id=f"{s}-{r}") for s, shape in SHAPES.items() for r in FEW],
    *[pytest.param(DENSE, recipe, id=name) for name, recipe in ONCE.items()],
]  # fmt: skip
SIZE = {"micro_batch_sequences": 2, "sequence_length": 128}


def assert_agreement(counted: MemoryEstimate, traced: Trace) -> None:
    """Every moment and what is saved for backward; the moments themselves are told apart by the tracker too."""
    assert counted.saved_for_backward_bytes == pytest.approx(traced.saved_for_backward_bytes, rel=TOLERANCE)
    for moment, peak in traced.peaks.items():
        assert counted.moments[moment] == pytest.approx(peak, rel=TOLERANCE), moment


@pytest.mark.parametrize(("shape", "recipe"), CASES)
def test_closed_forms_agree_with_the_tracker(shape: ModelShape, recipe: Recipe) -> None:
    assert_agreement(estimate_memory(shape, recipe, **SIZE), trace_training(shape, recipe, **SIZE))


LAYOUTS = {
    "tensor": Layout(tp=4),
    "tensor-without-sequence": Layout(tp=4, sequence_parallel=False),
    "pipeline": Layout(pp=2),
    "tensor-and-pipeline": Layout(tp=2, pp=3),
    "context": Layout(cp=2),
    "activations-offloaded": Layout(offload="activations"),
    "two-layers-offloaded": Layout(offload="activations", offload_layers=2),
}
CUT = {
    "plain": replace(FUSED, accumulation=4),
    "autocast": replace(FUSED, precision="bf16-autocast", accumulation=2),
    "full": replace(FUSED, recompute="full", logits="chunked"),
    "lora": replace(FUSED, lora_rank=4, dropout=0.1),
    "one-layer-full": replace(FUSED, recompute="full", recompute_layers=1),
}


@pytest.mark.parametrize("recipe", CUT.values(), ids=CUT)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_one_device_of_a_layout(layout: Layout, recipe: Recipe) -> None:
    """The worst stage; its neighbours are only tensors that come and go."""
    counted = estimate_memory(DENSE, recipe, layout, **SIZE)
    assert_agreement(counted, trace_training(DENSE, recipe, layout, stage=counted.stage, **SIZE))


@pytest.mark.parametrize("tp", [1, 2])
def test_experts_spread_over_devices(tp: int) -> None:
    layout = Layout(ep=2, dp=2, tp=tp, sharding="ddp", bucket_views=True)
    recipe = replace(FUSED, accumulation=2)
    counted = estimate_memory(EXPERTS, recipe, layout, **SIZE)
    assert_agreement(counted, trace_training(EXPERTS, recipe, layout, **SIZE))


@pytest.mark.parametrize("seed", range(24))
def test_random_shapes_recipes_and_layouts(seed: int) -> None:
    case = random_case(Random(seed))
    counted = estimate_memory(case.shape, case.recipe, case.layout, **case.size)
    traced = trace_training(case.shape, case.recipe, case.layout, stage=counted.stage, **case.size)
    assert_agreement(counted, traced)


def test_llama_7b_traced_at_full_depth() -> None:
    shape = ModelShape(layers=32, width=4096, ffn=11008, heads=32, kv_heads=32, vocab=32000)
    recipe = Recipe(optimizer_impl="loop")
    traced = trace_training(shape, recipe, micro_batch_sequences=1, sequence_length=2048)
    assert traced.peak_bytes / 2**30 == pytest.approx(50.69, abs=0.006)
    assert traced.saved_for_backward_bytes / 2**30 == pytest.approx(9.6587, abs=0.001)
    assert traced.moment == "step"


def test_contrastive_loss_is_quadratic_until_it_is_tiled() -> None:
    pairs, width = 512, 16
    with MemoryTracker() as tracker, torch.device("meta"):
        images, texts = (torch.empty(pairs, width, requires_grad=True) for _ in range(2))
        targets = torch.zeros(pairs, dtype=torch.int64)
        before = tracker.live
        similarities = images @ texts.T
        loss = nn.functional.cross_entropy(similarities, targets) + nn.functional.cross_entropy(
            similarities.T, targets
        )
        del similarities
        loss.backward()
    assert contrastive_bytes(pairs) == pytest.approx(tracker.peak - before, rel=TOLERANCE)
    assert contrastive_bytes(8 * pairs, tile=64) < contrastive_bytes(8 * pairs) / 60
    with pytest.raises(PlanError, match="0 pairs"):
        contrastive_bytes(0)


def test_tracker_counts_storages_once_and_until_they_die() -> None:
    with MemoryTracker() as tracker:
        x = torch.empty(256)
        view, alias = x[:10], x.t()
        assert tracker.live == 1024
        del x, view
        assert tracker.live == 1024
        del alias
    assert tracker.live == 0
    assert tracker.peak == 1024


def test_attention_kernel_is_causal_attention_with_rotary_positions() -> None:
    torch.manual_seed(0)
    batch, length, heads, kv_heads, size = 2, 272, 4, 2, 8
    packed = torch.randn(
        batch, length, (heads + 2 * kv_heads) * size, dtype=torch.float64, requires_grad=True
    )
    split = packed.view(batch, length, -1, size).transpose(1, 2).split((heads, kv_heads, kv_heads), dim=1)
    turn = kernels.rotation(length, size, packed)
    queries, keys = (kernels.rotate(x, turn, 1) for x in split[:2])
    expected = nn.functional.scaled_dot_product_attention(
        queries, keys, split[2], is_causal=True, enable_gqa=True
    )
    out, _ = kernels.attention(packed, heads, kv_heads)
    torch.testing.assert_close(out, expected.transpose(1, 2).flatten(2), rtol=1e-6, atol=1e-6)
    weights = torch.randn_like(out)
    (wanted,) = torch.autograd.grad((expected.transpose(1, 2).flatten(2) * weights).sum(), packed)
    (found,) = torch.autograd.grad((out * weights).sum(), packed)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_norm_kernel_is_rms_norm() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, kernels.ROWS, 5, requires_grad=True)
    weight = torch.randn(5, requires_grad=True)
    expected = nn.functional.rms_norm(x, (5,), weight, kernels.NORM_EPSILON)
    out, _ = kernels.rms_norm(x, weight)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(
        torch.autograd.grad(out.square().sum(), (x, weight)),
        torch.autograd.grad(expected.square().sum(), (x, weight)),
    )


def test_fused_adamw_is_pytorchs() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Parameter(torch.ones(7)), nn.Parameter(torch.ones(7))
    mine = FusedAdamW([ours])
    reference = torch.optim.AdamW([theirs], lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    for _ in range(3):
        gradient = torch.randn(7)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        reference.step()
    torch.testing.assert_close(ours, theirs)


def test_what_cannot_be_traced_says_so() -> None:
    with pytest.raises(PlanError, match="muon with states of another format"):
        trace_training(DENSE, Recipe(optimizer="muon", master_weights=True), **SIZE)


def test_closed_forms_never_load_torch() -> None:
    code = "import sys, scalecli.plan.memory; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_tracker_agrees_with_the_resident_memory_of_a_real_training() -> None:
    shape = ModelShape(layers=1, width=64, ffn=176, heads=2, kv_heads=2, vocab=50000)
    recipe = Recipe(precision="fp32", optimizer="sgd")
    size = {"micro_batch_sequences": 4, "sequence_length": 256}
    measured = measure_training(shape, recipe, **size)
    assert trace_training(shape, recipe, **size).peak_bytes == pytest.approx(
        measured.allocated_bytes, rel=0.01
    )


class PlainBlock(nn.Module):
    """Somebody's attention layer, written with PyTorch's functions."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(64)
        self.packed, self.out = nn.Linear(64, 192, bias=False), nn.Linear(64, 64, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        split = self.packed(self.norm(x)).unflatten(-1, (3, 4, 16)).transpose(1, 3).unbind(2)
        mixed = nn.functional.scaled_dot_product_attention(*split, is_causal=True)
        return x + self.out(mixed.transpose(1, 2).flatten(2))


def plain_task(*, width: int, depth: int, seed: int) -> Task:
    def batches(split: str, size: int, seed: int) -> Iterator[torch.Tensor]:
        while True:
            yield torch.zeros(size, 128, 64)

    return Task(model=PlainBlock(), losses=lambda model, x: model(x).sum(dim=(1, 2)), batches=batches)


def test_a_model_of_the_users_is_traced_with_the_footprint_of_fused_kernels() -> None:
    shape = OwnFamily(f"{__name__}:plain_task", aspect=32).member(64)
    fp32 = replace(FUSED, precision="fp32")
    traced = trace_foreign(shape, fp32, micro_batch_sequences=2, sequence_length=1)
    tokens, width = 2 * 128, 64
    # Normed stream, packed projection, attention output; log-sum-exp of 4 heads; deviation of the norm; the result.
    expected = 4 * tokens * (width + 3 * width + width) + 4 * tokens * 4 + 4 * tokens + 4 * tokens * width
    assert traced.saved_for_backward_bytes == pytest.approx(expected, rel=0.3)
    assert traced.saved_for_backward_bytes < 2 * 4 * 128 * 128 * 4  # less than the scores alone


def conv_task(*, width: int, depth: int, seed: int) -> Task:
    def batches(split: str, size: int, seed: int) -> Iterator[torch.Tensor]:
        while True:
            yield torch.zeros(size, 3, 8, 8)

    model = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width))
    return Task(model=model, losses=lambda model, x: model(x).sum(dim=(1, 2, 3)), batches=batches)


def test_statistics_over_a_micro_batch_are_noticed() -> None:
    size = {"micro_batch_sequences": 2, "sequence_length": 1}
    traced = [
        trace_foreign(OwnFamily(f"{__name__}:{name}", aspect=32).member(64), FUSED, **size)
        for name in ("conv_task", "plain_task")
    ]
    assert [each.has_batch_norm for each in traced] == [True, False]
