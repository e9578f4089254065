"""What one device's kernels reach, as opposed to its peaks."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from scalecli.accounting.kernels import LAUNCH_SECONDS, Engine
from scalecli.accounting.memory import Recipe
from scalecli.data.catalogue import Accelerator
from scalecli.errors import PlanError

# Causal flash attention, forward and backward together, relative to large matrix products on the same device: half to
# 73 % of an A100's peak (Dao, 2307.08691, abstract) where those reach 87 % (bekman2025).
ATTENTION_SHARE = 0.65
# Best FP8 matrix product relative to the best BF16 one, each as a share of its own peak: 70.9 % against 80.3 % on an
# H100 (bekman2025).
FP8_SHARE = 0.88
# Streaming kernels reach so much of a data sheet's memory bandwidth (NVIDIA, "STREAM" on A100: 0.84 to 0.91).
MEMORY_SHARE = 0.85
# Where a measured efficiency came from this machine: the spread of repeated measurements.
MEASURED_SPREAD = 0.10


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """Share of the dense peak that large matrix products reach in a training step, with its range."""

    value: float
    low: float
    high: float
    source: str
    known: bool = True


def engine_of(accelerator: Accelerator, recipe: Recipe, efficiency: Efficiency) -> Engine:
    """Speeds at the middle of the efficiency's range. Memory whose bandwidth is not published costs no time."""
    narrow = recipe.precision.startswith("fp8")
    wide = wide_peak(accelerator, recipe) * efficiency.value
    layers = peak_flops(accelerator, recipe) * efficiency.value * (FP8_SHARE if narrow else 1.0)
    return Engine(
        matmul_flops=layers,
        head_flops=wide,
        attention_flops=wide * ATTENTION_SHARE,
        memory_bandwidth=MEMORY_SHARE * (accelerator.memory_bandwidth or math.inf),
        launch_seconds=accelerator.launch_seconds or LAUNCH_SECONDS,
        multiprocessors=accelerator.multiprocessors,
        value_bytes=recipe.compute_bytes,
    )


def peak_flops(accelerator: Accelerator, recipe: Recipe) -> float:
    """Dense peak of the computed number format; float32 products use TF32 units where there are any."""
    if recipe.precision.startswith("fp8"):
        return _peak(accelerator, ("fp8",))
    return wide_peak(accelerator, recipe)


def wide_peak(accelerator: Accelerator, recipe: Recipe) -> float:
    """Dense peak of what is not computed in FP8: head and attention."""
    return _peak(accelerator, ("tf32", "fp32") if recipe.precision == "fp32" else ("bf16", "fp16"))


def kernel_efficiency(accelerator: Accelerator) -> Efficiency:
    """Of the device itself if it was measured, else published for its architecture, else the span of all."""
    own = accelerator.kernel_efficiency
    if own is not None:
        low, high = own * (1 - MEASURED_SPREAD), min(1.0, own * (1 + MEASURED_SPREAD))
        return Efficiency(value=own, low=low, high=high, source=accelerator.source)
    entries = _published()
    entry = entries.get(accelerator.architecture or "")
    if entry is not None:
        return Efficiency(
            value=entry["kernel_efficiency"],
            low=entry["low"],
            high=entry["high"],
            source=entry["source"],
            known=not entry.get("derived", False),
        )
    low = min(each["low"] for each in entries.values())
    high = max(each["high"] for each in entries.values())
    return Efficiency(
        value=math.sqrt(low * high), low=low, high=high, source="other architectures", known=False
    )


def _peak(accelerator: Accelerator, formats: tuple[str, ...]) -> float:
    for name in formats:
        if name in accelerator.peak_flops:
            return accelerator.peak_flops[name]
    raise PlanError(
        f"no {' or '.join(formats)} peak is known for {accelerator.name}",
        hint="choose another --precision or state the peak in --accelerators FILE.toml",
    )


@cache
def _published() -> Mapping[str, Mapping[str, Any]]:
    return tomllib.loads(files("scalecli.data.catalogue").joinpath("throughput.toml").read_text())
