"""How a model is trained, as far as its bytes depend on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from scalecli.errors import PlanError

Precision = Literal["bf16", "bf16-autocast", "fp32"]
Optimizer = Literal[
    "adamw",
    "adamw-8bit",
    "lamb",
    "lars",
    "lion",
    "muon",
    "mkor",
    "adafactor",
    "apollo",
    "sgd",
    "sgd-momentum",
]
OptimizerImpl = Literal["loop", "foreach", "fused"]
Recompute = Literal["none", "selective", "full"]
Logits = Literal["full", "chunked"]
Attention = Literal["flash", "stored"]
NormKernel = Literal["fused", "decomposed"]
Moment = Literal["forward", "loss", "backward", "step"]

MOMENTS: tuple[Moment, ...] = get_args(Moment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Precision, optimizer, kernels and recomputation of a training step.

    `bf16` keeps weights, gradients and optimizer states in bfloat16; `bf16-autocast` keeps them in float32 and casts
    the weights of every matrix product; `fp32` uses float32 throughout.
    """

    precision: Precision = "bf16"
    master_weights: bool = False
    """A float32 copy of bfloat16 weights, with float32 optimizer states."""
    optimizer: Optimizer = "adamw"
    optimizer_impl: OptimizerImpl = "foreach"
    optimizer_rank: int = 256
    """Rank of the projected states of APOLLO."""
    recompute: Recompute = "none"
    """`selective` keeps the outputs of matrix products and attention, `full` only the input of each layer."""
    logits: Logits = "full"
    logit_chunks: int = 8
    """Pieces of a chunked loss; each is recomputed in backward."""
    attention: Attention = "flash"
    norm: NormKernel = "fused"
    dropout: float = 0.0
    accumulation: int = 1
    """Micro-batches whose gradients are summed before an optimizer step."""
    lora_rank: int = 0
    """0 trains every weight; otherwise only adapters of this rank on the attention projections."""
    base_bits: int | None = None
    """Bits of quantised frozen matrices under LoRA (4 or 8); None keeps them in the stored type."""
    sequence_chunks: int = 1
    """Pieces of the sequence that a recomputed layer is taken backward in (sequence-chunked backward)."""
    expert_capacity: float = 1.0
    """Slots an expert has, relative to a perfectly balanced routing."""
    ema_copies: int = 0
    """Float32 averages of the weights kept on the device."""
    saved_compression: float = 1.0
    """Factor by which tensors saved for backward are compressed (activation compressed training)."""

    def __post_init__(self) -> None:
        choices = {
            "precision": Precision, "optimizer": Optimizer, "optimizer_impl": OptimizerImpl, "recompute": Recompute,
            "logits": Logits, "attention": Attention, "norm": NormKernel,
        }  # fmt: skip
        for name, allowed in choices.items():
            if getattr(self, name) not in get_args(allowed):
                raise PlanError(
                    f"{name} {getattr(self, name)!r} is not known",
                    hint=f"choose one of {', '.join(get_args(allowed))}",
                )
        for name in ("accumulation", "logit_chunks", "optimizer_rank", "sequence_chunks"):
            if getattr(self, name) < 1:
                raise PlanError(f"{name.replace('_', ' ')} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.dropout < 1:
            raise PlanError(f"dropout is {self.dropout}; it must be at least 0 and below 1")
        if self.saved_compression < 1 or self.expert_capacity <= 0:
            raise PlanError("a compression factor below 1 or an expert capacity of 0 makes no sense")
        if self.lora_rank < 0 or self.ema_copies < 0:
            raise PlanError("LoRA rank and copies of averaged weights cannot be negative")
        if self.base_bits is not None and (not self.lora_rank or self.base_bits not in (4, 8)):
            raise PlanError("only frozen weights can be quantised, to 4 or 8 bits", hint="give a LoRA rank")
        if self.sequence_chunks > 1 and self.recompute != "full":
            raise PlanError(
                "a backward pass in chunks of the sequence recomputes them", hint="--recompute full"
            )
        if self.master_weights and self.precision != "bf16":
            raise PlanError(
                f"{self.precision} keeps float32 weights already; master weights would be a second copy"
            )

    @property
    def weight_bytes(self) -> int:
        """Bytes of one stored weight, and of its gradient."""
        return 2 if self.precision == "bf16" else 4

    @property
    def compute_bytes(self) -> int:
        """Bytes of one value that a matrix product reads or writes."""
        return 4 if self.precision == "fp32" else 2

    @property
    def stream_bytes(self) -> int:
        """Bytes of one value of the residual stream: autocast leaves it in the type of the embedding."""
        return self.weight_bytes

    @property
    def state_bytes(self) -> int:
        """Bytes of one unquantised value of optimizer state."""
        return 4 if self.master_weights else self.weight_bytes
