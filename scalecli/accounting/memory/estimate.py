"""Bytes on one device in each moment of a training step, term by term."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

from scalecli.accounting.memory import loss, offload, pipeline, saved, weights
from scalecli.accounting.memory.backward import highest, layer_backward, norm_backward
from scalecli.accounting.memory.layout import Layout, check_layout
from scalecli.accounting.memory.optimizers import optimizer_bytes
from scalecli.accounting.memory.rank import Rank, rank_of
from scalecli.accounting.memory.recipe import MOMENTS, Moment, Recipe
from scalecli.accounting.memory.terms import RULES, Term
from scalecli.accounting.shape import ModelShape
from scalecli.errors import PlanError

Bytes = dict[str, int]
TOKEN_BYTES = 2 * 8  # an int64 token and its target


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Allocated bytes of the worst rank, without context, workspaces and fragmentation."""

    terms: tuple[Term, ...]
    peak_bytes: int
    moment: Moment
    """When the peak is reached."""
    saved_for_backward_bytes: int
    """Activations and weight copies of one micro-batch that wait for the backward pass."""
    host_bytes: int
    """Host memory for what is offloaded, pinned staging buffers included."""
    stage: int
    """The pipeline stage whose rank is the worst."""

    @property
    def moments(self) -> dict[Moment, int]:
        """The highest number of bytes alive in each moment."""
        return {moment: sum(term.moments.get(moment, 0) for term in self.terms) for moment in MOMENTS}


def estimate_memory(
    shape: ModelShape,
    recipe: Recipe,
    layout: Layout | None = None,
    *,
    micro_batch_sequences: int,
    sequence_length: int,
) -> MemoryEstimate:
    """The closed forms summed for every pipeline stage; the worst stage is returned.

    Raises PlanError if the model cannot be cut as `layout` says.
    """
    layout = layout or Layout()
    if micro_batch_sequences < 1 or sequence_length < 1:
        raise PlanError(f"a micro-batch of {micro_batch_sequences} × {sequence_length} tokens holds nothing")
    check_layout(shape, layout, sequence_length)
    # The first stage holds the embedding, the most layers and the most micro-batches; the last one the loss.
    stages = sorted({0, layout.pp - 1})
    estimates = [
        _estimate_stage(shape, recipe, layout, stage, micro_batch_sequences, sequence_length)
        for stage in stages
    ]
    return max(estimates, key=lambda estimate: estimate.peak_bytes)


def _estimate_stage(
    shape: ModelShape, recipe: Recipe, layout: Layout, stage: int, sequences: int, sequence_length: int
) -> MemoryEstimate:
    rank = rank_of(
        shape, recipe, layout, micro_batch_sequences=sequences, sequence_length=sequence_length, stage=stage
    )
    step = _Step(rank, recipe, layout, pipeline.in_flight(layout, recipe.accumulation, stage))
    by_moment: dict[Moment, Bytes] = {
        "forward": step.forward(), "loss": step.loss(), "backward": step.backward(), "step": step.optimizer()
    }  # fmt: skip
    totals = {moment: sum(parts.values()) for moment, parts in by_moment.items()}
    moment = max(MOMENTS, key=totals.__getitem__)
    terms = []
    for name, rule in RULES.items():
        at = {m: parts.get(name, 0) for m, parts in by_moment.items()}
        if any(at.values()):
            terms.append(Term(name, at[moment], at, rule))
    return MemoryEstimate(
        terms=tuple(terms),
        peak_bytes=totals[moment],
        moment=moment,
        saved_for_backward_bytes=step.saved_activations() + step.saved_casts(),
        host_bytes=step.host_bytes(),
        stage=stage,
    )


class _Step:
    """The moments of one step on one rank; each method returns the bytes of every term at that moment's peak."""

    def __init__(self, rank: Rank, recipe: Recipe, layout: Layout, micro_batches_in_flight: int) -> None:
        self.rank, self.recipe, self.layout = rank, recipe, layout
        gathers = layout.sharding == "zero3" and recipe.precision == "bf16-autocast"
        # Fully sharded weights are gathered in the computed type: the stream is narrow and nothing is cast.
        self.computed = replace(recipe, precision="bf16") if gathers else recipe
        self.waiting = micro_batches_in_flight - 1
        self.accumulating = recipe.accumulation > 1
        self.states, self.temporaries = optimizer_bytes(rank, recipe, layout)

    # What is there all the time

    def static(self, layers_gathered: int = weights.LAYERS_GATHERED) -> Bytes:
        gathered = weights.gathered_bytes(self.rank, self.computed, self.layout, layers_gathered)
        return self._resident | {"gathered weights": gathered}

    @cached_property
    def _resident(self) -> Bytes:
        rank, recipe, layout = self.rank, self.recipe, self.layout
        resident = {
            "weights": weights.weight_bytes(rank, recipe, layout),
            "master weights": weights.master_bytes(rank, recipe, layout),
            "averaged weights": weights.average_bytes(rank, recipe, layout),
            "optimizer states": self.states,
            "batch": rank.tokens * TOKEN_BYTES,
            "waiting micro-batches": self.waiting * self.saved_activations(),
        }
        return offload.on_device(resident, self._layer_weight_bytes(), layout.offload)

    def host_bytes(self) -> int:
        resident = {
            "weights": weights.weight_bytes(self.rank, self.recipe, self.layout),
            "master weights": weights.master_bytes(self.rank, self.recipe, self.layout),
            "optimizer states": self.states,
            "gradients": self._all_gradients,
            "saved activations": (self.waiting + 1) * self.saved_activations(),
        }
        return offload.on_host(resident, self.layout.offload)

    def _layer_weight_bytes(self) -> int:
        return self.rank.layer_weights * self.computed.compute_bytes

    # Gradients

    def _layer_trained(self) -> int:
        r = self.recipe.lora_rank
        return self.rank.adapter_weights(r) if r else self.rank.layer_weights

    @cached_property
    def _all_gradients(self) -> int:
        values, experts = (
            weights.trained_weights(self.rank, self.recipe),
            weights.trained_experts(self.rank, self.recipe),
        )
        return weights.gradient_bytes(values, experts, self.recipe, self.layout)

    def _gradients_before(self) -> int:
        """Of earlier micro-batches of the same step."""
        return self._all_gradients if self.accumulating else 0

    def _gradients_above(self, layers: int) -> int:
        """Of head, final norm and the last `layers` layers.

        Sharded gradients are reduced layer by layer; those of head and norm belong to the outermost unit and stay
        whole to the end (PyTorch's FSDP2).
        """
        if self.layout.shards_at("zero2"):
            below = self._gradients_before() if self.accumulating else self._layers_gradients(layers)
            return below + self._top_trained() * self.recipe.weight_bytes
        if self.accumulating:
            return self._gradients_before()
        return self._layers_gradients(layers) + self._top_trained() * self.recipe.weight_bytes

    def _layers_gradients(self, layers: int) -> int:
        experts = 0 if self.recipe.lora_rank else layers * self.rank.layer_experts
        return weights.gradient_bytes(layers * self._layer_trained(), experts, self.recipe, self.layout)

    def _top_trained(self) -> int:
        """Weights of head and final norm."""
        if self.recipe.lora_rank or not self.rank.last:
            return 0
        return self._head_trained() + self.rank.norm_weights

    def _keeps_whole_gradients(self) -> bool:
        """Whether new gradients are added to whole ones at once, rather than reduced first."""
        return self.accumulating and not self.layout.shards_at("zero2")

    def _reduction_buffer(self) -> int:
        """What the gradients of one layer are reduced from, while the next layer is at work."""
        return self._layer_trained() * self.recipe.weight_bytes if self.layout.shards_at("zero2") else 0

    def _head_trained(self) -> int:
        return 0 if self.recipe.lora_rank or not self.rank.last else self.rank.vocab * self.rank.width

    # What forward keeps

    @cached_property
    def _layer_kept(self) -> int:
        return math.ceil(saved.layer_kept(self.rank, self.computed) / self.recipe.saved_compression)

    def _frozen_input(self) -> int:
        """The first layer's norm keeps nothing if embedding and norm are frozen."""
        if not (self.recipe.lora_rank and self.rank.first and self.recipe.recompute == "none"):
            return 0
        return saved.residual_saved(self.rank, self.computed) + saved.norm_statistics(
            self.rank, self.computed
        )

    def _layers_kept(self, layers: int) -> int:
        if layers == 0:
            return 0
        kept = layers * self._layer_kept - self._frozen_input()
        return offload.kept_on_device(kept, self._layer_kept, self.layout.offload)

    def saved_activations(self) -> int:
        """Kept by forward for one micro-batch, loss included."""
        top = 0
        if self.rank.last:
            top = loss.head_input_saved(self.rank, self.computed) + loss.log_softmax_saved(
                self.rank, self.computed
            )
        return self._layers_kept(self.rank.layers) + top

    def _own_casts(self) -> int:
        """Of one layer, while it computes."""
        adapters = self.rank.adapter_weights(self.recipe.lora_rank) if self.recipe.lora_rank else 0
        return weights.cast_bytes(self.rank.layer_matrices + adapters, self.computed)

    def _layers_casts(self, layers: int) -> int:
        """Waiting for backward; a frozen first projection needs no gradient of its input."""
        if self.recipe.recompute != "none" or layers == 0:
            return 0
        return layers * self._own_casts() - self._frozen_casts()

    def _frozen_casts(self) -> int:
        frozen = self.recipe.lora_rank and self.rank.first
        return weights.cast_bytes(self.rank.attention_matrices[0], self.computed) if frozen else 0

    def _head_cast(self) -> int:
        return weights.cast_bytes(self.rank.vocab * self.rank.width, self.computed) if self.rank.last else 0

    def saved_casts(self) -> int:
        """Autocast copies of weights that wait for backward; recomputed layers and chunks make theirs again."""
        head = self._head_cast() if self.recipe.logits == "full" else 0
        return self._layers_casts(self.rank.layers) + head

    # The moments

    def forward(self) -> Bytes:
        last = self.static() | {
            "gradients": self._gradients_before(),
            "saved activations": self._layers_kept(self.rank.layers),
            "autocast weight copies": self._layers_casts(self.rank.layers),
            "working tensors": self._forward_working(),
        }
        moments = [last]
        if self.layout.shards_at("zero3"):
            moments += [self._gathering_first(), self._gathering_last()]
        return max(moments, key=lambda parts: sum(parts.values()))

    def _gathering_first(self) -> Bytes:
        """The first layer's weights being gathered: the outermost unit's buffer is still there."""
        outermost = (self.rank.embedding_weights + self.rank.head_weights) * self.computed.compute_bytes
        stream = self.rank.stream_tokens * self.rank.width * self.computed.stream_bytes
        return self.static() | {
            "gradients": self._gradients_before(),
            "communication buffers": outermost,
            "working tensors": stream,
        }

    def _gathering_last(self) -> Bytes:
        """The last layer's weights being gathered: the buffer of the one before is still there."""
        layers = weights.LAYERS_GATHERED + 1 if self.rank.layers > 1 else weights.LAYERS_GATHERED
        stream = self.rank.stream_tokens * self.rank.width * self.computed.stream_bytes
        return self.static(layers_gathered=layers) | {
            "gradients": self._gradients_before(),
            "saved activations": self._layers_kept(self.rank.layers - 1),
            "autocast weight copies": self._layers_casts(self.rank.layers - 1),
            "working tensors": stream,
        }

    def _forward_working(self) -> int:
        """What the last layer and the final norm hold beyond what is kept."""
        rank, e, r = self.rank, self.computed.compute_bytes, self.computed.stream_bytes
        stream = rank.stream_tokens * rank.width
        ending = stream * r * (2 if rank.last else 1) + (0 if rank.last else stream * e)
        if self.recipe.recompute == "none":
            return ending
        return max(ending, 2 * stream * r + self._blocks_working())

    def _blocks_working(self) -> int:
        """The feed-forward block of a recomputed layer at its highest, without what selective recomputation keeps."""
        rank, e = self.rank, self.computed.compute_bytes
        hidden, result = rank.slots * rank.ffn * e, rank.slots * rank.width * e
        selective = self.recipe.recompute == "selective"
        cast = weights.cast_bytes(rank.expert_matrices[0], self.computed)
        casts_input = result if cast and rank.routed == 1 else 0
        routing = (
            saved.router_saved(rank, self.computed) - 2 * result - rank.slots * e if rank.routed > 1 else 0
        )
        activated = (2 if rank.gated else 1) * hidden  # with the activated gate
        computed = 0 if selective else hidden  # up projection
        multiplying = activated + computed - (result if selective else 0)
        projecting = activated - hidden + computed + cast + casts_input - (result if selective else 0)
        descending = hidden + cast + (0 if selective else result)
        return routing + max(multiplying, projecting, descending)

    def loss(self) -> Bytes:
        if not self.rank.last:
            return {}
        here = self.static(layers_gathered=1) | {
            "gradients": self._gradients_before(),
            "saved activations": self._layers_kept(self.rank.layers)
            + loss.head_input_saved(self.rank, self.computed),
            "autocast weight copies": self._layers_casts(self.rank.layers) + self._head_cast(),
        }
        return here | self._loss_peak()

    def _loss_peak(self) -> Bytes:
        rank, recipe = self.rank, self.computed
        chunked = recipe.logits == "chunked"
        tokens = math.ceil(rank.tokens / recipe.logit_chunks) if chunked else rank.tokens
        operations = loss.loss_backward(rank, recipe, tokens, adds_to_gradient=chunked)
        top = highest(operations, accumulating=self._keeps_whole_gradients() and not self._shares_head())
        log_softmax = tokens * rank.vocab * loss.LOSS_BYTES
        others = 0
        if chunked:  # the head's gradient so far, and the hidden states' of the chunks before
            others = self._head_trained() * recipe.weight_bytes
            others += (rank.tokens - tokens) * rank.width * recipe.stream_bytes
        forward = loss.logits_forward(rank, recipe, tokens) + self._widened_hidden(tokens)
        return {
            "logits and loss": max(forward + (others if chunked else 0), log_softmax + others + top.total)
        }

    def _widened_hidden(self, tokens: int) -> int:
        """Hidden states in the stream's type beside the cast ones that the head reads; a chunk casts its own."""
        if self.computed.stream_bytes == self.computed.compute_bytes:
            return 0
        if self.recipe.logits == "chunked":
            return tokens * self.rank.width * self.computed.compute_bytes
        return self.rank.stream_tokens * self.rank.width * self.computed.stream_bytes

    def backward(self) -> Bytes:
        last = self.rank.layers - 1
        candidates = [self._layer_backward(below) for below in {0, max(0, last - 1), last}]
        if self.rank.last:
            candidates.append(self._final_norm_backward())
        if self.rank.first:
            candidates.append(self._embedding_backward())
        return max(candidates, key=lambda parts: sum(parts.values()))

    def _final_norm_backward(self) -> Bytes:
        rank, recipe = self.rank, self.computed
        top = highest(norm_backward(rank, recipe), accumulating=self._keeps_whole_gradients())
        own = saved.residual_saved(rank, recipe) + saved.norm_statistics(rank, recipe)
        gradient = rank.stream_tokens * rank.width * recipe.stream_bytes
        return self.static() | {
            "gradients": self._gradients_above(0),
            "saved activations": self._layers_kept(rank.layers) + own + top.saved,
            "autocast weight copies": self._layers_casts(rank.layers),
            "working tensors": gradient + top.working + self._waiting_head_gradient(),
        }

    def _layer_backward(self, below: int) -> Bytes:
        """Backward of the layer that has `below` layers before it on this rank."""
        recipe = self.computed
        part = self._sequence_chunk()
        needs = not (recipe.lora_rank and part.first and below == 0)
        top = highest(
            layer_backward(part, recipe, input_needs_gradient=needs),
            accumulating=self._keeps_whole_gradients(),
        )
        casts = self._own_casts() - (self._frozen_casts() if below == 0 else 0)
        gradient = self.rank.stream_tokens * self.rank.width * recipe.stream_bytes
        return self.static() | {
            "gradients": self._gradients_above(self.rank.layers - 1 - below) + top.gradients,
            "communication buffers": self._reduction_buffer() if below < self.rank.layers - 1 else 0,
            "saved activations": self._layers_kept(below) + self._computing_layer(part, below) + top.saved,
            "autocast weight copies": self._layers_casts(below) + casts + top.casts,
            "working tensors": gradient
            + top.working
            + self._waiting_head_gradient()
            + weights.dequantised_bytes(self.rank, recipe),
        }

    def _sequence_chunk(self) -> Rank:
        """This rank with the tokens that a layer is recomputed and taken backward for at once."""
        chunks = self.recipe.sequence_chunks
        if chunks == 1:
            return self.rank
        sizes = {
            name: -(-getattr(self.rank, name) // chunks)
            for name in ("tokens", "stream_tokens", "visits", "slots")
        }
        return replace(self.rank, **sizes)

    def _computing_layer(self, part: Rank, below: int) -> int:
        """Saved by the layer at work; a chunk of the sequence needs its whole input, keys and values besides."""
        recipe = self.computed
        own = saved.layer_saved(part, recipe) + saved.unused_products(part, recipe)
        if below == 0:
            own -= self._frozen_input()
        if recipe.recompute != "none" and recipe.norm == "decomposed" and recipe.stream_bytes < 4:
            own += saved.residual_saved(part, recipe)  # the kept input beside its float32 copy
        if part.tokens < self.rank.tokens:
            own += saved.residual_saved(self.rank, recipe)
            own += self.rank.tokens * (self.rank.packed - self.rank.mixed) * recipe.compute_bytes
        return own

    def _embedding_backward(self) -> Bytes:
        """The embedding's dense gradient beside the gradient of its output.

        A tied embedding has the head's gradient waiting, and their sum is a third tensor.
        """
        rank, recipe = self.rank, self.computed
        if recipe.lora_rank:
            return self.static() | {"gradients": self._all_gradients}
        stream = rank.stream_tokens * rank.width * recipe.stream_bytes
        dense = rank.vocab * rank.width * recipe.weight_bytes
        working = stream + (dense if self.accumulating else 0)
        if self._shares_head():
            working = self._waiting_head_gradient() + max(stream + dense, 2 * dense)
        if self.layout.shards_at("zero2"):
            return self._outermost_reduction(stream)
        return self.static() | {"gradients": self._all_gradients, "working tensors": working}

    def _outermost_reduction(self, stream: int) -> Bytes:
        """Embedding, final norm and head have whole gradients, and then the buffer these are reduced from."""
        whole = (self._top_trained() + self.rank.embedding_weights) * self.recipe.weight_bytes
        layers = self._gradients_before() if self.accumulating else self._layers_gradients(self.rank.layers)
        return self.static(layers_gathered=0) | {
            "gradients": layers + whole,
            "communication buffers": max(whole, self._reduction_buffer()),
            "working tensors": stream,
        }

    def _shares_head(self) -> bool:
        """Head and embedding are one trained tensor, whose two gradients meet at the end of backward."""
        return self.rank.tied and self.rank.first and self.rank.last and not self.recipe.lora_rank

    def _waiting_head_gradient(self) -> int:
        """A shared tensor's gradient from the head, beside the one accumulated so far."""
        shared = self._shares_head() and self.accumulating
        return self._head_trained() * self.recipe.weight_bytes if shared else 0

    def optimizer(self) -> Bytes:
        here = self.static() | {
            "gradients": self._all_gradients,
            "optimizer temporaries": self.temporaries,
        }
        return {
            name: size
            for name, size in here.items()
            if name not in ("waiting micro-batches", "gathered weights")
        }
