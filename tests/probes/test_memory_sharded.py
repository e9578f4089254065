"""Fully sharded and distributed data parallel over a fake process group: the closed forms against the tracker."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from scalecli.accounting.memory import Layout, MemoryEstimate, Recipe, estimate_memory
from scalecli.accounting.memory.rank import rank_of
from scalecli.accounting.shape import ModelShape
from scalecli.probes.memory.decoder import TracedDecoder, weight_type
from scalecli.probes.memory.tracker import MemoryTracker
from scalecli.probes.memory.training import make_optimizers

RANKS = 8
SHAPE = ModelShape(layers=5, width=128, ffn=344, heads=4, kv_heads=2, vocab=1001)  # rows that need padding
TOLERANCE = 1e-3


@pytest.fixture
def group() -> Iterator[None]:
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=RANKS)
    yield
    dist.destroy_process_group()


def decoder(recipe: Recipe, length: int) -> TracedDecoder:
    before = torch.get_default_dtype()
    torch.set_default_dtype(weight_type(recipe))
    rank = rank_of(SHAPE, recipe, Layout(), micro_batch_sequences=1, sequence_length=length, stage=0)
    model = TracedDecoder(rank, recipe, Layout())
    torch.set_default_dtype(before)
    return model


def sharded(recipe: Recipe, layout: Layout, mesh: DeviceMesh, length: int) -> TracedDecoder:
    """Every layer a unit of its own; embedding, final norm and head in the outermost one."""
    model, options = decoder(recipe, length), dict[str, Any](mesh=mesh)
    if recipe.precision == "bf16-autocast":
        options["mp_policy"] = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    if not layout.reshard_after_forward:
        options["reshard_after_forward"] = False
    for layer in model.layers:
        fully_shard(layer, **options)
    fully_shard(model, **options)
    return model


def mesh_of(layout: Layout) -> DeviceMesh:
    if layout.shard_group is None:
        return init_device_mesh("cpu", (RANKS,))
    shape = RANKS // layout.shard_group, layout.shard_group
    return init_device_mesh("cpu", shape, mesh_dim_names=("replicate", "shard"))


@contextmanager
def tracked() -> Iterator[MemoryTracker]:
    tracker = MemoryTracker()
    with FakeTensorMode(allow_non_fake_inputs=True), tracker, torch.device("cpu"):
        yield tracker


def one_step(model: nn.Module, recipe: Recipe, length: int, tracker: MemoryTracker) -> None:
    """Forward, loss and backward of every micro-batch."""
    tokens = torch.zeros(1, length, dtype=torch.int64)
    targets = torch.zeros_like(tokens)

    def on_hidden(hidden: torch.Tensor) -> None:
        tracker.enter("loss")
        hidden.register_hook(lambda _: tracker.enter("backward"))

    for _ in range(recipe.accumulation):
        tracker.enter("forward")
        model(tokens, targets, on_hidden).backward()


def counted(recipe: Recipe, layout: Layout, length: int) -> MemoryEstimate:
    return estimate_memory(SHAPE, recipe, layout, micro_batch_sequences=1, sequence_length=length)


def term(estimate: MemoryEstimate, name: str) -> int:
    return next((found.moments["step"] for found in estimate.terms if found.name == name), 0)


FULLY_SHARDED = Layout(sharding="zero3", dp=RANKS)
CASES = {
    "bf16": (Recipe(), FULLY_SHARDED),
    "autocast": (Recipe(precision="bf16-autocast"), FULLY_SHARDED),
    "fp32": (Recipe(precision="fp32"), FULLY_SHARDED),
    "kept-after-forward": (Recipe(), replace(FULLY_SHARDED, reshard_after_forward=False)),
    "groups-of-4": (Recipe(), replace(FULLY_SHARDED, shard_group=4)),
    "accumulation": (Recipe(precision="bf16-autocast", accumulation=2), FULLY_SHARDED),
    "full-recompute": (Recipe(recompute="full"), FULLY_SHARDED),
    "selective-recompute": (Recipe(recompute="selective"), FULLY_SHARDED),
    "lora": (Recipe(lora_rank=4), FULLY_SHARDED),
    "chunked-loss": (Recipe(logits="chunked"), FULLY_SHARDED),
}


@pytest.mark.parametrize("length", [16, 512])
@pytest.mark.parametrize(("recipe", "layout"), CASES.values(), ids=CASES)
def test_fully_sharded(group: None, recipe: Recipe, layout: Layout, length: int) -> None:
    """Every moment before the optimizer step; states are left out, which a fake step cannot be asked for."""
    mesh = mesh_of(layout)
    with tracked() as tracker:
        one_step(sharded(recipe, layout, mesh, length), recipe, length, tracker)
    estimate = counted(recipe, layout, length)
    for moment in ("forward", "loss", "backward"):
        found = estimate.moments[moment] - term(estimate, "optimizer states")
        assert found == pytest.approx(tracker.peaks[moment], rel=TOLERANCE), moment


def test_fully_sharded_optimizer_states_category_by_category(group: None) -> None:
    """Real tensors: under fake ones the tracker would count the propagation of shapes through sharded tensors."""
    recipe = Recipe(precision="fp32", optimizer_impl="loop")
    mesh, tracker = mesh_of(FULLY_SHARDED), MemoryTracker()
    with tracker:
        model = sharded(recipe, FULLY_SHARDED, mesh, 16)
        weights = tracker.live
        (optimizer,) = make_optimizers(model, recipe)
        one_step(model, recipe, 16, tracker)
        gradients = tracker.live - weights
        optimizer.step()
        states = tracker.live - weights - gradients
    estimate = counted(recipe, FULLY_SHARDED, 16)
    assert weights == pytest.approx(term(estimate, "weights"), rel=TOLERANCE)
    assert gradients == pytest.approx(term(estimate, "gradients"), rel=TOLERANCE)
    assert states == pytest.approx(term(estimate, "optimizer states"), rel=TOLERANCE)


@pytest.mark.parametrize("views", [False, True])
def test_distributed_data_parallel(group: None, views: bool) -> None:
    """Every gradient is copied into a bucket, or is a view of it."""
    recipe, tracker = Recipe(), MemoryTracker()
    with tracker:
        model = nn.parallel.DistributedDataParallel(decoder(recipe, 256), gradient_as_bucket_view=views)
        model.register_comm_hook(None, _unreduced)
        for _ in range(2):  # buckets are rebuilt after the first
            model.zero_grad()
            tracker.peaks.clear()
            one_step(model, recipe, 256, tracker)
    estimate = counted(recipe, Layout(sharding="ddp", dp=RANKS, bucket_views=views), 256)
    for moment in ("forward", "loss", "backward"):
        found = estimate.moments[moment] - term(estimate, "optimizer states")
        assert found == pytest.approx(tracker.peaks[moment], rel=TOLERANCE), moment


def _unreduced(_: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    future = torch.futures.Future[torch.Tensor]()
    future.set_result(bucket.buffer())
    return future
