"""torch's own optimizers over the logical weights of each copy, each group with its peak rate.

Sources: AdamW, Loshchilov & Hutter 2019 (1711.05101); Muon, Jordan 2024, scaled to AdamW's update size as in
Liu et al. 2025 (2502.16982), so that one learning rate serves both; Adafactor, Shazeer & Stern 2018
(1804.04235).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scalecli.probes.config import Optimizer, ProbeConfig
from scalecli.probes.decoder import Decoder, Weight, weights_of

Group = dict[str, Any]


def allocate_gradients(model: Decoder) -> None:
    """One gradient buffer a parameter for the whole run, so that views into it stay valid."""
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)


def build_optimizers(model: Decoder, configs: Sequence[ProbeConfig]) -> list[torch.optim.Optimizer]:
    """The optimizers that together update every copy; every group carries `peak_rate`, its rate before the
    schedule.
    """
    settings = configs[0].optimizer
    by_matrix: list[Group] = []
    by_vector: list[Group] = []
    for copy, config in enumerate(configs):
        for weight in weights_of(model, copy):
            hidden = weight.role == "hidden"
            (by_matrix if hidden else by_vector).append(_group(weight, config, model))
    if settings.name == "muon":
        return [_muon(merged(by_matrix), settings), _adamw(merged(by_vector), settings)]
    make = {"adamw": _adamw, "sgd": _sgd, "adafactor": _adafactor}[settings.name]
    return [make(merged(by_matrix + by_vector), settings)]


def _group(weight: Weight, config: ProbeConfig, model: Decoder) -> Group:
    leaf = nn.Parameter(weight.value)
    leaf.grad = weight.grad
    decay = 0.0 if weight.role == "vector" else config.optimizer.weight_decay
    return {
        "params": [leaf],
        "peak_rate": config.learning_rate * model.multipliers.rate[weight.role],
        "weight_decay": decay,
    }


def merged(groups: list[Group]) -> list[Group]:
    """Groups of equal rate and decay as one: fewer, larger updates."""
    together: dict[tuple[float, float], Group] = {}
    for group in groups:
        key = (group["peak_rate"], group["weight_decay"])
        if key in together:
            together[key]["params"].extend(group["params"])
        else:
            together[key] = {**group, "lr": group["peak_rate"]}
    return list(together.values())


def _adamw(groups: list[Group], settings: Optimizer) -> torch.optim.Optimizer:
    betas = (settings.beta1, settings.beta2)
    return torch.optim.AdamW(groups, betas=betas, eps=settings.epsilon, fused=True)


def _sgd(groups: list[Group], settings: Optimizer) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=1.0, momentum=settings.beta1, fused=True)


def _muon(groups: list[Group], settings: Optimizer) -> torch.optim.Optimizer:
    return torch.optim.Muon(groups, momentum=settings.beta1, adjust_lr_fn="match_rms_adamw")


def _adafactor(groups: list[Group], settings: Optimizer) -> torch.optim.Optimizer:
    return torch.optim.Adafactor(groups, foreach=True)


def set_rates(optimizers: Sequence[torch.optim.Optimizer], factor: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_rate"] * factor


@torch.no_grad()
def clip_gradients(model: Decoder, limits: Tensor) -> Tensor:
    """Scales each copy's gradient to a norm of at most its limit; returns the norms before, (c,).

    The rule of torch.nn.utils.clip_grad_norm_, one copy at a time.
    """
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norms: Tensor = torch.stack([grad.flatten(1).norm(dim=1) for grad in grads]).norm(dim=0)
    scale = (limits / (norms + 1e-6)).clamp(max=1.0)
    for grad in grads:
        grad.mul_(scale.view(-1, *[1] * (grad.ndim - 1)))
    return norms
