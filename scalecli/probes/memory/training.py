"""What is traced or measured: a model, its loss and its optimizers."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scalecli.accounting.memory.recipe import Recipe
from scalecli.accounting.shape import ModelShape
from scalecli.errors import PlanError, ProbeError
from scalecli.probes.memory.decoder import TracedDecoder, weight_type

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


def user_training(spec: str, recipe: Recipe) -> Training:
    """A model of the user's: `package.module:factory`, whose factory returns a module and a function that maps the
    module to its loss. The recipe's optimizer trains it; its precision and kernels are the module's own.

    Raises ProbeError if there is no such factory.
    """
    module_name, _, name = spec.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ProbeError(
            f"{spec!r} names no factory: {error}",
            hint="give package.module:function; the function returns (module, loss_of_module)",
        ) from error
    model, loss = factory()
    return Training(lambda _: loss(model), make_optimizers(model, recipe))


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
