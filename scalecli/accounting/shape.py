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


# Shapes of published models: width over depth grows from about 32 at a million parameters (and less below) to 128 at
# seven billion and beyond (Llama 7B: 32 layers of 4096, Touvron et al., 2302.13971, table 2).
ASPECT_AT_MILLION = 32.0
LARGEST_ASPECT, SMALLEST_ASPECT = 128.0, 12.0
DECADES_TO_LARGEST = math.log10(7e9 / 1e6)
# The gated feed-forward block of Llama is 8/3 of the width; it may be this far off to meet a size.
FFN_RATIO = 8 / 3
FFN_RATIOS = (2.3, 3.1)
MOST_LAYERS = 160
LARGEST_SIZE_ERROR = 0.25


def shape_for_params(
    params: float,
    *,
    vocab: int,
    kind: Literal["total", "non-embedding"] = "total",
    aspect: float | None = None,
    head_dim: int | None = None,
) -> ModelShape:
    """A Llama-like shape with about `params` parameters: its size first, then width over depth near `aspect`.

    Without `aspect` it follows published models: loss is flat in it (Kaplan et al., 2001.08361, figure 5: under 2 %
    for aspects of 10 to 300). Heads have 16 to 64 values in small models and 128 from a width of 2048 on. Depths and
    widths are round, so that devices can share them; the feed-forward width absorbs the rest.

    Raises PlanError if a vocabulary of that size alone has more parameters.

    >>> shape = shape_for_params(7e9, vocab=32000)
    >>> shape.layers, shape.width, shape.heads, abs(shape.params / 7e9 - 1) < 0.01
    (32, 4096, 32, True)
    """
    if not (math.isfinite(params) and params > 0):
        raise PlanError(f"a model of {params:g} parameters does not exist")
    if vocab < 1:
        raise PlanError(f"a vocabulary of {vocab} tokens cannot be modelled")
    wanted = _usual_aspect(params) if aspect is None else aspect
    candidates = [
        shape
        for layers in _round_depths()
        for width in _widths_near(layers, params, vocab, kind, head_dim)
        if (shape := _filled(layers, width, params, vocab, kind, head_dim)) is not None
    ]
    best = min(candidates, key=lambda shape: _misfit(shape, params, kind, wanted))
    if abs(_count(best, kind) / params - 1) > LARGEST_SIZE_ERROR:
        raise PlanError(
            f"the smallest model with a vocabulary of {vocab} near {params:g} parameters has {_count(best, kind):,}",
            hint="count non-embedding parameters (--params-kind non-embedding), use a smaller --vocab, or give "
            "--layers and --width",
        )
    return best


def _usual_aspect(params: float) -> float:
    """Width over depth of published models of that size."""
    decades = (math.log10(params) - 6) / DECADES_TO_LARGEST
    usual: float = ASPECT_AT_MILLION * (LARGEST_ASPECT / ASPECT_AT_MILLION) ** decades
    return max(SMALLEST_ASPECT, min(LARGEST_ASPECT, usual))


def _round_depths() -> list[int]:
    """Every depth to 8, even ones to 32, multiples of 4 to 64, of 8 beyond."""
    return [*range(1, 9), *range(10, 33, 2), *range(36, 65, 4), *range(72, MOST_LAYERS + 1, 8)]


def _width_step(width: float) -> int:
    """Widths that heads of the usual size divide, in even numbers once tensor parallelism matters."""
    for below, step in ((128, 16), (512, 32), (1024, 64), (2048, 128), (4096, 512)):
        if width < below:
            return step
    return 1024


def _usual_head_dim(width: int) -> int:
    return 16 if width < 128 else 32 if width < 256 else 64 if width < 2048 else 128


def _widths_near(layers: int, params: float, vocab: int, kind: str, head_dim: int | None) -> list[int]:
    """The round widths about the one that solves 12 layers w^2 + 2 vocab w = params (without 2 vocab w if asked)."""
    linear = 2.0 * vocab if kind == "total" else 0.0
    width = (math.sqrt(linear**2 + 48.0 * layers * params) - linear) / (24.0 * layers)
    step = _width_step(width) if head_dim is None else head_dim
    below = math.floor(width / step) * step
    return [below, below + step] if below else [step]


def _filled(
    layers: int, width: int, params: float, vocab: int, kind: str, head_dim: int | None
) -> ModelShape | None:
    """That depth and width with the feed-forward width that comes nearest to `params`; None if it would be odd."""
    head = math.gcd(width, head_dim or _usual_head_dim(width))
    if head % 2:
        return None
    heads = width // head
    multiple = 256 if width >= 2048 else 64 if width >= 512 else 8
    bare = ModelShape(layers=layers, width=width, ffn=1, heads=heads, kv_heads=heads, vocab=vocab)
    missing = params - (_count(bare, kind) - 3 * layers * width)
    exact = missing / (3 * layers * width)
    low, high = (ratio * width for ratio in FFN_RATIOS)
    ffn = max(multiple, round(min(max(exact, low), high) / multiple) * multiple)
    return replace(bare, ffn=ffn)


def _count(shape: ModelShape, kind: str) -> int:
    return shape.params if kind == "total" else shape.params_non_embedding


def _misfit(shape: ModelShape, params: float, kind: str, aspect: float) -> float:
    """Relative error in size, a tenth of that in aspect and a twentieth of that in feed-forward ratio."""
    off_size = abs(math.log(_count(shape, kind) / params))
    off_aspect = abs(math.log(shape.width / shape.layers / aspect))
    off_ffn = abs(math.log(shape.ffn / shape.width / FFN_RATIO))
    return off_size + 0.1 * off_aspect + 0.05 * off_ffn


def with_experts(shape: ModelShape, num_experts: int, experts_per_token: int) -> ModelShape:
    """The same backbone with every feed-forward block replaced by `num_experts` of them."""
    return replace(shape, num_experts=num_experts, experts_per_token=experts_per_token)
