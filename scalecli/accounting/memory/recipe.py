"""How a model is trained, as far as its bytes depend on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from scalecli.accounting.memory.peft import TUNINGS, Trained, Tuning
from scalecli.accounting.memory.precision import PRECISIONS, STORED_BYTES, Formats, Precision, Stored
from scalecli.errors import PlanError

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
AdapterTargets = Literal["attention", "all"]
Moment = Literal["forward", "loss", "backward", "step"]

MOMENTS: tuple[Moment, ...] = get_args(Moment)
CHOICES: dict[str, tuple[str, ...]] = {
    name: get_args(kind)
    for name, kind in (
        ("precision", Precision), ("optimizer", Optimizer), ("optimizer_impl", OptimizerImpl), ("recompute", Recompute),
        ("logits", Logits), ("attention", Attention), ("norm", NormKernel), ("tuning", Tuning),
        ("lora_targets", AdapterTargets), ("moments", Stored), ("gradients", Stored),
    )
}  # fmt: skip
"""What each field of a recipe may be."""
AT_LEAST_ONE = ("accumulation", "logit_chunks", "optimizer_rank", "sequence_chunks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Precision, optimizer, kernels and recomputation of a training step.

    `bf16` keeps weights, gradients and optimizer states in bfloat16; `bf16-autocast` keeps them in float32 and casts
    the weights of every matrix product; `fp32` uses float32 throughout; the others are in `precision.py`.
    """

    precision: Precision = "bf16"
    master_weights: bool = False
    """A float32 copy of narrower weights, with float32 optimizer states."""
    moments: Stored | None = None
    """Format of the optimizer's moments; None leaves it to the precision and the master weights."""
    gradients: Stored | None = None
    """Format of a buffer that gradients are summed in; None stores them as the precision does."""
    optimizer: Optimizer = "adamw"
    optimizer_impl: OptimizerImpl = "foreach"
    optimizer_rank: int = 256
    """Rank of the projected states of APOLLO."""
    recompute: Recompute = "none"
    """`selective` keeps the outputs of matrix products and attention, `full` only the input of each layer."""
    recompute_layers: int | None = None
    """How many layers of a device are recomputed, from its first one; None recomputes all."""
    logits: Logits = "full"
    logit_chunks: int = 8
    """Pieces of a chunked loss; each is recomputed in backward."""
    attention: Attention = "flash"
    norm: NormKernel = "fused"
    dropout: float = 0.0
    accumulation: int = 1
    """Micro-batches whose gradients are summed before an optimizer step."""
    tuning: Tuning = "all"
    """What is trained; a LoRA rank alone means `lora`."""
    lora_rank: int = 0
    """Rank of the adapters; 0 has none."""
    lora_targets: AdapterTargets = "attention"
    """Projections that have an adapter: those of attention, or those of the feed-forward block too."""
    base_bits: int | None = None
    """Bits of quantised frozen matrices (4 or 8); None keeps them in the stored type."""
    sequence_chunks: int = 1
    """Pieces of the sequence that a recomputed layer is taken backward in (Luo et al., 2506.03077)."""
    expert_capacity: float = 1.0
    """Slots an expert has, relative to a perfectly balanced routing."""
    ema_copies: int = 0
    """Float32 averages of the weights kept on the device."""
    saved_compression: float = 1.0
    """Factor by which tensors saved for backward are compressed (Liu et al., 2206.11357)."""
    sampled_rows: float = 1.0
    """Share of the tokens whose inputs of trained products are kept (Liu et al., 2305.15265)."""
    contrastive_pairs: int | None = None
    """Pairs of a contrastive loss, which then replaces head and cross-entropy."""
    contrastive_tile: int | None = None
    """Columns of the similarities that are alive at once; None has all of them."""

    def __post_init__(self) -> None:
        if self.lora_rank > 0 and self.tuning == "all":
            object.__setattr__(self, "tuning", "lora")
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise PlanError(f"{name} {value!r} is not known", hint=f"choose one of {', '.join(allowed)}")
        for name in AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise PlanError(f"{name.replace('_', ' ')} is {getattr(self, name)}; it must be at least 1")
        self._check_ranges()
        self._check_tuning()
        self._check_recomputation()
        if self.master_weights and self.formats.weights == 4:
            raise PlanError(
                f"{self.precision} keeps float32 weights already; master weights would be a second copy"
            )

    def recomputed_of(self, layers: int) -> int:
        """How many of a device's layers are recomputed: the first ones."""
        if self.recompute == "none":
            return 0
        return layers if self.recompute_layers is None else min(self.recompute_layers, layers)

    def _check_ranges(self) -> None:
        if not 0 <= self.dropout < 1:
            raise PlanError(f"dropout is {self.dropout}; it must be at least 0 and below 1")
        if not 1 <= self.saved_compression < float("inf") or not 0 < self.expert_capacity < float("inf"):
            raise PlanError("a compression factor below 1 or an expert capacity of 0 makes no sense")
        if not 0 < self.sampled_rows <= 1:
            raise PlanError(f"a share of {self.sampled_rows:g} of the rows cannot be kept; it is at most 1")
        if self.lora_rank < 0 or self.ema_copies < 0 or (self.recompute_layers or 0) < 0:
            raise PlanError("LoRA rank, copies of averaged weights and recomputed layers cannot be negative")

    def _check_tuning(self) -> None:
        if (self.tuning == "lora") != (self.lora_rank > 0):
            raise PlanError(
                f"tuning {self.tuning} with a LoRA rank of {self.lora_rank}", hint="--lora-rank 16"
            )
        if self.base_bits is not None and (self.tuning == "all" or self.base_bits not in (4, 8)):
            raise PlanError(
                "only frozen weights can be quantised, to 4 or 8 bits", hint="give --lora-rank or --tuning"
            )

    def _check_recomputation(self) -> None:
        if self.sequence_chunks > 1 and self.recompute != "full":
            raise PlanError(
                "a backward pass in chunks of the sequence recomputes them", hint="--recompute full"
            )
        if self.recompute_layers is not None and self.recompute == "none":
            raise PlanError(
                f"{self.recompute_layers} layers to recompute, but nothing is recomputed",
                hint="--recompute selective or full",
            )
        if self.contrastive_tile is not None and self.contrastive_pairs is None:
            raise PlanError("tiles of a contrastive loss need its pairs", hint="--contrastive-pairs 32768")

    @property
    def formats(self) -> Formats:
        return PRECISIONS[self.precision]

    @property
    def trained(self) -> Trained:
        return TUNINGS[self.tuning]

    @property
    def weight_bytes(self) -> int:
        """Bytes of one stored weight."""
        return self.formats.weights

    @property
    def gradient_bytes(self) -> int:
        """Bytes of the gradient of one weight while it is stored."""
        return self.formats.gradients if self.gradients is None else STORED_BYTES[self.gradients]

    @property
    def sums_gradients(self) -> bool:
        """Gradients are added to a buffer of another format as soon as they are made."""
        return self.gradient_bytes != self.weight_bytes

    @property
    def compute_bytes(self) -> int:
        """Bytes of one value that a matrix product makes."""
        return self.formats.computed

    @property
    def stream_bytes(self) -> int:
        """Bytes of one value of the residual stream."""
        return self.formats.stream

    @property
    def moment_bytes(self) -> tuple[int, int]:
        """Bytes of one value of each unquantised moment."""
        if self.moments is not None:
            return STORED_BYTES[self.moments], STORED_BYTES[self.moments]
        return (4, 4) if self.master_weights else self.formats.moments

    @property
    def has_plain_states(self) -> bool:
        """Moments have the type of the weights that are updated, as PyTorch's own optimizers keep them."""
        return set(self.moment_bytes) == {4 if self.master_weights else self.weight_bytes}

    @property
    def state_bytes(self) -> int:
        """Bytes of one value that an optimizer step computes with."""
        return max(self.weight_bytes, *self.moment_bytes)
