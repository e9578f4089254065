"""What a step waits for: computing, memory, or the launches of its kernels (Gholami et al., 2403.14123, section 2).

The least time that each of the three would take alone is counted from the model's shape and the device's measured
rates; the longest is the bound. Where it is launches, a step measures the host and not the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from scalecli.accounting.kernels import Engine, head_passes, layer_passes
from scalecli.accounting.memory import Layout, Recipe
from scalecli.accounting.memory.rank import rank_of
from scalecli.accounting.shape import ModelShape

Bound = Literal["compute", "memory", "launch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """The least seconds of a step by each bound alone."""

    compute: float
    memory: float
    launch: float

    @property
    def bound(self) -> Bound:
        """What takes longest."""
        times: dict[Bound, float] = {"compute": self.compute, "memory": self.memory, "launch": self.launch}
        return max(times, key=times.__getitem__)


def roofline(
    shape: ModelShape,
    *,
    dtype: str,
    sequences: int,
    sequence_length: int,
    matmul_flops: float,
    memory_bandwidth: float,
    launch_seconds: float,
) -> Roofline:
    """Of a step on so many sequences, at rates in FLOP/s, bytes/s and seconds a kernel."""
    recipe = Recipe(precision="fp32" if dtype == "float32" else "bf16-autocast", norm="decomposed")
    rank = rank_of(
        shape, recipe, Layout(), micro_batch_sequences=sequences, sequence_length=sequence_length, stage=0
    )
    nothing = Engine(
        matmul_flops=math.inf, head_flops=math.inf, attention_flops=math.inf, memory_bandwidth=math.inf,
        launch_seconds=0.0, multiprocessors=None, value_bytes=recipe.compute_bytes,
    )  # fmt: skip

    def alone(engine: Engine) -> float:
        layers = shape.layers * layer_passes(rank, recipe, sequence_length, engine).both
        return layers + head_passes(rank, recipe, engine).both

    computing = replace(
        nothing, matmul_flops=matmul_flops, head_flops=matmul_flops, attention_flops=matmul_flops
    )
    return Roofline(
        compute=alone(computing),
        memory=alone(replace(nothing, memory_bandwidth=memory_bandwidth)),
        launch=kernels_a_step(shape) * launch_seconds,
    )


# Kernels of one layer, forward and backward, when nothing is fused: products, attention, and about three for each
# norm, sum, rotation and activation.
PRODUCT_KERNELS, OTHER_KERNELS = 3 * 5, 3 * 12
HEAD_KERNELS = 20


def kernels_a_step(shape: ModelShape) -> int:
    """About how many kernels an unfused step launches, the optimizer's (one for all weights) left out."""
    return shape.layers * (PRODUCT_KERNELS + OTHER_KERNELS) + HEAD_KERNELS
