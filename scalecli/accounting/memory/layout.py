"""How a model and its batch are spread over devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from scalecli.accounting.shape import ModelShape
from scalecli.errors import PlanError

Sharding = Literal["none", "ddp", "zero1", "zero2", "zero3"]
_SHARDINGS: tuple[Sharding, ...] = get_args(Sharding)
Schedule = Literal["1f1b", "interleaved", "breadth-first", "zero-bubble"]
Offload = Literal["none", "optimizer", "optimizer+weights", "activations"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Degrees of parallelism and what is sharded over the data-parallel ranks.

    `zero1` shards optimizer states, `zero2` gradients too, `zero3` (fully sharded data parallel) weights too
    (Rajbhandari et al., 1910.02054, section 5). Context-parallel ranks share weights as data-parallel ones do, so
    states are sharded over `dp * cp`.
    """

    sharding: Sharding = "none"
    dp: int = 1
    tp: int = 1
    pp: int = 1
    cp: int = 1
    ep: int = 1
    """Expert-parallel ranks; they are taken out of the data-parallel ones."""
    sequence_parallel: bool = True
    """Norms and residual stream are split over the tensor-parallel ranks (Korthikanti et al., 2205.05198)."""
    schedule: Schedule = "1f1b"
    virtual_stages: int = 1
    """Model chunks a pipeline rank holds."""
    reshard_after_forward: bool = True
    """Weights under `zero3` are gathered again for backward, not kept."""
    shard_group: int | None = None
    """Ranks over which states are sharded, if fewer than all (hybrid sharding)."""
    offload: Offload = "none"
    """What lives in host memory between uses."""

    def __post_init__(self) -> None:
        for name, allowed in (("sharding", Sharding), ("schedule", Schedule), ("offload", Offload)):
            if getattr(self, name) not in get_args(allowed):
                raise PlanError(
                    f"{name} {getattr(self, name)!r} is not known",
                    hint=f"choose one of {', '.join(get_args(allowed))}",
                )
        for name in ("dp", "tp", "pp", "cp", "ep", "virtual_stages"):
            if getattr(self, name) < 1:
                raise PlanError(f"{name} is {getattr(self, name)}; a degree of parallelism is at least 1")
        if self.sharding == "none" and self.dp > 1:
            raise PlanError(
                f"{self.dp} data-parallel ranks need a sharding", hint="give --sharding ddp or zero1-3"
            )
        if self.dp % self.ep:
            raise PlanError(f"{self.ep} expert-parallel ranks do not divide {self.dp} data-parallel ranks")
        if self.shard_group is not None and (self.dp * self.cp) % self.shard_group:
            raise PlanError(f"shard groups of {self.shard_group} do not divide {self.dp * self.cp} ranks")

    @property
    def devices(self) -> int:
        return self.dp * self.tp * self.pp * self.cp

    @property
    def shards(self) -> int:
        """Ranks that share one copy of what is sharded."""
        return self.shard_group or self.dp * self.cp

    @property
    def expert_shards(self) -> int:
        """Ranks that share one copy of an expert: those that do not hold other experts."""
        return max(1, self.shards // self.ep)

    def shards_at(self, stage: Sharding) -> bool:
        """Whether what `stage` is the first to shard is sharded here."""
        return self.shards > 1 and _SHARDINGS.index(self.sharding) >= _SHARDINGS.index(stage)


def check_layout(shape: ModelShape, layout: Layout, sequence_length: int) -> None:
    """Raise PlanError where the model cannot be cut that way."""
    if shape.heads % layout.tp:
        raise PlanError(
            f"{shape.heads} attention heads cannot be split over {layout.tp} tensor-parallel ranks",
            hint=f"use --tp with a divisor of {shape.heads}",
        )
    if max(shape.kv_heads, layout.tp) % min(shape.kv_heads, layout.tp):
        raise PlanError(
            f"{shape.kv_heads} key-value heads and {layout.tp} tensor-parallel ranks do not divide evenly"
        )
    if shape.ffn % layout.tp:
        raise PlanError(
            f"a feed-forward width of {shape.ffn} cannot be split over {layout.tp} ranks", hint="change --ffn"
        )
    if layout.tp > 1 and layout.sequence_parallel and sequence_length % (layout.tp * layout.cp):
        raise PlanError(f"a sequence of {sequence_length} cannot be split over {layout.tp * layout.cp} ranks")
    if shape.layers < layout.pp * layout.virtual_stages:
        raise PlanError(
            f"{shape.layers} layers are fewer than {layout.pp * layout.virtual_stages} pipeline stages",
            hint=f"use --pp {shape.layers} or less",
        )
    if sequence_length % layout.cp:
        raise PlanError(
            f"a sequence of {sequence_length} tokens cannot be split over {layout.cp} context ranks"
        )
    if shape.num_experts % layout.ep:
        raise PlanError(
            f"{shape.num_experts} experts cannot be split over {layout.ep} expert-parallel ranks",
            hint="use --ep with a divisor of the number of experts",
        )
