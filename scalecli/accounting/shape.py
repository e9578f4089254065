"""The shape of a decoder-only transformer, and how many parameters it has."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from scalecli.errors import PlanError

Activation = Literal["swiglu", "gelu"]
Norm = Literal["rms", "layer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A pre-norm decoder: rotary positions, no biases, a final norm.

    With `num_experts` > 1 every feed-forward block is a router and `num_experts` such blocks, of which a token
    visits `experts_per_token`.
    """

    layers: int
    width: int
    ffn: int
    heads: int
    kv_heads: int
    vocab: int
    activation: Activation = "swiglu"
    norm: Norm = "rms"
    tied: bool = False
    qk_norm: bool = False
    num_experts: int = 1
    experts_per_token: int = 1

    def __post_init__(self) -> None:
        for name in (
            "layers",
            "width",
            "ffn",
            "heads",
            "kv_heads",
            "vocab",
            "num_experts",
            "experts_per_token",
        ):
            if getattr(self, name) < 1:
                raise PlanError(f"{name} is {getattr(self, name)}; a model needs at least 1")
        if self.width % self.heads:
            raise PlanError(
                f"width {self.width} is not a multiple of {self.heads} heads", hint="change --heads"
            )
        if self.heads % self.kv_heads:
            raise PlanError(
                f"{self.heads} heads cannot share {self.kv_heads} key-value heads evenly",
                hint="change --kv-heads",
            )
        if self.experts_per_token > self.num_experts:
            raise PlanError(f"a token cannot visit {self.experts_per_token} of {self.num_experts} experts")

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def attention_params(self) -> int:
        """Query, key, value and output projections of one layer."""
        return 2 * self.width * self.width + 2 * self.width * self.kv_heads * self.head_dim

    @property
    def expert_params(self) -> int:
        """One feed-forward block: three matrices when gated, two when not."""
        return (3 if self.activation == "swiglu" else 2) * self.width * self.ffn

    @property
    def router_params(self) -> int:
        return self.width * self.num_experts if self.num_experts > 1 else 0

    @property
    def norm_params(self) -> int:
        """All norm weights (and biases of layer norms): two a layer and a final one, plus query-key norms."""
        per_norm = self.width * (2 if self.norm == "layer" else 1)
        return (2 * self.layers + 1) * per_norm + (2 * self.layers * self.head_dim if self.qk_norm else 0)

    @property
    def embedding_params(self) -> int:
        """The input embedding; the head is counted apart, and is the same tensor when tied."""
        return self.vocab * self.width

    @property
    def head_params(self) -> int:
        return 0 if self.tied else self.vocab * self.width

    @property
    def params_non_embedding(self) -> int:
        """Without input embedding and head: the N of Kaplan et al. (2001.08361, section 1.3)."""
        per_layer = self.attention_params + self.num_experts * self.expert_params + self.router_params
        return self.layers * per_layer + self.norm_params

    @property
    def params(self) -> int:
        """Every trainable weight."""
        return self.params_non_embedding + self.embedding_params + self.head_params

    @property
    def params_active(self) -> int:
        """Weights that one token passes through: `params` without the experts it does not visit."""
        idle = self.num_experts - self.experts_per_token
        return self.params - self.layers * idle * self.expert_params

    @property
    def matmul_params_active(self) -> int:
        """Weights that enter a matrix product for one token: no input embedding, no norms, the head even if tied."""
        per_layer = self.attention_params + self.experts_per_token * self.expert_params + self.router_params
        return self.layers * per_layer + self.vocab * self.width


def shape_for_params(
    params: float,
    *,
    vocab: int,
    kind: Literal["total", "non-embedding"] = "total",
    aspect: float = 64.0,
    head_dim: int = 64,
    width_multiple: int = 8,
) -> ModelShape:
    """The Llama-like shape whose parameter count is nearest to `params`.

    Width over depth is kept near `aspect` (Kaplan et al., 2001.08361, figure 5: loss changes by under 2 % for
    aspect ratios of 10 to 300), the feed-forward block is 8/3 of the width rounded up to `width_multiple`.

    >>> shape = shape_for_params(7e9, vocab=32000)
    >>> abs(shape.params / 7e9 - 1) < 0.02
    True
    """
    if params <= 0:
        raise PlanError(f"a model of {params:g} parameters does not exist")
    best: ModelShape | None = None
    for layers in range(1, 257):
        shape = _shape_with_depth(layers, params, vocab, kind, head_dim, width_multiple)
        if shape is not None and (
            best is None or _misfit(shape, params, kind, aspect) < _misfit(best, params, kind, aspect)
        ):
            best = shape
    if best is None:
        raise PlanError(
            f"{params:g} parameters are too few for a vocabulary of {vocab}",
            hint="count non-embedding parameters (--params-kind non-embedding) or give --layers and --width",
        )
    return best


def _shape_with_depth(
    layers: int, params: float, vocab: int, kind: str, head_dim: int, multiple: int
) -> ModelShape | None:
    """The width that comes nearest to `params` at this depth: solves 12 layers w^2 + 2 vocab w = params."""
    linear = 2.0 * vocab if kind == "total" else 0.0
    width = (-linear + math.sqrt(linear**2 + 48.0 * layers * params)) / (24.0 * layers)
    step = head_dim if width >= 4 * head_dim else multiple
    width_rounded = max(step, round(width / step) * step)
    heads = max(1, width_rounded // head_dim)
    while width_rounded % heads or (width_rounded // heads) % 2:
        heads -= 1
        if heads == 0:
            return None
    ffn = math.ceil(8 * width_rounded / 3 / multiple) * multiple
    return ModelShape(layers=layers, width=width_rounded, ffn=ffn, heads=heads, kv_heads=heads, vocab=vocab)


def _misfit(shape: ModelShape, params: float, kind: str, aspect: float) -> float:
    count = shape.params if kind == "total" else shape.params_non_embedding
    off_size = abs(math.log(count / params))
    off_aspect = abs(math.log(shape.width / shape.layers / aspect))
    return off_size + 0.05 * off_aspect


def with_experts(shape: ModelShape, num_experts: int, experts_per_token: int) -> ModelShape:
    """The same backbone with every feed-forward block replaced by `num_experts` of them."""
    return replace(shape, num_experts=num_experts, experts_per_token=experts_per_token)
