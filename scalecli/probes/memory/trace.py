"""One training step on the meta device: forward, loss, backward and optimizer step, counted byte by byte."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scalecli.accounting.memory.recipe import Recipe
from scalecli.accounting.shape import ModelShape
from scalecli.errors import PlanError
from scalecli.probes.memory.decoder import TracedDecoder, weight_type
from scalecli.probes.memory.tracker import MemoryTracker


@dataclass(frozen=True, slots=True)
class Trace:
    """Bytes of a steady training step."""

    peaks: dict[str, int]
    """Most bytes alive at once in each moment of the step."""
    saved_for_backward_bytes: int
    """What the forward pass keeps for the backward pass, without weights."""

    @property
    def peak_bytes(self) -> int:
        return max(self.peaks.values())

    @property
    def moment(self) -> str:
        return max(self.peaks, key=self.peaks.__getitem__)


def trace_training(
    shape: ModelShape,
    recipe: Recipe,
    *,
    micro_batch_sequences: int,
    sequence_length: int,
    device: str = "meta",
) -> Trace:
    """Run two steps of the decoder of that shape and count the second, when optimizer states exist."""
    tracker = MemoryTracker()
    with tracker, torch.device(device):
        model = TracedDecoder(shape, recipe).to(weight_type(recipe))
        optimizers = make_optimizers(model, recipe)
        tokens = torch.zeros(micro_batch_sequences, sequence_length, dtype=torch.int64)
        targets = torch.zeros_like(tokens)
        for _ in range(2):
            tracker.peaks.clear()
            saved = 0
            for _ in range(recipe.accumulation):
                saved = _forward_backward(model, tokens, targets, tracker)
            tracker.enter("step")
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    return Trace(dict(tracker.peaks), saved)


def _forward_backward(model: TracedDecoder, tokens: Tensor, targets: Tensor, tracker: MemoryTracker) -> int:
    before = tracker.live
    tracker.enter("forward")

    def on_hidden(hidden: Tensor) -> None:
        tracker.enter("loss")
        hidden.register_hook(lambda _: tracker.enter("backward"))

    loss = model(tokens, targets, on_hidden)
    saved = tracker.live - before
    loss.backward()
    return saved


def make_optimizers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """PyTorch's own optimizers; Muon takes every matrix and leaves the vectors to AdamW."""
    trained = [p for p in model.parameters() if p.requires_grad]
    foreach, fused = recipe.optimizer_impl == "foreach", recipe.optimizer_impl == "fused"
    if recipe.optimizer == "muon":
        matrices = [p for p in trained if p.ndim == 2]
        vectors = [p for p in trained if p.ndim != 2]
        return [torch.optim.Muon(matrices), *([torch.optim.AdamW(vectors, foreach=False)] if vectors else [])]
    if recipe.optimizer == "sgd":
        return [torch.optim.SGD(trained, lr=1e-3, foreach=foreach)]
    if recipe.optimizer == "sgd-momentum":
        return [torch.optim.SGD(trained, lr=1e-3, momentum=0.9, foreach=foreach)]
    if recipe.optimizer == "adamw":
        return [FusedAdamW(trained) if fused else torch.optim.AdamW(trained, foreach=foreach)]
    raise PlanError(f"{recipe.optimizer} cannot be traced: PyTorch has no implementation of it")


class FusedAdamW(torch.optim.Optimizer):
    """PyTorch's fused kernel; `torch.optim.AdamW(fused=True)` itself refuses the meta device."""

    def __init__(self, params: list[nn.Parameter]) -> None:
        super().__init__(params, {})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        params = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        for p in params:
            if not self.state[p]:
                self.state[p] = {
                    "mean": torch.zeros_like(p), "square": torch.zeros_like(p),
                    "step": torch.zeros((), device=p.device),
                }  # fmt: skip
        states = [self.state[p] for p in params]
        torch._foreach_add_([s["step"] for s in states], 1)
        torch._fused_adamw_(
            params,
            [p.grad for p in params],
            [s["mean"] for s in states],
            [s["square"] for s in states],
            [],
            [s["step"] for s in states],
            lr=1e-3, beta1=0.9, beta2=0.95, weight_decay=0.1, eps=1e-8, amsgrad=False, maximize=False,
        )  # fmt: skip
