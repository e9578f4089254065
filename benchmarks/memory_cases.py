"""Random shapes, recipes and layouts for holding the closed forms of memory against the tracker."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import TypedDict

from scalecli.accounting.memory import Layout, Recipe
from scalecli.accounting.memory.layout import check_layout, check_recipe
from scalecli.accounting.shape import ModelShape
from scalecli.errors import PlanError


class Size(TypedDict):
    """What a device holds of a batch at once."""

    micro_batch_sequences: int
    sequence_length: int


@dataclass(frozen=True)
class Case:
    """One configuration that the tracker can run."""

    shape: ModelShape
    recipe: Recipe
    layout: Layout
    size: Size


def random_case(random: Random) -> Case:
    """A configuration without contradictions: wishes that are refused are drawn again."""
    while True:
        try:
            shape, recipe, layout = random_shape(random), random_recipe(random), random_layout(random)
            size = Size(
                micro_batch_sequences=random.choice((1, 2, 3, 4)),
                sequence_length=random.choice((16, 63, 64, 256)),
            )
            check_layout(shape, layout, size["sequence_length"])
            check_recipe(recipe, layout)
        except PlanError:
            continue
        return Case(shape, traceable(recipe, layout), layout, size)


def random_shape(random: Random) -> ModelShape:
    heads = random.choice((1, 2, 3, 4, 8))
    width = heads * random.choice((16, 32, 64))
    experts = random.choice((1, 1, 1, 2, 4, 5, 8))
    return ModelShape(
        layers=random.choice((1, 2, 3, 5, 9)),
        width=width,
        ffn=random.choice((width // 2, 2 * width, 4 * width, 8 * width, 3 * width + 8, 8 * width + 1)),
        heads=heads,
        kv_heads=random.choice([k for k in (1, 2, 3, 4, 8) if heads % k == 0]),
        vocab=random.choice((16, 37, 256, 3000, 20_000)),
        activation=random.choice(("swiglu", "gelu")),
        norm=random.choice(("rms", "layer")),
        tied=random.random() < 0.3,
        qk_norm=random.random() < 0.2,
        num_experts=experts,
        experts_per_token=random.choice([k for k in (1, 2, 3) if k <= experts]) if experts > 1 else 1,
    )


def random_recipe(random: Random) -> Recipe:
    recompute = random.choice(("none", "selective", "full"))
    recipe = Recipe(
        precision=random.choice(("bf16", "bf16", "bf16-autocast", "fp32", "fp8", "fp8-lm")),
        optimizer=random.choice(
            (
                "adamw",
                "adamw",
                "sgd",
                "sgd-momentum",
                "muon",
                "lamb",
                "lion",
                "adafactor",
                "apollo",
                "adamw-8bit",
            )
        ),
        optimizer_impl=random.choice(("loop", "foreach", "fused")),
        optimizer_rank=random.choice((4, 16)),
        recompute=recompute,
        recompute_layers=None if recompute == "none" else random.choice((None, None, 0, 1, 4)),
        logits=random.choice(("full", "chunked")),
        logit_chunks=random.choice((1, 2, 5, 8)),
        accumulation=random.choice((1, 1, 2, 3, 5)),
        dropout=random.choice((0.0, 0.0, 0.1)),
        norm=random.choice(("fused", "fused", "decomposed")),
        attention=random.choice(("flash", "flash", "flash", "stored")),
        expert_capacity=random.choice((1.0, 1.5, 0.7, 1.25)),
    )
    return replace(recipe, **dict(random.choice(TUNINGS)), **dict(random.choice(SAVINGS)))


TUNINGS: tuple[dict[str, object], ...] = (
    *({},) * 6, {"lora_rank": 4}, {"lora_rank": 16, "lora_targets": "all"}, {"lora_rank": 4, "base_bits": 4},
    {"tuning": "bitfit"}, {"tuning": "difffit"}, {"tuning": "ia3"},
)  # fmt: skip
SAVINGS: tuple[dict[str, object], ...] = (
    *({},) * 8, {"saved_compression": 4.0}, {"sampled_rows": 0.3}, {"gradients": "fp32"}, {"master_weights": True},
    {"contrastive_pairs": 512}, {"recompute": "full", "sequence_chunks": 4},
)  # fmt: skip


def random_layout(random: Random) -> Layout:
    ep = random.choice((1, 1, 1, 2, 4))
    return Layout(
        tp=random.choice((1, 1, 1, 2, 4)),
        pp=random.choice((1, 1, 1, 2, 3)),
        cp=random.choice((1, 1, 1, 2)),
        ep=ep,
        dp=ep,
        sharding="ddp" if ep > 1 else "none",
        bucket_views=True,
        sequence_parallel=random.random() < 0.7,
        offload=random.choice(("none", "none", "none", "activations")),
    )


def traceable(recipe: Recipe, layout: Layout) -> Recipe:
    """The recipe without what only arithmetic can do."""
    plain = recipe.has_plain_states and not recipe.sums_gradients and not recipe.master_weights
    if recipe.optimizer == "muon" and not plain:
        recipe = replace(recipe, optimizer="adamw")
    # Gradients that have memory from the beginning are those of earlier micro-batches to the tracker.
    return recipe if layout.ep == 1 else replace(recipe, accumulation=layout.pp + recipe.accumulation)
