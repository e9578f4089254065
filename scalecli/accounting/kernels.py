"""Seconds of the kernels that one device runs for a micro-batch: matrix products by their shape, attention, the rest.

A matrix product takes the longest of computing its tiles, moving its operands, and being launched. Everything between
matrix products is bound by memory: its bytes are counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from scalecli.accounting.memory import Recipe
from scalecli.accounting.memory.rank import Rank

# Tiles of the output that a multiprocessor works on (NVIDIA, Matrix Multiplication Background, section 2.3), and the
# pieces that a long inner dimension may be split into when there are too few of them.
TILES = ((256, 128), (128, 256), (128, 128))
INNER_PIECE = 1024
# Flash attention's backward has five products for the forward's two (Dao et al., 2205.14135, appendix B.4).
FLASH_BACKWARD = 2.5
# Times that stored scores are written or read: scores, mask and softmax, dropout, product with the values; and back.
SCORE_PASSES_FORWARD, SCORE_PASSES_BACKWARD = 6, 8
# Backward of what is bound by memory reads what forward read, and a gradient, and writes one.
STREAM_BACKWARD = 2.0
# Logits are written, widened, reduced and read again; their gradient likewise.
LOGIT_BYTES = 8
# Time between two kernels that the host can launch one after another (Vellaisamy et al., 2504.11750, section 2).
LAUNCH_SECONDS = 5e-6
MASTER_GRADIENT_BYTES = 4  # gradients are added up in float32 beside float32 weights
DROPOUT_PASSES = 5  # two branches, each read, written, and its mask of one byte
DECOMPOSED_NORM_PASSES = 8  # four operations in float32 that a fused norm does not write


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Speeds of one device [FLOP/s, bytes/s, s]; `value_bytes` is the size of what matrix products read."""

    matmul_flops: float
    head_flops: float
    """Of the head, which stays in a wide format when layers compute in FP8."""
    attention_flops: float
    memory_bandwidth: float
    launch_seconds: float
    multiprocessors: int | None
    value_bytes: int

    def through_memory(self, size: float) -> float:
        """Seconds to read or write so many bytes of device memory."""
        return size / self.memory_bandwidth


@dataclass(frozen=True, slots=True)
class Passes:
    """Seconds of a forward and of a backward pass."""

    forward: float
    backward: float

    @property
    def both(self) -> float:
        return self.forward + self.backward


def occupancy(m: int, n: int, k: int, multiprocessors: int | None) -> float:
    """Share of the multiprocessors' work that is not padding of tiles or an unfilled last wave (tile and wave
    quantisation); 1 where their number is not known.

    >>> occupancy(2048, 8192, 8192, 128), occupancy(100, 8192, 8192, 128)
    (1.0, 0.78125)
    """
    if multiprocessors is None:
        return 1.0
    best = 0.0
    for rows, columns in TILES:
        tiles = math.ceil(m / rows) * math.ceil(n / columns)
        filled = m * n / (tiles * rows * columns)
        if tiles < multiprocessors:
            tiles *= max(1, min(k // INNER_PIECE, multiprocessors // tiles))
        waves = tiles / multiprocessors
        best = max(best, filled * waves / math.ceil(waves))
    return best


def matmul(
    engine: Engine, m: int, n: int, k: int, *, flops: float | None = None, output_bytes: int | None = None
) -> float:
    """Seconds of an (m, k) by (k, n) product; at another speed, or with other bytes for each output, if said."""
    speed = engine.matmul_flops if flops is None else flops
    out = engine.value_bytes if output_bytes is None else output_bytes
    computing = 2 * m * n * k / (speed * occupancy(m, n, k, engine.multiprocessors))
    moving = engine.through_memory(engine.value_bytes * (m * k + k * n) + out * m * n)
    return max(computing, moving, engine.launch_seconds)


def tokens_to_compute(engine: Engine, inner: int, outer: int) -> float:
    """Tokens from which a product with an (inner, outer) weight computes longer than it reads: the roofline's ridge.

    Fewer tokens a step take as long as these; infinite where no number of tokens is enough.
    """
    e, speed, bandwidth = engine.value_bytes, engine.matmul_flops, engine.memory_bandwidth
    gained = 2 * inner * outer * bandwidth - e * speed * (inner + outer)
    return e * inner * outer * speed / gained if gained > 0 else math.inf


@lru_cache(maxsize=4096)
def layer_passes(rank: Rank, recipe: Recipe, sequence_length: int, engine: Engine) -> Passes:
    """One layer on one micro-batch, without what its ranks say to each other."""
    products = [_product(engine, recipe, *shape) for shape in _projections(rank)]
    blocks = [_product(engine, recipe, *shape) for shape in _blocks(rank)]
    attention = _attention(rank, recipe, sequence_length, engine)
    streamed = engine.through_memory(_streamed_bytes(rank, recipe))
    casts = engine.through_memory(_cast_bytes(rank, recipe))
    forward = sum(p.forward for p in products) + rank.experts * sum(p.forward for p in blocks)
    backward = sum(p.backward for p in products) + rank.experts * sum(p.backward for p in blocks)
    return Passes(
        forward + attention.forward + streamed + casts,
        backward + attention.backward + STREAM_BACKWARD * streamed + casts,
    )


@lru_cache(maxsize=4096)
def head_passes(rank: Rank, recipe: Recipe, engine: Engine) -> Passes:
    """Logits and loss of the last stage; a chunked loss computes its logits twice."""
    shape = rank.tokens, rank.vocab, rank.width
    product = _product(engine, recipe, *shape, flops=engine.head_flops)
    through = engine.through_memory(LOGIT_BYTES * rank.tokens * rank.vocab)
    again = product.forward if recipe.logits == "chunked" else 0.0
    return Passes(product.forward + through, product.backward + through + again)


def _projections(rank: Rank) -> tuple[tuple[int, int, int], ...]:
    return (rank.tokens, rank.packed, rank.width), (rank.tokens, rank.width, rank.mixed)


def _blocks(rank: Rank) -> list[tuple[int, int, int]]:
    """The products of one feed-forward block; experts share the rows evenly."""
    rows = max(1, rank.slots // rank.experts) if rank.routed > 1 else rank.tokens
    up = (rows, rank.ffn, rank.width)
    return [up] * (2 if rank.gated else 1) + [(rows, rank.width, rank.ffn)]


def _product(engine: Engine, recipe: Recipe, m: int, n: int, k: int, *, flops: float | None = None) -> Passes:
    """Forward; backward has one product for the input's gradient and, of a trained weight, one that is added to the
    weight's."""
    backward = matmul(engine, m, k, n, flops=flops)
    if not recipe.lora_rank:
        added = 2 * (MASTER_GRADIENT_BYTES if recipe.master_weights else recipe.weight_bytes)
        backward += matmul(engine, k, n, m, flops=flops, output_bytes=added)
    return Passes(matmul(engine, m, n, k, flops=flops), backward)


def _attention(rank: Rank, recipe: Recipe, sequence_length: int, engine: Engine) -> Passes:
    """Causal scores, and their product with the values; stored scores are computed in full and pass through memory."""
    if recipe.attention == "flash":
        flops = 4 * rank.tokens * (sequence_length + 1) / 2 * rank.mixed
        forward = max(flops / engine.attention_flops, engine.launch_seconds)
        return Passes(forward, FLASH_BACKWARD * forward)
    computing = 4 * rank.tokens * sequence_length * rank.mixed / engine.head_flops
    scores = engine.through_memory(rank.tokens * rank.heads * sequence_length * recipe.compute_bytes)
    return Passes(computing + SCORE_PASSES_FORWARD * scores, 2 * computing + SCORE_PASSES_BACKWARD * scores)


def _streamed_bytes(rank: Rank, recipe: Recipe) -> int:
    """What a layer's forward moves through memory besides its products: norms, residual sums, rotary positions,
    activation, and with them dropout, query-key norms, the way of tokens to experts, casts to FP8."""
    e = recipe.compute_bytes
    stream = rank.stream_tokens * rank.width * recipe.stream_bytes
    packed, hidden = rank.tokens * rank.packed * e, rank.slots * rank.ffn * e
    norms, sums = 2 * 2 * stream, 2 * 3 * stream
    total = norms + sums + 2 * packed + (3 if rank.gated else 2) * hidden
    if recipe.norm == "decomposed":
        total += 2 * DECOMPOSED_NORM_PASSES * 4 * rank.stream_tokens * rank.width
    if recipe.dropout:
        total += DROPOUT_PASSES * stream
    if rank.qk_norm:
        total += 2 * packed
    if rank.routed > 1:
        total += 2 * 2 * rank.slots * rank.width * e
    if recipe.precision.startswith("fp8"):  # read in two bytes, written in one, also transposed
        total += 2 * (2 * rank.tokens * rank.width * e + packed + hidden)
    return total


def _cast_bytes(rank: Rank, recipe: Recipe) -> int:
    """Autocast reads every weight and writes its copy, and casts the gradient of every copy back."""
    if recipe.precision != "bf16-autocast":
        return 0
    return (recipe.weight_bytes + recipe.compute_bytes) * rank.layer_weights
