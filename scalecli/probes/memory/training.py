"""What is traced or measured: a model, its loss and its optimizers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scalecli.accounting.memory.recipe import Recipe
from scalecli.accounting.shape import ModelShape
from scalecli.errors import PlanError, ProbeError
from scalecli.probes.foreign import ForeignShape
from scalecli.probes.memory.decoder import TracedDecoder, weight_type
from scalecli.probes.subjects.own import mapped
from scalecli.probes.task import build_task

OnHidden = Callable[[Tensor], None]


@dataclass(frozen=True, slots=True)
class Training:
    """One model in training. `loss` runs forward; it hands the tensor that the head reads to its argument, if it
    knows which that is."""

    loss: Callable[[OnHidden], Tensor]
    optimizers: tuple[torch.optim.Optimizer, ...]


Build = Callable[[], Training]


def decoder_training(
    shape: ModelShape, recipe: Recipe, *, micro_batch_sequences: int, sequence_length: int
) -> Training:
    """The decoder of a shape with all of a recipe, on the default device."""
    model = TracedDecoder(shape, recipe).to(weight_type(recipe))
    tokens = torch.zeros(micro_batch_sequences, sequence_length, dtype=torch.int64)
    targets = torch.zeros_like(tokens)
    return Training(lambda on_hidden: model(tokens, targets, on_hidden), make_optimizers(model, recipe))


def foreign_training(
    shape: ForeignShape, recipe: Recipe, *, micro_batch_sequences: int, sequence_length: int
) -> Training:
    """A model of `transformers` or of the user's on the meta device. The recipe's optimizer trains it, in the recipe's
    type of weights; kernels are the model's own.

    Raises ProbeError where it cannot be built there, or its experts have no products in that type.
    """
    if shape.from_transformers:
        from scalecli.probes.subjects.causal_lm import build, meta_loss

        if shape.num_experts > 1 and recipe.precision != "bf16":
            raise ProbeError(
                "grouped products of experts are traced in bfloat16 only", hint="use --precision bf16"
            )
        model = build(shape.content, sequence_length).to(weight_type(recipe))
        tokens = torch.zeros(1, micro_batch_sequences, sequence_length + 1, dtype=torch.int64)
        return Training(lambda _: meta_loss(model, tokens), make_optimizers(model, recipe))
    task = build_task(shape.model, width=shape.width, depth=shape.layers, seed=0)
    with torch.device("cpu"):
        examples = next(iter(task.batches("train", micro_batch_sequences, 0)))
    batch = mapped(examples, lambda tensor: _as_weights(tensor, recipe).to("meta"))
    model = task.model.to(weight_type(recipe))
    return Training(lambda _: task.losses(model, batch).mean(), make_optimizers(model, recipe))


def _as_weights(tensor: Tensor, recipe: Recipe) -> Tensor:
    tensor = tensor.detach()
    return tensor.to(weight_type(recipe)) if tensor.is_floating_point() else tensor


def make_optimizers(model: nn.Module, recipe: Recipe) -> tuple[torch.optim.Optimizer, ...]:
    """PyTorch's own optimizers; Muon takes every matrix and leaves the rest to AdamW."""
    trained = [p for p in model.parameters() if p.requires_grad]
    foreach, fused = recipe.optimizer_impl == "foreach", recipe.optimizer_impl == "fused"
    if recipe.optimizer == "muon":
        matrices = [p for p in trained if p.ndim == 2]
        others = [p for p in trained if p.ndim != 2]
        return (torch.optim.Muon(matrices), *((torch.optim.AdamW(others, foreach=False),) if others else ()))
    if recipe.optimizer == "sgd":
        return (torch.optim.SGD(trained, lr=1e-3, foreach=foreach),)
    if recipe.optimizer == "sgd-momentum":
        return (torch.optim.SGD(trained, lr=1e-3, momentum=0.9, foreach=foreach),)
    if recipe.optimizer == "adamw":
        return (FusedAdamW(trained) if fused else torch.optim.AdamW(trained, foreach=foreach),)
    raise PlanError(
        f"{recipe.optimizer} cannot be traced: PyTorch has no implementation of it for every device"
    )


class FusedAdamW(torch.optim.Optimizer):
    """PyTorch's fused kernel; `torch.optim.AdamW(fused=True)` itself refuses the meta device."""

    def __init__(self, params: list[nn.Parameter]) -> None:
        super().__init__(params, {})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        params = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        for p in params:
            if not self.state[p]:
                self.state[p] = {
                    "mean": torch.zeros_like(p),
                    "square": torch.zeros_like(p),
                    "step": torch.zeros((), device=p.device),
                }
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
