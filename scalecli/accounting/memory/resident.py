"""What is on one device from step to step: weights, optimizer states, and what belongs to them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from scalecli.accounting.memory import weights
from scalecli.accounting.memory.layout import Layout
from scalecli.accounting.memory.optimizers import optimizer_bytes
from scalecli.accounting.memory.parameters import layer_parameters
from scalecli.accounting.memory.rank import Rank
from scalecli.accounting.memory.recipe import Recipe
from scalecli.accounting.memory.tape import GRADIENTS, Bytes

TOKEN_BYTES = 2 * 8  # an int64 token and its target


@dataclass(frozen=True)
class Resident:
    """One device's state under a recipe and a layout."""

    rank: Rank
    recipe: Recipe
    layout: Layout

    @cached_property
    def whole(self) -> Bytes:
        """Before anything is moved off the device."""
        rank, recipe, layout = self.rank, self.recipe, self.layout
        return {
            "weights": weights.weight_bytes(rank, recipe, layout),
            "master weights": weights.master_bytes(rank, recipe, layout),
            "averaged weights": weights.average_bytes(rank, recipe, layout),
            "optimizer states": self._optimizer[0],
            "gradient buckets": weights.bucket_bytes(rank, recipe, layout),
            "batch": rank.tokens * TOKEN_BYTES,
        }

    @cached_property
    def bytes(self) -> Bytes:
        """What stays on the device in every moment, gradients left out."""
        gone = dict.fromkeys(("master weights", "optimizer states"), 0)
        kept = self.whole | (gone if self.layout.offloads("optimizer") else {})
        if self.layout.offloads("weights"):
            kept["weights"] -= self.streamed_bytes
        return kept

    @cached_property
    def streamed_bytes(self) -> int:
        """Weights of the layers that are elsewhere while others compute."""
        elsewhere = self.rank.layers - self.layout.resident_layers - self.layout.prefetch_layers
        return max(0, elsewhere) * self.layer_bytes

    @cached_property
    def layer_bytes(self) -> int:
        """Stored weights of one layer."""
        found = layer_parameters(self.rank, self.recipe)
        return weights.sharded(found, lambda p: weights.stored_bytes(p, self.recipe), self.layout, "zero3")

    @cached_property
    def gradients(self) -> int:
        """Of all trained weights, as they wait on the device for the optimizer step."""
        if self.layout.offloads("optimizer"):
            return 0
        return weights.gradient_bytes(self.rank, self.recipe, self.layout)

    @property
    def keeps_gradients(self) -> bool:
        """Gradients have memory of their own from the beginning: contiguous buffers that are reduced in place, buckets
        that they are views of, or sums in another format."""
        if self.layout.shards_at("zero2") or self.layout.offloads("optimizer"):
            return False
        reduced_in_place = self.layout.shards_at("zero1") or (
            self.layout.sharding == "ddp" and self.layout.shards > 1 and self.layout.bucket_views
        )
        return reduced_in_place or self.recipe.sums_gradients

    def step(self) -> Bytes:
        """While the optimizer steps: all gradients and what it holds for a moment; no activation is left."""
        here = 0 if self.layout.offloads("optimizer") else self._optimizer[1]
        return self.bytes | {GRADIENTS: self.gradients, "optimizer temporaries": here}

    @cached_property
    def _optimizer(self) -> tuple[int, int]:
        """States and temporaries."""
        return optimizer_bytes(self.rank, self.recipe, self.layout)
