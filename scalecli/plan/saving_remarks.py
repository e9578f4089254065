"""What ways to save memory do besides: to noise, to scales, to the learning rate, to the links."""

from __future__ import annotations

import math
from collections.abc import Iterator

from scalecli.accounting.memory import Layout, MemoryEstimate, Recipe
from scalecli.accounting.memory.rank import rank_of
from scalecli.accounting.memory.weights import all_weights, trained, weight_count
from scalecli.accounting.shape import ModelShape
from scalecli.plan.steptime import StepTime

Said = tuple[str, str]
"""A warning's code and message."""

# Largest and smallest positive value of E4M3, in which operands of products are kept (micikevicius2022, table 1).
FP8_RANGE = (2**-9, 448)
# Parameters of LoRA over those of shards that its adapters share, at equal quality (wang2024mos, abstract).
SHARDS_SAVE = 8


def remark_on_training(shape: ModelShape, recipe: Recipe) -> Iterator[Said]:
    """About adapters, number formats, and gradients that are not those of plain training."""
    if recipe.lora_rank:
        r = recipe.lora_rank
        whole = rank_of(shape, recipe, Layout(), micro_batch_sequences=1, sequence_length=1, stage=0)
        adapters, total = weight_count(trained(whole, recipe)), all_weights(whole, recipe)
        yield (
            "W-ADAPTER-SCALE",
            f"rank {r} trains {adapters:,} of {total:,} weights; divide adapters by √{r} = {math.sqrt(r):.3g}, not by "
            f"{r}: then a rate that is good at one rank is good at others, and rank is a budget to spend "
            f"(kalajdzievski2023). Adapters made of shared shards hold an {SHARDS_SAVE}th of them (wang2024mos)",
        )
    if recipe.formats.operand == 1:
        low, high = FP8_RANGE
        yield (
            "W-FP8-RANGE",
            f"operands below {low:.2g} or above {high} are lost in FP8 ({recipe.formats.source}): `scalecli probe "
            "coordinates` says whether weights, activations and gradients hold"
            + ("" if recipe.formats.rescales else "; static scales need a parametrisation of unit variance"),
        )
    if recipe.precision == "fp16-unit":
        yield (
            "W-FP16-RANGE",
            "float16 without loss scaling needs a parametrisation of unit variance (blake2023): `scalecli probe "
            "coordinates` says whether weights, activations and gradients hold",
        )
    if recipe.sampled_rows < 1:
        yield (
            "W-SAMPLED-ROWS",
            "sampled rows leave gradients unbiased but add noise (liu2023wtacrs): the critical batch is larger than "
            "that of full rows, by what `scalecli probe noise` finds",
        )
    if recipe.saved_compression > 1:
        yield (
            "W-COMPRESSED",
            f"saved tensors compressed {recipe.saved_compression:g} times add noise, more for some than others: "
            "give bits by measured sensitivity (liu2022gact), and hold a short run against one without",
        )


def remark_on_offloading(layout: Layout, layers: int, step: StepTime | None) -> Iterator[Said]:
    """The bandwidth that hides the traffic (rajbhandari2021, section 4), and how many layers' activations hide behind
    the link that there usually is (wu2024ssdtrain): the others are better kept or recomputed."""
    if layout.offload == "none" or step is None:
        return
    needed, link = step.offload_bandwidth, step.offload_link
    where = "host" if layout.offload_to == "cpu" else "drives"
    message = (
        f"hiding the transfers to the {where} takes {needed / 1e9:.3g} GB/s a device (rajbhandari2021), of the "
        f"{link / 1e9:.3g} GB/s that are reckoned with (--assume host=, drive=)"
    )
    offloaded = layers if layout.offload_layers is None else min(layers, layout.offload_layers)
    if layout.offload == "activations" and needed > link:
        hidden = math.floor(offloaded * link / needed)
        message += (
            f"; the activations of {hidden} layers hide: --offload-layers {hidden}, and keep or recompute the others "
            "(wu2024ssdtrain)"
        )
    yield "W-OFFLOAD", message


def remark_on_activations(estimate: MemoryEstimate) -> Iterator[Said]:
    """Where activations are most of what does not fit."""
    saved = next((term.bytes for term in estimate.terms if term.name == "saved activations"), 0)
    if saved > estimate.peak_bytes / 2:
        yield (
            "W-WIDER",
            "most of the peak are activations: along width they grow with the square root of the FLOPs, along depth in "
            "proportion (dollar2021), so a wider, shallower model of as many FLOPs keeps fewer",
        )
