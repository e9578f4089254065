"""How long one optimizer step takes under a layout: computation, bubble, exposed communication, optimizer.

Model FLOPs are exact (head and attention counted, causal unless said otherwise); recomputation adds time but no model
FLOPs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from scalecli.accounting.flops import AttentionCount, training_flops_per_token
from scalecli.accounting.kernels import Engine, head_passes, layer_passes
from scalecli.accounting.memory import Layout, Recipe, pipeline, saved
from scalecli.accounting.memory.offload import Moved, moved_parts
from scalecli.accounting.memory.rank import Rank, rank_of
from scalecli.accounting.memory.weights import trained, weight_count
from scalecli.accounting.shape import ModelShape
from scalecli.data.catalogue import Accelerator
from scalecli.plan.step import exchanges
from scalecli.plan.step.conditions import STANDARD, Conditions
from scalecli.plan.step.engine import Efficiency, engine_of, kernel_efficiency, peak_flops
from scalecli.plan.step.exchanges import Exchange
from scalecli.plan.step.links import Links

# Weights, gradient and states are read and written once a step.
OPTIMIZER_PASSES = 2
# Frozen weights have no gradient of their own: two of three products are left.
FROZEN_SHARE = 2 / 3


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Seconds of one optimizer step by cause; they add up to `seconds`."""

    compute: float
    recompute: float
    imbalance: float
    """The stage that takes longest, beyond the mean of all."""
    bubble: float
    optimizer: float
    offload: float
    offload_bandwidth: float
    """What hides all transfers behind computation, over the link that they take longest on [bytes/s]."""
    offload_link: float
    """What that link has [bytes/s]."""
    exchanges: tuple[Exchange, ...]
    tokens: int
    """Of the whole step, all devices together."""
    model_flops_per_device: float
    """Causal attention."""
    full_attention_flops_per_device: float
    peak_flops: float
    efficiency: Efficiency

    def exposed(self, name: str) -> float:
        """What one kind of communication adds to the step [s]."""
        return sum(each.exposed for each in self.exchanges if each.name == name)

    @property
    def communication(self) -> float:
        return sum(each.exposed for each in self.exchanges)

    @property
    def computing(self) -> float:
        """What would be shorter on faster kernels."""
        return self.compute + self.recompute + self.imbalance + self.bubble

    @property
    def seconds(self) -> float:
        return self.computing + self.communication + self.optimizer + self.offload

    @property
    def mfu(self) -> float:
        """Model FLOPs utilisation, causal attention counted: what the dense peak could do in the step's time."""
        return self.utilisation("causal")

    def utilisation(self, attention: AttentionCount) -> float:
        """MFU by either count of attention."""
        flops = self.model_flops_per_device if attention == "causal" else self.full_attention_flops_per_device
        return flops / (self.seconds * self.peak_flops)

    def mfu_range(self) -> tuple[float, float]:
        """MFU at the ends of the efficiency's range; what is not computation stays as long."""
        rest = self.seconds - self.computing

        def at(efficiency: float) -> float:
            seconds = self.computing * self.efficiency.value / efficiency + rest
            return self.model_flops_per_device / (seconds * self.peak_flops)

        return at(self.efficiency.low), at(self.efficiency.high)

    def losses(self) -> Mapping[str, float]:
        """Seconds by cause, of all that is no computation of the model."""
        return {
            "recomputation": self.recompute, "unequal stages": self.imbalance, "the pipeline's bubble": self.bubble,
            "the optimizer": self.optimizer, "offloading": self.offload,
        } | {f"{each.name} communication": each.exposed for each in self.exchanges}  # fmt: skip


def step_time(
    shape: ModelShape,
    recipe: Recipe,
    layout: Layout,
    accelerator: Accelerator,
    *,
    micro_batch_sequences: int,
    sequence_length: int,
    conditions: Conditions = STANDARD,
) -> StepTime:
    """Time of a step of `recipe.accumulation` micro-batches on every data-parallel rank."""
    efficiency = conditions.efficiency or kernel_efficiency(accelerator)
    engine = engine_of(accelerator, recipe, efficiency)
    links = Links.of(accelerator)
    micro_batches = recipe.accumulation
    ends = [
        rank_of(
            shape, recipe, layout,
            micro_batch_sequences=micro_batch_sequences, sequence_length=sequence_length, stage=stage,
        )
        for stage in sorted({0, layout.pp - 1})
    ]  # fmt: skip
    rank = ends[0]
    layer = layer_passes(rank, recipe, sequence_length, engine)
    head = head_passes(ends[-1], recipe, engine)
    again = _recomputed(rank, recipe, engine, layer.forward)
    between = [
        exchanges.tensor_parallel(rank, recipe, layout, links, conditions),
        exchanges.expert_parallel(rank, recipe, layout, links, conditions),
    ]
    spoken = sum(each.exposed for each in between if each) / (micro_batches * rank.layers)
    each_layer = layer.both + again + spoken
    stages = [end.layers * each_layer + (head.both if end.last else 0.0) for end in ends]
    mean = (shape.layers * each_layer + head.both) / layout.pp
    compute = micro_batches * (shape.layers * layer.both + head.both) / layout.pp
    micro_batch = mean
    working = micro_batches * mean
    beside_layers = micro_batches * rank.layers * layer.both
    said = [
        *between,
        exchanges.context_parallel(rank, recipe, layout, links, conditions, beside_layers),
        exchanges.pipeline_parallel(rank, recipe, layout, links, conditions),
        exchanges.data_parallel(rank, recipe, layout, links, conditions, micro_batch),
    ]
    moved, link = _slowest_link(moved_parts(rank, recipe, layout, Fraction(1)), conditions)
    tokens = micro_batches * micro_batch_sequences * sequence_length
    cut = layout.tp * layout.pp * layout.cp
    counted = 1.0 if recipe.trained.weights else FROZEN_SHARE
    causal, full = (
        counted * tokens * training_flops_per_token(shape, sequence_length, attention=attention) / cut
        for attention in ("causal", "full")
    )
    return StepTime(
        compute=compute,
        recompute=micro_batches * shape.layers * again / layout.pp,
        imbalance=micro_batches * max(0.0, max(stages) - mean),
        bubble=working * pipeline.bubble(layout, micro_batches),
        optimizer=engine.through_memory(_optimizer_bytes(rank, recipe, layout)),
        offload=max(0.0, moved / link - conditions.overlap.data * working),
        offload_bandwidth=moved / (conditions.overlap.data * working) if conditions.overlap.data else 0.0,
        offload_link=link,
        exchanges=tuple(each for each in said if each is not None),
        tokens=tokens * layout.dp,
        model_flops_per_device=causal,
        full_attention_flops_per_device=full,
        peak_flops=peak_flops(accelerator, recipe),
        efficiency=efficiency,
    )


def _slowest_link(parts: Sequence[Moved], conditions: Conditions) -> tuple[int, float]:
    """Bytes that pass the link on which they take longest, and its bandwidth: the device's, or that of the drives."""
    device = sum(part.traffic for part in parts), conditions.host
    drives = sum(part.drive_traffic for part in parts), conditions.drive
    return max(device, drives, key=lambda link: link[0] / link[1])


def _recomputed(rank: Rank, recipe: Recipe, engine: Engine, forward: float) -> float:
    """Of a layer in the mean and a micro-batch. Full: its forward again. Selective: what is not kept is written and
    read again."""
    share = recipe.recomputed_of(rank.layers) / rank.layers
    if recipe.recompute == "full":
        return share * forward
    if recipe.recompute == "selective":
        again = saved.layer_saved(rank, recipe) - saved.layer_kept(rank, recipe)
        return share * engine.through_memory(2 * max(again, 0))
    return 0.0


def _optimizer_bytes(rank: Rank, recipe: Recipe, layout: Layout) -> float:
    """Trained weights, gradients and states, each read and written."""
    shards = layout.shards if layout.sharding.startswith("zero") else 1
    each = 2 * recipe.weight_bytes + 2 * recipe.state_bytes + (4 if recipe.master_weights else 0)
    return OPTIMIZER_PASSES * weight_count(trained(rank, recipe)) * each / shards
