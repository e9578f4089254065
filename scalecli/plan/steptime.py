"""How long one optimizer step takes under a layout: computation, bubble, exposed communication, optimizer.

Model FLOPs are exact (head and causal attention counted); recomputation adds time but no model FLOPs. Communication
volumes are those of ring collectives over the stated links.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib.resources import files

from scalecli.accounting.flops import training_flops_per_token
from scalecli.accounting.memory import Layout, Recipe, pipeline, saved
from scalecli.accounting.memory.offload import moved_parts
from scalecli.accounting.memory.rank import Rank, rank_of
from scalecli.accounting.memory.weights import all_weights
from scalecli.accounting.shape import ModelShape
from scalecli.data.catalogue import Accelerator
from scalecli.errors import PlanError

# Share of a link's bandwidth that collectives reach at training message sizes (bus bandwidth of NVIDIA's NCCL tests).
LINK_EFFICIENCY = 0.75
# Share of a micro-batch's computation that data-parallel collectives can hide behind.
OVERLAP = 0.8
# The vendor's network where a data sheet names none: one 100 Gbit/s port for each device.
DEFAULT_NETWORK = 12.5e9
# One direction of PCIe 4.0 with 16 lanes, at the share that pinned copies reach.
HOST_BANDWIDTH = 25e9
# A forward pass is one third of the FLOPs of forward and backward.
RECOMPUTED_SHARE = 1 / 3
OPTIMIZER_PASSES = 2  # states are read and written once a step


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """Share of the dense peak that computation reaches, with the range that publications give."""

    value: float
    low: float
    high: float
    source: str
    known: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Seconds of one optimizer step by cause; they add up."""

    compute: float
    recompute: float
    bubble: float
    tensor_parallel: float
    context_parallel: float
    expert_parallel: float
    data_parallel: float
    pipeline: float
    optimizer: float
    offload: float
    offload_bandwidth: float
    """Between device and host, to hide all transfers behind computation [bytes/s]."""
    model_flops_per_device: float
    peak_flops: float
    efficiency: Efficiency

    @property
    def seconds(self) -> float:
        return (
            self.compute + self.recompute + self.bubble + self.tensor_parallel + self.context_parallel
            + self.expert_parallel + self.data_parallel + self.pipeline + self.optimizer + self.offload
        )  # fmt: skip

    @property
    def mfu(self) -> float:
        """Model FLOPs utilisation: model FLOPs of the step over what the dense peak could do in its time."""
        return self.model_flops_per_device / (self.seconds * self.peak_flops)

    def mfu_range(self) -> tuple[float, float]:
        """MFU at the ends of the efficiency's range; what is not computation stays as long."""
        rest = self.seconds - (self.compute + self.recompute + self.bubble)
        computing = self.seconds - rest

        def at(efficiency: float) -> float:
            seconds = computing * self.efficiency.value / efficiency + rest
            return self.model_flops_per_device / (seconds * self.peak_flops)

        return at(self.efficiency.low), at(self.efficiency.high)


@cache
def kernel_efficiency(vendor: str) -> Efficiency:
    """Published efficiency of a vendor's devices; the span of all of them for a vendor that has none."""
    entries = tomllib.loads(files("scalecli.data.catalogue").joinpath("throughput.toml").read_text())
    if vendor in entries:
        entry = entries[vendor]
        return Efficiency(
            value=entry["kernel_efficiency"], low=entry["low"], high=entry["high"], source=entry["source"]
        )
    low = min(entry["low"] for entry in entries.values())
    high = max(entry["high"] for entry in entries.values())
    return Efficiency(value=(low * high) ** 0.5, low=low, high=high, source="other vendors", known=False)


def peak_flops(accelerator: Accelerator, recipe: Recipe) -> float:
    """Dense peak of the computed number format; float32 products use TF32 units where there are any."""
    formats = ("tf32", "fp32") if recipe.precision == "fp32" else ("bf16", "fp16")
    for name in formats:
        if name in accelerator.peak_flops:
            return accelerator.peak_flops[name]
    raise PlanError(
        f"no {' or '.join(formats)} peak is known for {accelerator.name}",
        hint="choose another --precision or state the peak in --accelerators FILE.toml",
    )


def step_time(
    shape: ModelShape,
    recipe: Recipe,
    layout: Layout,
    accelerator: Accelerator,
    *,
    micro_batch_sequences: int,
    sequence_length: int,
    efficiency: Efficiency | None = None,
) -> StepTime:
    """Time of a step of `recipe.accumulation` micro-batches on every data-parallel rank."""
    efficiency = efficiency or kernel_efficiency(accelerator.vendor)
    peak = peak_flops(accelerator, recipe)
    rank = rank_of(
        shape, recipe, layout,
        micro_batch_sequences=micro_batch_sequences, sequence_length=sequence_length, stage=0,
    )  # fmt: skip
    micro_batches = recipe.accumulation
    tokens = micro_batches * micro_batch_sequences * sequence_length
    flops = tokens * training_flops_per_token(shape, sequence_length) / (layout.tp * layout.pp * layout.cp)
    compute = flops / (peak * efficiency.value)
    recompute = _recompute(rank, recipe, layout, accelerator, compute, micro_batches)
    links = _Links(accelerator, layout)
    per_micro_batch = (compute + recompute) / micro_batches
    tensor = micro_batches * rank.layers * _tensor_parallel(rank, recipe, layout, links)
    expert = micro_batches * rank.layers * _expert_parallel(rank, recipe, layout, links)
    layer_compute = compute / (micro_batches * rank.layers)
    context = micro_batches * rank.layers * _context_parallel(rank, recipe, layout, links, layer_compute)
    working = compute + recompute + tensor + expert
    moved = sum(part.traffic for part in moved_parts(rank, recipe, layout, Fraction(1)))
    return StepTime(
        compute=compute,
        recompute=recompute,
        bubble=working * pipeline.bubble(layout, micro_batches),
        tensor_parallel=tensor,
        context_parallel=context,
        expert_parallel=expert,
        data_parallel=_data_parallel(rank, recipe, layout, links, per_micro_batch),
        pipeline=_pipeline_transfers(rank, recipe, layout, links),
        optimizer=_optimizer(rank, recipe, layout, accelerator),
        offload=max(0.0, moved / HOST_BANDWIDTH - OVERLAP * working),
        offload_bandwidth=moved / (OVERLAP * working),
        model_flops_per_device=flops,
        peak_flops=peak,
        efficiency=efficiency,
    )


class _Links:
    """Seconds to move bytes within a node or between nodes.

    Tensor-, context- and expert-parallel ranks stand next to each other, others further apart.
    """

    def __init__(self, accelerator: Accelerator, layout: Layout) -> None:
        network = accelerator.network_bandwidth or DEFAULT_NETWORK
        self.near = (accelerator.link_bandwidth or network) * LINK_EFFICIENCY
        self.far = network * LINK_EFFICIENCY
        self.node = accelerator.devices_per_node
        self.layout = layout

    def bandwidth(self, group: int, neighbours: int) -> float:
        """Of a group of ranks that each stand `neighbours` devices apart."""
        return self.near if group * neighbours <= self.node else self.far


def _recompute(
    rank: Rank, recipe: Recipe, layout: Layout, accelerator: Accelerator, compute: float, micro_batches: int
) -> float:
    """Full: the forward pass of every layer again. Selective: what is not kept is written and read once more."""
    if recipe.recompute == "full":
        return RECOMPUTED_SHARE * compute
    if recipe.recompute == "selective":
        again = saved.layer_saved(rank, recipe) - saved.layer_kept(rank, recipe)
        return micro_batches * rank.layers * _through_memory(2 * max(again, 0), accelerator)
    return 0.0


def _ring(group: int, size: float, bandwidth: float) -> float:
    """Seconds of an all-gather or reduce-scatter of `size` bytes: (n - 1)/n of them over the link."""
    return (group - 1) / group * size / bandwidth


def _tensor_parallel(rank: Rank, recipe: Recipe, layout: Layout, links: _Links) -> float:
    """A layer's two pairs of all-gather and reduce-scatter in forward and in backward, and again if recomputed."""
    if layout.tp == 1:
        return 0.0
    stream = rank.tokens * rank.width * recipe.compute_bytes
    passes = 3 if recipe.recompute == "full" else 2
    return passes * 4 * _ring(layout.tp, stream, links.bandwidth(layout.tp, 1))


def _context_parallel(
    rank: Rank, recipe: Recipe, layout: Layout, links: _Links, layer_compute: float
) -> float:
    """Keys and values go round once in forward, they and their gradients in backward; hidden behind attention."""
    if layout.cp == 1:
        return 0.0
    pairs = rank.tokens * (rank.packed - rank.mixed) * recipe.compute_bytes
    seconds = 3 * (layout.cp - 1) * pairs / links.bandwidth(layout.cp, layout.tp)
    return max(0.0, seconds - OVERLAP * layer_compute)


def _expert_parallel(rank: Rank, recipe: Recipe, layout: Layout, links: _Links) -> float:
    """Visits go out and come back in forward and in backward (all-to-all)."""
    if layout.ep == 1:
        return 0.0
    visits = rank.slots * rank.width * recipe.compute_bytes
    return 4 * _ring(layout.ep, visits, links.bandwidth(layout.ep, layout.tp * layout.cp))


def _data_parallel(
    rank: Rank, recipe: Recipe, layout: Layout, links: _Links, micro_batch_seconds: float
) -> float:
    """What gradients (and, under zero3, weights) take beyond what computation hides.

    Up to zero1 they are reduced once a step, behind the last micro-batch. zero2 reduces them after every micro-batch
    and gathers weights once; zero3 gathers weights for forward and for backward besides.
    """
    group = layout.dp * layout.cp
    if group == 1:
        return 0.0
    hidden = OVERLAP * micro_batch_seconds
    size = all_weights(rank, recipe) * recipe.compute_bytes
    if layout.sharding not in ("zero2", "zero3"):
        return max(0.0, 2 * _ring(group, size, links.bandwidth(group, layout.tp)) - hidden)
    once = _ring(layout.shards, size, links.bandwidth(layout.shards, layout.tp))
    if layout.sharding == "zero2":
        return recipe.accumulation * max(0.0, once - hidden) + once
    return recipe.accumulation * max(0.0, 3 * once - hidden)


def _pipeline_transfers(rank: Rank, recipe: Recipe, layout: Layout, links: _Links) -> float:
    """The stream to the next stage and its gradient back, for each micro-batch and model chunk."""
    if layout.pp == 1:
        return 0.0
    stream = rank.stream_tokens * rank.width * recipe.stream_bytes
    bandwidth = links.bandwidth(layout.pp, layout.tp * layout.cp * layout.dp)
    return 2 * recipe.accumulation * layout.virtual_stages * stream / bandwidth


def _optimizer(rank: Rank, recipe: Recipe, layout: Layout, accelerator: Accelerator) -> float:
    """Weights, gradients and states pass through memory."""
    shards = layout.shards if layout.sharding.startswith("zero") else 1
    touched = all_weights(rank, recipe) * (2 * recipe.weight_bytes + 2 * recipe.state_bytes) / shards
    return _through_memory(OPTIMIZER_PASSES * touched, accelerator)


def _through_memory(size: float, accelerator: Accelerator) -> float:
    """Seconds to read or write bytes of device memory; not counted where its bandwidth is not published."""
    return size / accelerator.memory_bandwidth if accelerator.memory_bandwidth else 0.0
