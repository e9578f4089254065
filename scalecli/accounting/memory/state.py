"""What is alive on one device throughout a step, and what forward leaves for backward."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property

from scalecli.accounting.memory import cross_entropy, offload, saved, weights
from scalecli.accounting.memory.layout import Layout
from scalecli.accounting.memory.optimizers import optimizer_bytes
from scalecli.accounting.memory.rank import Rank
from scalecli.accounting.memory.recipe import Recipe

Bytes = dict[str, int]
"""Bytes by the name of their term."""
TOKEN_BYTES = 2 * 8  # an int64 token and its target


class State:
    """One device's part of model, optimizer and micro-batch; methods return bytes where they do not say otherwise."""

    def __init__(self, rank: Rank, recipe: Recipe, layout: Layout, micro_batches_in_flight: int) -> None:
        self.rank, self.recipe, self.layout = rank, recipe, layout
        gathers = layout.sharding == "zero3" and recipe.precision == "bf16-autocast"
        # Fully sharded weights are gathered in the computed type: the stream is narrow and nothing is cast.
        self.computed = replace(recipe, precision="bf16") if gathers else recipe
        self.waiting = micro_batches_in_flight - 1
        self.accumulating = recipe.accumulation > 1
        self.states, self.temporaries = optimizer_bytes(rank, recipe, layout)

    def static(self, layers_gathered: int = weights.LAYERS_GATHERED) -> Bytes:
        """What is there in every moment, with the whole weights of that many layers under zero3."""
        gathered = weights.gathered_bytes(self.rank, self.computed, self.layout, layers_gathered)
        return self.resident | {"gathered weights": gathered}

    @cached_property
    def resident(self) -> Bytes:
        """What stays on the device from step to step, the batch, and what a pipeline has waiting."""
        rank, recipe, layout = self.rank, self.recipe, self.layout
        resident = {
            "weights": weights.weight_bytes(rank, recipe, layout),
            "master weights": weights.master_bytes(rank, recipe, layout),
            "averaged weights": weights.average_bytes(rank, recipe, layout),
            "optimizer states": self.states,
            "batch": rank.tokens * TOKEN_BYTES,
            "waiting micro-batches": self.waiting * self.saved_activations(),
        }
        return offload.on_device(resident, self.layer_weight_bytes(), layout.offload)

    def host_bytes(self) -> int:
        """What offloading puts into host memory."""
        resident = {
            "weights": weights.weight_bytes(self.rank, self.recipe, self.layout),
            "master weights": weights.master_bytes(self.rank, self.recipe, self.layout),
            "optimizer states": self.states,
            "gradients": self.all_gradients,
            "saved activations": (self.waiting + 1) * self.saved_activations(),
        }
        return offload.on_host(resident, self.layout.offload)

    def layer_weight_bytes(self) -> int:
        """Of one layer in the computed type."""
        return self.rank.layer_weights * self.computed.compute_bytes

    def layer_trained(self) -> int:
        """Trained weights of one layer (a number, not bytes)."""
        r = self.recipe.lora_rank
        return self.rank.adapter_weights(r) if r else self.rank.layer_weights

    @cached_property
    def all_gradients(self) -> int:
        """When backward is done."""
        values, experts = (
            weights.trained_weights(self.rank, self.recipe),
            weights.trained_experts(self.rank, self.recipe),
        )
        return weights.gradient_bytes(values, experts, self.recipe, self.layout)

    def gradients_before(self) -> int:
        """Of earlier micro-batches of the same step."""
        return self.all_gradients if self.accumulating else 0

    def gradients_above(self, layers: int) -> int:
        """Of head, final norm and the last `layers` layers.

        Sharded gradients are reduced layer by layer; those of head and norm belong to the outermost unit and stay
        whole to the end (PyTorch's FSDP2).
        """
        if self.layout.shards_at("zero2"):
            below = self.gradients_before() if self.accumulating else self.layers_gradients(layers)
            return below + self.top_trained() * self.recipe.weight_bytes
        if self.accumulating:
            return self.gradients_before()
        return self.layers_gradients(layers) + self.top_trained() * self.recipe.weight_bytes

    def layers_gradients(self, layers: int) -> int:
        """Of that many layers, one shard of them from zero2 on."""
        experts = 0 if self.recipe.lora_rank else layers * self.rank.layer_experts
        return weights.gradient_bytes(layers * self.layer_trained(), experts, self.recipe, self.layout)

    def top_trained(self) -> int:
        """Weights of head and final norm (a number, not bytes)."""
        if self.recipe.lora_rank or not self.rank.last:
            return 0
        return self.head_trained() + self.rank.norm_weights

    def keeps_whole_gradients(self) -> bool:
        """Whether new gradients are added to whole ones at once, rather than reduced first."""
        return self.accumulating and not self.layout.shards_at("zero2")

    def reduction_buffer(self) -> int:
        """What the gradients of one layer are reduced from, while the next layer is at work."""
        return self.layer_trained() * self.recipe.weight_bytes if self.layout.shards_at("zero2") else 0

    def head_trained(self) -> int:
        """Weights of the head (a number, not bytes)."""
        return 0 if self.recipe.lora_rank or not self.rank.last else self.rank.vocab * self.rank.width

    @cached_property
    def layer_kept(self) -> int:
        """By one layer between forward and backward, compressed if so wished."""
        return math.ceil(saved.layer_kept(self.rank, self.computed) / self.recipe.saved_compression)

    def frozen_input(self) -> int:
        """The first layer's norm keeps nothing if embedding and norm are frozen."""
        if not (self.recipe.lora_rank and self.rank.first and self.recipe.recompute == "none"):
            return 0
        return saved.residual_saved(self.rank, self.computed) + saved.norm_statistics(
            self.rank, self.computed
        )

    def layers_kept(self, layers: int) -> int:
        """By the first `layers` layers."""
        if layers == 0:
            return 0
        kept = layers * self.layer_kept - self.frozen_input()
        return offload.kept_on_device(kept, self.layer_kept, self.layout.offload)

    def saved_activations(self) -> int:
        """Kept by forward for one micro-batch, loss included."""
        top = 0
        if self.rank.last:
            top = cross_entropy.head_input_saved(self.rank, self.computed) + cross_entropy.log_softmax_saved(
                self.rank, self.computed
            )
        return self.layers_kept(self.rank.layers) + top

    def own_casts(self) -> int:
        """Of one layer, while it computes."""
        adapters = self.rank.adapter_weights(self.recipe.lora_rank) if self.recipe.lora_rank else 0
        return weights.cast_bytes(self.rank.layer_matrices + adapters, self.computed)

    def layers_casts(self, layers: int) -> int:
        """Waiting for backward; a frozen first projection needs no gradient of its input."""
        if self.recipe.recompute != "none" or layers == 0:
            return 0
        return layers * self.own_casts() - self.frozen_casts()

    def frozen_casts(self) -> int:
        frozen = self.recipe.lora_rank and self.rank.first
        return weights.cast_bytes(self.rank.attention_matrices[0], self.computed) if frozen else 0

    def head_cast(self) -> int:
        """Autocast's copy of the head."""
        return weights.cast_bytes(self.rank.vocab * self.rank.width, self.computed) if self.rank.last else 0

    def saved_casts(self) -> int:
        """Autocast copies of weights that wait for backward; recomputed layers and chunks make theirs again."""
        head = self.head_cast() if self.recipe.logits == "full" else 0
        return self.layers_casts(self.rank.layers) + head

    def shares_head(self) -> bool:
        """Head and embedding are one trained tensor, whose two gradients meet at the end of backward."""
        return self.rank.tied and self.rank.first and self.rank.last and not self.recipe.lora_rank

    def waiting_head_gradient(self) -> int:
        """A shared tensor's gradient from the head, beside the one accumulated so far."""
        shared = self.shares_head() and self.accumulating
        return self.head_trained() * self.recipe.weight_bytes if shared else 0
