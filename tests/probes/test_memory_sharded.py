"""Fully sharded data parallel (FSDP2) over a fake process group: the closed forms of zero3 against the tracker."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from scalecli.accounting.memory import Layout, Recipe, estimate_memory
from scalecli.accounting.shape import ModelShape
from scalecli.probes.memory.decoder import TracedDecoder
from scalecli.probes.memory.tracker import MemoryTracker

RANKS = 8
SHAPE = ModelShape(layers=4, width=512, ffn=1376, heads=8, kv_heads=8, vocab=8000)


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=RANKS)
    yield init_device_mesh("cpu", (RANKS,))
    dist.destroy_process_group()


def sharded_decoder(recipe: Recipe, mesh: DeviceMesh) -> TracedDecoder:
    """Every layer a unit of its own, embedding and head in the outermost one."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    model = TracedDecoder(SHAPE, recipe)
    torch.set_default_dtype(before)
    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


@pytest.mark.parametrize("length", [128, 1024])
def test_every_moment_of_a_sharded_step_is_counted(mesh: DeviceMesh, length: int) -> None:
    """Forward, loss and backward; optimizer states are left out, whose sharding is plain division."""
    recipe = Recipe()
    tracker = MemoryTracker()

    def on_hidden(hidden: torch.Tensor) -> None:
        tracker.enter("loss")
        hidden.register_hook(lambda _: tracker.enter("backward"))

    with FakeTensorMode(allow_non_fake_inputs=True), tracker, torch.device("cpu"):
        model = sharded_decoder(recipe, mesh)
        tokens = torch.zeros(1, length, dtype=torch.int64)
        tracker.enter("forward")
        model(tokens, torch.zeros_like(tokens), on_hidden).backward()
    layout = Layout(sharding="zero3", dp=RANKS)
    counted = estimate_memory(SHAPE, recipe, layout, micro_batch_sequences=1, sequence_length=length)
    states = next(term.bytes for term in counted.terms if term.name == "optimizer states")
    for moment in ("forward", "loss", "backward"):
        assert counted.moments[moment] - states == pytest.approx(tracker.peaks[moment], rel=1e-3)
