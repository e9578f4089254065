"""What one device holds: the sizes that every memory term is written in."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scalecli.accounting.memory.layout import Layout
from scalecli.accounting.memory.recipe import Recipe
from scalecli.accounting.shape import ModelShape


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """One device's part of the model and of one micro-batch. Sizes are numbers of values, not bytes."""

    layers: int
    first: bool
    """Holds the embedding."""
    last: bool
    """Holds final norm and head."""
    tokens: int
    stream_tokens: int
    """Tokens of the residual stream: fewer than `tokens` under sequence parallelism."""
    width: int
    heads: int
    attended: int
    """Length of the keys that one token's scores are taken over, when scores are stored."""
    mixed: int
    """Columns of the attention output: heads times head size."""
    packed: int
    """Columns of queries, keys and values together."""
    kv_heads: int
    ffn: int
    gated: bool
    vocab: int
    tied: bool
    layer_norm: bool
    qk_norm: int
    """Size of a head if queries and keys are normed, else 0."""
    experts: int
    """Feed-forward blocks here; 1 for a dense model."""
    routed: int
    """Experts that the router chooses from; 1 for a dense model."""
    visits: int
    """Token-expert pairs that the router hands out here."""
    slots: int
    """Rows that the feed-forward blocks here compute: `tokens` for a dense model."""

    @property
    def norm_weights(self) -> int:
        """Weights of one norm."""
        return self.width * (2 if self.layer_norm else 1)

    @property
    def attention_matrices(self) -> tuple[int, ...]:
        return self.width * self.packed, self.mixed * self.width

    @property
    def expert_matrices(self) -> tuple[int, ...]:
        """Gate (if any), up and down projections, all experts here together."""
        return (self.experts * self.width * self.ffn,) * (3 if self.gated else 2)

    @property
    def router_weights(self) -> int:
        return self.width * self.routed if self.routed > 1 else 0

    @property
    def layer_matrices(self) -> int:
        """Weights of one layer that enter matrix products."""
        return sum(self.attention_matrices) + sum(self.expert_matrices) + self.router_weights

    @property
    def layer_weights(self) -> int:
        return self.layer_matrices + 2 * self.norm_weights + 2 * self.qk_norm

    @property
    def layer_experts(self) -> int:
        """Weights of one layer that other expert-parallel ranks do not have."""
        return sum(self.expert_matrices) if self.routed > 1 else 0

    @property
    def embedding_weights(self) -> int:
        return self.vocab * self.width if self.first else 0

    @property
    def head_weights(self) -> int:
        """Weights of the head that are not the embedding's."""
        return self.vocab * self.width if self.last and not (self.tied and self.first) else 0

    @property
    def weights(self) -> int:
        """Every weight on this rank before sharding over data-parallel ranks."""
        final_norm = self.norm_weights if self.last else 0
        return self.embedding_weights + self.layers * self.layer_weights + final_norm + self.head_weights

    def adapter_weights(self, rank: int) -> int:
        """Weights of LoRA adapters on the attention projections of one layer."""
        return rank * (self.width + self.packed + self.mixed + self.width)


def rank_of(
    shape: ModelShape,
    recipe: Recipe,
    layout: Layout,
    *,
    micro_batch_sequences: int,
    sequence_length: int,
    stage: int,
) -> Rank:
    """The sizes on one device of pipeline stage `stage`; the first stages take the layers that do not divide."""
    tokens = micro_batch_sequences * sequence_length // layout.cp
    kv_heads = max(1, shape.kv_heads // layout.tp)
    heads = shape.heads // layout.tp
    dense = shape.num_experts == 1
    visits = tokens * shape.experts_per_token
    slots = (
        tokens
        if dense
        else math.ceil(visits * recipe.expert_capacity / shape.num_experts) * shape.num_experts
    )
    return Rank(
        layers=shape.layers // layout.pp + (stage < shape.layers % layout.pp),
        first=stage == 0,
        last=stage == layout.pp - 1,
        tokens=tokens,
        stream_tokens=tokens // layout.tp if layout.sequence_parallel else tokens,
        width=shape.width,
        heads=heads,
        attended=sequence_length,
        mixed=heads * shape.head_dim,
        packed=(heads + 2 * kv_heads) * shape.head_dim,
        kv_heads=kv_heads,
        ffn=shape.ffn // layout.tp,
        gated=shape.activation == "swiglu",
        vocab=math.ceil(shape.vocab / layout.tp),
        tied=shape.tied,
        layer_norm=shape.norm == "layer",
        qk_norm=shape.head_dim if shape.qk_norm else 0,
        experts=shape.num_experts // layout.ep,
        routed=shape.num_experts,
        visits=0 if dense else visits,
        slots=slots,
    )
