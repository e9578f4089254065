"""The proxy model: a pre-norm decoder with rotary positions and SwiGLU, or several of them side by side.

Every weight has a leading axis of `copies`: models of one shape that train together, each on its own batch,
with its own seed and rates. One copy is the usual model. Below about 100k parameters, where the cost of a
small operation is mostly its launch, eight copies in one batched product train nearly twice as fast as one
after the other.

Shapes: c copies, b sequences, t positions, n = b · t tokens, d width, h heads, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from scalecli.accounting.shape import ModelShape
from scalecli.errors import ProbeError
from scalecli.probes.parametrization import Multipliers, Role, initial_std
from scalecli.probes.subjects.subject import Weight

ROTARY_BASE = 10_000.0
"""Su et al. 2021 (2104.09864), equation 15."""
BALANCE_RATE = 0.001
"""Step of the experts' bias; Wang et al. 2024 (2408.15664), section 4.3."""


class Decoder(nn.Module):
    """`copies` decoders of one shape: a call maps (c, b, t) token ids to (c, n, v) logits; t is at most `length`."""

    rotation: Tensor
    first_rows: Tensor

    def __init__(self, shape: ModelShape, multipliers: Multipliers, *, length: int, copies: int = 1) -> None:
        super().__init__()
        if shape.head_dim % 2:
            raise ProbeError(
                f"heads of dimension {shape.head_dim} cannot carry rotary positions: it must be even",
                hint="choose width and heads so that width / heads is even",
            )
        self.shape = shape
        self.multipliers = multipliers
        self.copies = copies
        self.embedding = matrix(copies, shape.vocab, shape.width)
        self.blocks = nn.ModuleList(Block(shape, multipliers, copies) for _ in range(shape.layers))
        self.norm = Norm(shape, copies)
        self.head = self.embedding if shape.tied else matrix(copies, shape.vocab, shape.width)
        self.register_buffer("rotation", rotary(length, shape.head_dim), persistent=False)
        # Row i of copy c is row c · v + i of all copies' embeddings laid end to end.
        self.register_buffer("first_rows", torch.arange(copies)[:, None] * shape.vocab, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        sequences, length = tokens.shape[1:]
        rotation = self.rotation[:length]
        x = F.embedding(tokens.flatten(1) + self.first_rows, self.embedding.flatten(0, 1))
        for block in self.blocks:
            x = block(x, rotation, sequences)
        return torch.bmm(self.norm(x) * self.multipliers.logits, self.head.mT)


class Block(nn.Module):
    """Attention, then feed-forward; each reads a normed stream and adds to it."""

    def __init__(self, shape: ModelShape, multipliers: Multipliers, copies: int) -> None:
        super().__init__()
        self.attention_norm = Norm(shape, copies)
        self.attention = Attention(shape, multipliers.attention, copies)
        self.feed_forward_norm = Norm(shape, copies)
        self.feed_forward = Experts(shape, copies) if shape.num_experts > 1 else FeedForward(shape, copies)

    def forward(self, x: Tensor, rotation: Tensor, sequences: int) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rotation, sequences)
        x = x + self.feed_forward(self.feed_forward_norm(x))
        return x


class Attention(nn.Module):
    """Causal self-attention; query, key and value come out of one product."""

    def __init__(self, shape: ModelShape, scale: float, copies: int) -> None:
        super().__init__()
        self.shape = shape
        self.scale = scale
        self.qkv = matrix(copies, shape.width + 2 * shape.kv_heads * shape.head_dim, shape.width)
        self.out = matrix(copies, shape.width, shape.width)
        self.query_norm = vector(copies, shape.head_dim) if shape.qk_norm else None
        self.key_norm = vector(copies, shape.head_dim) if shape.qk_norm else None

    def forward(self, x: Tensor, rotation: Tensor, sequences: int) -> Tensor:
        copies, tokens, width = x.shape
        heads, kv_heads = self.shape.heads, self.shape.kv_heads
        qkv = torch.bmm(x, self.qkv.mT).view(copies, tokens, heads + 2 * kv_heads, self.shape.head_dim)
        query, key, value = qkv.split([heads, kv_heads, kv_heads], dim=2)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = head_norm(query, self.query_norm), head_norm(key, self.key_norm)
        # Sequences of all copies are one batch to attention: it has no weights.
        together = (copies * sequences, tokens // sequences)
        query, key = (
            rotate(part.reshape(*together, -1, self.shape.head_dim), rotation) for part in (query, key)
        )
        mixed = F.scaled_dot_product_attention(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.reshape(*together, kv_heads, -1).transpose(1, 2),
            is_causal=True,
            scale=self.scale,
            enable_gqa=heads != kv_heads,
        )
        return torch.bmm(mixed.transpose(1, 2).reshape(copies, tokens, width), self.out.mT)


class FeedForward(nn.Module):
    """SwiGLU (gate and up in one product), or GELU without a gate."""

    def __init__(self, shape: ModelShape, copies: int) -> None:
        super().__init__()
        self.gated = shape.activation == "swiglu"
        self.up = matrix(copies, (2 if self.gated else 1) * shape.ffn, shape.width)
        self.down = matrix(copies, shape.width, shape.ffn)

    def forward(self, x: Tensor) -> Tensor:
        return torch.bmm(activated(torch.bmm(x, self.up.mT), gated=self.gated), self.down.mT)


class Experts(nn.Module):
    """A mixture of feed-forward blocks: each token visits the `experts_per_token` that its router likes best.

    No token is dropped. The load is balanced without a loss term, over the global batch (Wang et al. 2024,
    2408.15664): a bias on the choice, not on the mixture, rises for experts that had too few tokens and falls for the
    others, once an optimizer step. So a batch in parts is balanced as one, and the loss stays the loss.
    """

    bias: Tensor
    load: Tensor

    def __init__(self, shape: ModelShape, copies: int) -> None:
        super().__init__()
        self.shape = shape
        self.gated = shape.activation == "swiglu"
        self.router = matrix(copies, shape.num_experts, shape.width)
        self.up = matrix(copies, shape.num_experts * (2 if self.gated else 1) * shape.ffn, shape.width)
        self.down = matrix(copies, shape.num_experts * shape.width, shape.ffn)
        self.register_buffer("bias", torch.zeros(copies, shape.num_experts))
        self.register_buffer("load", torch.zeros(copies, shape.num_experts))

    def forward(self, x: Tensor) -> Tensor:
        likes = torch.bmm(x, self.router.mT).float().softmax(dim=-1)
        chosen = (likes + self.bias[:, None]).topk(self.shape.experts_per_token).indices
        weights = likes.gather(-1, chosen)
        weights = weights / weights.sum(dim=-1, keepdim=True)
        if torch.is_grad_enabled():
            self.load += F.one_hot(chosen, self.shape.num_experts).sum(dim=(1, 2))
        return torch.stack(
            [self._mixed(x[copy], chosen[copy], weights[copy], copy) for copy in range(len(x))]
        )

    def _mixed(self, x: Tensor, chosen: Tensor, weights: Tensor, copy: int) -> Tensor:
        """One copy's tokens (n, d) through their experts; `chosen` and `weights` are (n, experts a token)."""
        mixed = torch.zeros_like(x)
        ups, downs = (
            self.up[copy].chunk(self.shape.num_experts),
            self.down[copy].chunk(self.shape.num_experts),
        )
        for expert, (up, down) in enumerate(zip(ups, downs, strict=True)):
            token, rank = (chosen == expert).nonzero(as_tuple=True)
            out = activated(x[token] @ up.mT, gated=self.gated) @ down.mT
            mixed = mixed.index_add(0, token, (out * weights[token, rank, None]).type_as(x))
        return mixed

    @torch.no_grad()
    def balance(self) -> None:
        """Moves the bias by the load since the last call, of all processes of the training, and forgets the load."""
        if distributed.is_initialized():
            distributed.all_reduce(self.load)
        self.bias += BALANCE_RATE * (self.load.mean(dim=1, keepdim=True) - self.load).sign()
        self.load.zero_()


def activated(hidden: Tensor, *, gated: bool) -> Tensor:
    """SwiGLU of gate and up side by side, or GELU."""
    if not gated:
        return F.gelu(hidden)
    gate, up = hidden.chunk(2, dim=-1)
    return F.silu(gate) * up


class Norm(nn.Module):
    """RMSNorm, or LayerNorm with a bias, with one gain a copy."""

    def __init__(self, shape: ModelShape, copies: int) -> None:
        super().__init__()
        self.gain = vector(copies, shape.width)
        self.bias = nn.Parameter(torch.zeros(copies, shape.width)) if shape.norm == "layer" else None

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is not None:
            return F.layer_norm(x, x.shape[-1:]) * self.gain[:, None] + self.bias[:, None]
        return F.rms_norm(x, x.shape[-1:]) * self.gain[:, None]


def matrix(copies: int, rows: int, columns: int) -> nn.Parameter:
    """Uninitialised weights of `copies` matrices: see `initialise`."""
    return nn.Parameter(torch.empty(copies, rows, columns))


def vector(copies: int, size: int) -> nn.Parameter:
    return nn.Parameter(torch.ones(copies, size))


def head_norm(x: Tensor, gain: Tensor) -> Tensor:
    """RMSNorm over each head of (c, n, h, head_dim), with one gain a copy, shared by its heads."""
    return F.rms_norm(x, x.shape[-1:]) * gain[:, None, None]


def rotary(length: int, head_dim: int) -> Tensor:
    """Cosine and sine (t, 1, head_dim / 2, 2) of the angle by which pair i is turned at position p:
    p · base^(-2 i / head_dim).
    """
    frequencies = ROTARY_BASE ** (-torch.arange(0, head_dim, 2) / head_dim)
    angles = torch.outer(torch.arange(length), frequencies)
    return torch.stack([angles.cos(), angles.sin()], dim=-1)[:, None]


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turns neighbouring pairs of (sequences, t, h, head_dim).

    Complex products are 2 to 7 times as fast on CPUs; compilers have no code for them.
    """
    pairs = x.float().unflatten(-1, (-1, 2))
    if x.is_cpu and not torch.compiler.is_compiling():
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(rotation))
    else:
        (even, odd), (cos, sin) = pairs.unbind(-1), rotation.unbind(-1)
        turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return turned.flatten(-2).type_as(x)


def weights_of(model: Decoder, copy: int) -> Iterator[Weight]:
    """The weights of one copy; products computed together are given apart. Gradients must have been
    allocated.

    Optimizers work on these views, so every copy has its own rates and every matrix is the one the paper
    means.
    """
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, "gradients are allocated before the optimizers are built"
        sections = _sections(name, model.shape, parameter.shape[1])
        values, grads = parameter.detach()[copy].split(sections), parameter.grad[copy].split(sections)
        for value, grad in zip(values, grads, strict=True):
            role = role_of(name, parameter)
            yield Weight(name, role, value, grad, model.multipliers.rate[role])


def role_of(name: str, parameter: Tensor) -> Role:
    if parameter.ndim == 2:
        return "vector"
    if name == "embedding":
        return "embedding"
    return "head" if name == "head" else "hidden"


def _sections(name: str, shape: ModelShape, rows: int) -> list[int]:
    """Rows of each logical matrix inside a stacked product."""
    if name.endswith("attention.qkv"):
        kv_rows = shape.kv_heads * shape.head_dim
        return [shape.width, kv_rows, kv_rows]
    if name.endswith("feed_forward.up"):
        return [shape.ffn] * (rows // shape.ffn)
    if name.endswith("feed_forward.down"):
        return [shape.width] * (rows // shape.width)
    return [rows]


@torch.no_grad()
def initialise(model: Decoder, seeds: list[int]) -> None:
    """Random weights, one seed a copy: a copy starts as the same model would alone, on every device."""
    for copy, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                continue
            writes = name.endswith(("attention.out", "feed_forward.down"))
            std = initial_std(
                role_of(name, parameter),
                fan_in=parameter.shape[2],
                residual_layers=model.shape.layers if writes else 0,
            )
            start = torch.randn(parameter.shape[1:], generator=generator, dtype=torch.float32) * std
            parameter[copy].copy_(start)
