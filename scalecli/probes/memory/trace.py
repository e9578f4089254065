"""One training step on the meta device: forward, loss, backward and optimizer step, counted byte by byte."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

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

    @property
    def peak_bytes(self) -> int:
        """The highest of all moments."""
        return max(self.peaks.values())

    @property
    def moment(self) -> str:
        """When the peak is reached."""
        return max(self.peaks, key=self.peaks.__getitem__)


def trace_training(
    shape: ModelShape, recipe: Recipe, *, micro_batch_sequences: int, sequence_length: int
) -> Trace:
    """The decoder of that shape under that recipe."""
    return trace(
        lambda: decoder_training(
            shape, recipe, micro_batch_sequences=micro_batch_sequences, sequence_length=sequence_length
        ),
        recipe.accumulation,
    )


def trace_foreign(
    shape: ForeignShape, recipe: Recipe, *, micro_batch_sequences: int, sequence_length: int
) -> Trace:
    """A model of `transformers` or of the user's, with the footprints of fused GPU kernels."""
    with FusedKernels():
        return trace(
            lambda: foreign_training(
                shape, recipe, micro_batch_sequences=micro_batch_sequences, sequence_length=sequence_length
            ),
            recipe.accumulation,
        )


def trace(build: Build, accumulation: int = 1, *, device: str = "meta") -> Trace:
    """Run two steps and count the second, when optimizer states exist."""
    tracker = MemoryTracker()
    with tracker, torch.device(device):
        training = build()
        for _ in range(2):
            tracker.peaks.clear()
            saved = 0
            for _ in range(accumulation):
                saved = _forward_backward(training, tracker)
            tracker.enter("step")
            for optimizer in training.optimizers:
                optimizer.step()
                optimizer.zero_grad()
    return Trace(dict(tracker.peaks), saved)


def _forward_backward(training: Training, tracker: MemoryTracker) -> int:
    before = tracker.live
    tracker.enter("forward")

    def on_hidden(hidden: Tensor) -> None:
        tracker.enter("loss")
        hidden.register_hook(lambda _: tracker.enter("backward"))

    loss = training.loss(on_hidden)
    saved = tracker.live - before
    if tracker.moment == "forward":  # the loss is not told apart from the model
        tracker.enter("backward")
    loss.backward()
    return saved
