"""Training FLOPs: the 6 N D of the papers, and the exact count with attention and head."""

from __future__ import annotations

from typing import Literal

from scalecli.accounting.shape import ModelShape

# Forward is one multiply and one add a weight; backward is twice that (Kaplan et al., 2001.08361, section 2.1).
FLOPS_PER_WEIGHT_TRAINING = 6
AttentionCount = Literal["causal", "full"]


def flops_6nd(params: float, tokens: float) -> float:
    """C = 6 N D [FLOP]; which N is the caller's choice and has to be said."""
    return FLOPS_PER_WEIGHT_TRAINING * params * tokens


def training_flops_per_token(
    shape: ModelShape, sequence_length: int, *, attention: AttentionCount = "causal"
) -> float:
    """Exact FLOPs of forward and backward for one token, head and attention scores included.

    Scores and their product with the values cost 2 · 2 · width · context multiply-adds a layer in forward; the
    mean context is the whole sequence when counted `full` and half of it when counted `causal`.
    """
    context = sequence_length if attention == "full" else (sequence_length + 1) / 2
    scores = 2 * shape.layers * shape.width * context
    return FLOPS_PER_WEIGHT_TRAINING * (shape.matmul_params_active + scores)


def training_flops(
    shape: ModelShape, tokens: float, sequence_length: int, *, attention: AttentionCount = "causal"
) -> float:
    """Exact FLOPs of training on `tokens` tokens."""
    return tokens * training_flops_per_token(shape, sequence_length, attention=attention)
