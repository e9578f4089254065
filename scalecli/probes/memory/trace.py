"""One training step on the meta device: forward, loss, backward and optimizer step, counted byte by byte."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from scalecli.accounting.memory.layout import Layout
from scalecli.accounting.memory.recipe import Recipe
from scalecli.accounting.shape import ModelShape
from scalecli.probes.foreign import ForeignShape
from scalecli.probes.memory.fused import FusedKernels
from scalecli.probes.memory.tracker import MemoryTracker
from scalecli.probes.memory.training import Build, Training, decoder_training, foreign_training


@dataclass(frozen=True, slots=True)
class Trace:
    """Bytes of a steady training step."""

    peaks: dict[str, int]
    """Most bytes alive at once in each moment of the step."""
    saved_for_backward_bytes: int
    """What the forward pass keeps for the backward pass, without weights."""
    has_batch_norm: bool = False
    """Some layer takes statistics over the micro-batch."""

    @property
    def peak_bytes(self) -> int:
        """The highest of all moments."""
        return max(self.peaks.values())

    @property
    def moment(self) -> str:
        """When the peak is reached."""
        return max(self.peaks, key=self.peaks.__getitem__)


def trace_training(
    shape: ModelShape,
    recipe: Recipe,
    layout: Layout | None = None,
    *,
    micro_batch_sequences: int,
    sequence_length: int,
    stage: int = 0,
) -> Trace:
    """The decoder of that shape under that recipe: what one device of a layout has of it, alone."""
    return trace(
        lambda: decoder_training(
            shape, recipe, layout, micro_batch_sequences=micro_batch_sequences, sequence_length=sequence_length,
            stage=stage,
        )
    )  # fmt: skip


def trace_foreign(
    shape: ForeignShape, recipe: Recipe, *, micro_batch_sequences: int, sequence_length: int
) -> Trace:
    """A model of `transformers` or of the user's, with the footprints of fused GPU kernels."""
    with FusedKernels():
        return trace(
            lambda: foreign_training(
                shape, recipe, micro_batch_sequences=micro_batch_sequences, sequence_length=sequence_length
            )
        )


def trace(build: Build, *, device: str = "meta") -> Trace:
    """Run two steps and count the second, when optimizer states exist."""
    tracker = MemoryTracker()
    with tracker, torch.device(device):
        training = build()
        for _ in range(2):
            tracker.peaks.clear()
            saved = _micro_batches(training, tracker)
            tracker.enter("step")
            for optimizer in training.optimizers:
                optimizer.step()
            for optimizer in training.optimizers:
                optimizer.zero_grad()
    return Trace(dict(tracker.peaks), saved, training.has_batch_norm)


def _micro_batches(training: Training, tracker: MemoryTracker) -> int:
    """Forward and backward of all of them, forward ahead as far as a pipeline has it; bytes that one forward keeps."""
    saved = 0
    waiting: deque[tuple[GradientEdge, Tensor]] = deque()
    for _ in range(training.accumulation):
        before = tracker.live
        waiting.append(_forward(training, tracker))
        saved = tracker.live - before
        if len(waiting) == training.in_flight:
            _backward(*waiting.popleft(), tracker)
    while waiting:
        _backward(*waiting.popleft(), tracker)
    return saved


def _forward(training: Training, tracker: MemoryTracker) -> tuple[GradientEdge, Tensor]:
    """Where backward begins, and a tensor without bytes of the gradient's shape; the result itself is gone."""
    tracker.enter("forward")

    def on_hidden(hidden: Tensor) -> None:
        tracker.enter("loss")
        hidden.register_hook(lambda _: tracker.enter("backward"))

    result = training.forward(on_hidden)
    return get_gradient_edge(result), result.new_empty(()).expand_as(result)


def _backward(edge: GradientEdge, like: Tensor, tracker: MemoryTracker) -> None:
    if tracker.moment == "forward":  # the loss is not told apart from the model
        tracker.enter("backward")
    torch.autograd.backward((edge,), (torch.empty_like(like).contiguous(),))
