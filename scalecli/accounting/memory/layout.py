"""How a model and its batch are spread over devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from scalecli.accounting.memory.recipe import Recipe
from scalecli.accounting.shape import ModelShape
from scalecli.errors import PlanError

Sharding = Literal["none", "ddp", "zero1", "zero2", "zero3"]
_SHARDINGS: tuple[Sharding, ...] = get_args(Sharding)
Schedule = Literal["1f1b", "interleaved", "breadth-first", "zero-bubble"]
Offload = Literal[
    "none", "optimizer", "weights", "optimizer+weights", "activations", "optimizer+activations", "weights+activations",
    "optimizer+weights+activations",
]  # fmt: skip
Tier = Literal["cpu", "nvme"]
DEGREES = ("dp", "tp", "pp", "cp", "ep", "virtual_stages", "resident_layers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Degrees of parallelism, what is sharded over the data-parallel ranks, and what lives outside the device.

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
    bucket_views: bool = False
    """Gradients under `ddp` are views of the buckets that are reduced, not copied into them."""
    offload: Offload = "none"
    """What lives in host memory, or behind it, between uses."""
    offload_to: Tier = "cpu"
    offload_layers: int | None = None
    """How many layers' activations are offloaded, from the first one; None offloads all."""
    resident_layers: int = 1
    """Layers whose offloaded weights are on the device at a time, beside those on their way."""
    prefetch_layers: int = 1
    """Layers whose offloaded weights are on their way while others compute."""

    def __post_init__(self) -> None:
        for name, allowed in (
            ("sharding", Sharding), ("schedule", Schedule), ("offload", Offload), ("offload_to", Tier),
        ):  # fmt: skip
            if getattr(self, name) not in get_args(allowed):
                raise PlanError(
                    f"{name} {getattr(self, name)!r} is not known",
                    hint=f"choose one of {', '.join(get_args(allowed))}",
                )
        for name in DEGREES:
            if getattr(self, name) < 1:
                raise PlanError(f"{name} is {getattr(self, name)}; it is at least 1")
        self._check_groups()
        self._check_pipeline()
        self._check_offload()

    def _check_groups(self) -> None:
        if self.sharding == "none" and self.dp > 1:
            raise PlanError(
                f"{self.dp} data-parallel ranks need a sharding", hint="give --sharding ddp or zero1-3"
            )
        if self.dp % self.ep:
            raise PlanError(f"{self.ep} expert-parallel ranks do not divide {self.dp} data-parallel ranks")
        if self.shard_group is None:
            return
        if self.shard_group < 1 or (self.dp * self.cp) % self.shard_group:
            raise PlanError(f"shard groups of {self.shard_group} do not divide {self.dp * self.cp} ranks")
        if not self.sharding.startswith("zero"):
            raise PlanError(f"{self.sharding} shards nothing, in groups or not", hint="--sharding zero3")

    def _check_pipeline(self) -> None:
        if self.virtual_stages > 1 and self.schedule not in ("interleaved", "breadth-first"):
            raise PlanError(
                f"{self.virtual_stages} model chunks a rank do not go with the schedule {self.schedule}",
                hint="--schedule interleaved or breadth-first",
            )
        if self.schedule == "interleaved" and self.virtual_stages == 1:
            raise PlanError("an interleaved schedule needs model chunks", hint="--virtual-stages 2 or more")
        if self.schedule != "1f1b" and self.pp == 1:
            raise PlanError(f"the schedule {self.schedule} needs pipeline stages", hint="--pp 2 or more")

    def _check_offload(self) -> None:
        if self.offload_layers is not None and (not self.offloads("activations") or self.offload_layers < 0):
            raise PlanError(
                f"{self.offload_layers} layers' activations cannot be offloaded",
                hint="--offload activations with a number of layers",
            )
        if self.prefetch_layers < 0:
            raise PlanError(f"{self.prefetch_layers} layers cannot be on their way")

    def offloads(self, part: str) -> bool:
        """Whether `optimizer`, `weights` or `activations` live outside the device."""
        return part in self.offload.split("+")

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
        raise PlanError(
            f"a sequence of {sequence_length} cannot be split over {layout.tp * layout.cp} ranks",
            hint="--no-sequence-parallel, or another length",
        )
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


def check_recipe(recipe: Recipe, layout: Layout) -> None:
    """Raise PlanError where a recipe and a layout ask for what nobody has put together."""
    splits = layout.tp > 1 and layout.sequence_parallel
    for wished, what in (
        (recipe.sampled_rows < 1, "a sample of the rows"),
        (recipe.base_bits is not None, "a quantised base"),
    ):
        if wished and splits:
            raise PlanError(
                f"{what} needs whole sequences, which {layout.tp} tensor-parallel ranks share here",
                hint="--no-sequence-parallel",
            )
