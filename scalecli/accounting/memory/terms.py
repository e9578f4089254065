"""Names and rules of the memory terms."""

from __future__ import annotations

from dataclasses import dataclass

from scalecli.accounting.memory.recipe import Moment


@dataclass(frozen=True, slots=True)
class Term:
    """One line of a memory plan."""

    name: str
    bytes: int
    """At the peak."""
    moments: dict[Moment, int]
    """At the highest point of each moment of the step [bytes]."""
    rule: str


RULES: dict[str, str] = {
    "weights": "every weight in its stored type; one shard under zero3; streamed layers while they are here",
    "gathered weights": "zero3: whole weights of the layer at work, of embedding and head, in the computed type",
    "master weights": "4 bytes a trained weight, sharded from zero1 on",
    "averaged weights": "4 bytes a trained weight and copy, sharded from zero1 on",
    "optimizer states": "what the optimizer keeps of each trained weight, sharded from zero1 on",
    "optimizer temporaries": "what the step holds for a moment: foreach of all weights at once, loop of the largest",
    "gradients": "stored type of the weights; they grow as backward goes from head to embedding",
    "gradient buckets": "ddp: a copy of every gradient, which is reduced; none where gradients are views of it",
    "saved activations": "kept by forward for backward: layers × (16 d + 8 f + 4 h + 8) n and the loss, where nothing "
    "is recomputed",
    "waiting micro-batches": "activations of the other micro-batches that the pipeline has in flight",
    "weight copies": "2 bytes a weight of every matrix product under autocast, from its forward to its backward",
    "logits and loss": "logits in the computed type and float32, log-softmax and its two gradients: up to 12 n V",
    "working tensors": "gradients of activations, and what an operation needs for a moment",
    "communication buffers": "what weights are gathered into and gradients reduced from, one layer at a time",
    "batch": "int64 tokens and targets",
}
