"""What one device holds: the sizes that every memory term is written in."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

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
    head_dim: int
    qk_norm: bool
    """Queries and keys are normed, head by head."""
    has_head: bool
    """The loss is over the vocabulary."""
    experts: int
    """Feed-forward blocks here; 1 for a dense model."""
    routed: int
    """Experts that the router chooses from; 1 for a dense model."""
    experts_per_token: int
    """Experts that a token visits; 0 for a dense model."""
    expert_capacity: float
    """Slots an expert has, relative to a perfectly balanced routing."""

    @property
    def sequence_parts(self) -> int:
        """Parts of the sequence that the residual stream is split into over tensor-parallel ranks."""
        return self.tokens // self.stream_tokens

    @property
    def visits(self) -> int:
        """Token-expert pairs that the router hands out here."""
        return self.tokens * self.experts_per_token

    @property
    def slots(self) -> int:
        """Rows that the feed-forward blocks here compute: `tokens` for a dense model."""
        if self.routed == 1:
            return self.tokens
        return ceil(self.visits * self.expert_capacity / self.routed) * self.routed

    @property
    def shares_head(self) -> bool:
        """Head and embedding are one tensor on this device."""
        return self.tied and self.first and self.last and self.has_head


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
        vocab=ceil(shape.vocab / layout.tp),
        tied=shape.tied,
        layer_norm=shape.norm == "layer",
        head_dim=shape.head_dim,
        qk_norm=shape.qk_norm,
        has_head=recipe.contrastive_pairs is None,
        experts=shape.num_experts // layout.ep,
        routed=shape.num_experts,
        experts_per_token=0 if dense else shape.experts_per_token,
        expert_capacity=recipe.expert_capacity,
    )
