"""What every single model has, whoever wrote it: its weights by role, its counts, and steps that repeat exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from scalecli.probes.parametrization import Role
from scalecli.probes.subjects.subject import Weight


def weights_of(
    model: nn.Module, head: nn.Parameter | None = None, rates: Mapping[str, float] | None = None
) -> Iterator[Weight]:
    """Every trained parameter with its gradient; `head` is the one that makes logits."""
    embeddings = embedding_ids(model)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, "gradients are allocated before the optimizers are built"
            role: Role = "embedding" if id(parameter) in embeddings else _role(parameter, head)
            yield Weight(name, role, parameter.detach(), parameter.grad, (rates or {}).get(name, 1.0))


def _role(parameter: nn.Parameter, head: nn.Parameter | None) -> Role:
    if parameter is head:
        return "head"
    return "vector" if parameter.ndim < 2 else "hidden" if parameter.ndim == 2 else "kernel"


def embedding_ids(model: nn.Module) -> set[int]:
    """Addresses of the weights that are looked up and enter no product there."""
    return {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}


def watched(model: nn.Module) -> dict[str, nn.Module]:
    """Modules with weights of their own, which are all that a foreign model shows of its parts, and the whole."""
    parts = {
        name: module for name, module in model.named_modules() if name and list(module.parameters(False))
    }
    return {**parts, "output": model}


def trained_params(model: nn.Module) -> int:
    """Trained weights, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def training_flops_of(loss: Callable[[], Tensor]) -> float:
    """FLOPs of one forward and backward pass, as torch counts products, convolutions and attention (in full)."""
    with FlopCounterMode(display=False) as counter:
        loss().backward()
    return float(counter.get_total_flops())


def make_repeatable(seed: int, step: int) -> None:
    """What is random in a step (dropout) depends on seed and step alone: branches and resumed runs see the same."""
    torch.manual_seed((seed << 32) + step)
