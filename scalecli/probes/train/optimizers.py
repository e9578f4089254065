"""Optimizers over the logical weights of each copy, each group with its peak rate: torch's own where it has them, those
of `pytorch-optimizer` otherwise.

Sources: AdamW, Loshchilov & Hutter 2019 (1711.05101); Muon, Jordan 2024, scaled to AdamW's update size as in
Liu et al. 2025 (2502.16982), so that one learning rate serves both; Adafactor, Shazeer & Stern 2018
(1804.04235); LAMB, You et al. 2020 (1904.00962), algorithm 2; LARS, You et al. 2017 (1708.03888); Lion, Chen et al.
2023 (2302.06675).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from scalecli.errors import ProbeError, needs_extra
from scalecli.probes.config import Optimizer, ProbeConfig
from scalecli.probes.subjects.subject import Subject, Weight
from scalecli.probes.train.spread import Spread

Group = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Gradients:
    """All gradients in one buffer; `parts` are views (c, n) of it, as few as the layout allows."""

    buffer: Tensor
    parts: list[Tensor]

    def zero(self) -> None:
        self.buffer.zero_()

    def combine(self, spread: Spread) -> None:
        """Averages them over the processes of a training."""
        spread.averaged(self.buffer)

    @torch.no_grad()
    def clip(self, limit: float) -> None:
        """Scales each copy's gradient to a norm of at most `limit`, as torch's clip_grad_norm_ does."""
        norms = torch.stack([part.norm(dim=1) for part in self.parts]).norm(dim=0)
        scale = (limit / (norms + 1e-6)).clamp(max=1.0)[:, None]
        for part in self.parts:
            part.mul_(scale)


def trained_parameters(subject: Subject) -> list[nn.Parameter]:
    """The parameters that the optimizers change, in the order of the gradients' buffer."""
    return [parameter for parameter in subject.model.parameters() if parameter.requires_grad]


def allocate_gradients(subject: Subject) -> Gradients:
    """Gives every trained parameter a gradient inside one buffer, where autograd adds to it in place for the run."""
    parameters = trained_parameters(subject)
    buffer = torch.zeros(sum(parameter.numel() for parameter in parameters), device=parameters[0].device)
    parts = buffer.split([parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)
    if subject.copies == 1:
        return Gradients(buffer, [buffer[None]])
    return Gradients(buffer, [part.view(subject.copies, -1) for part in parts])


def build_optimizers(subject: Subject, configs: Sequence[ProbeConfig]) -> list[torch.optim.Optimizer]:
    """The optimizers that together update every copy; every group carries `peak_rate`, its rate before the
    schedule.
    """
    by_matrix: list[Group] = []
    by_vector: list[Group] = []
    for copy, config in enumerate(configs):
        for weight in subject.weights(copy):
            leaf = nn.Parameter(weight.value)
            leaf.grad = weight.grad
            (by_matrix if weight.role == "hidden" else by_vector).append(group_of(weight, config, leaf))
    return optimizers_of(by_matrix, by_vector, configs[0].optimizer)


def optimizers_of(
    by_matrix: list[Group], by_vector: list[Group], settings: Optimizer
) -> list[torch.optim.Optimizer]:
    """The optimizers for hidden matrices and for all other weights."""
    if settings.name == "muon":
        return [_muon(merged(by_matrix), settings), _adamw(merged(by_vector), settings)]
    return [MAKERS[settings.name](merged(by_matrix + by_vector), settings)]


def group_of(weight: Weight, config: ProbeConfig, leaf: nn.Parameter) -> Group:
    """The parameter that holds a weight, with the rate and the decay of the weight."""
    decay = 0.0 if weight.role == "vector" else config.optimizer.weight_decay
    return {
        "params": [leaf],
        "peak_rate": config.learning_rate * weight.rate,
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


def _lamb(groups: list[Group], settings: Optimizer) -> torch.optim.Optimizer:
    """Version 3 of the paper: neither moment is corrected for its start, and the rate is the rate (`adam_debias`)."""
    betas = (settings.beta1, settings.beta2)
    made: torch.optim.Optimizer = _library().Lamb(
        groups, betas=betas, eps=settings.epsilon, weight_decouple=False, adam_debias=True
    )
    return made


def _lars(groups: list[Group], settings: Optimizer) -> torch.optim.Optimizer:
    made: torch.optim.Optimizer = _library().LARS(groups, momentum=settings.beta1)
    return made


def _lion(groups: list[Group], settings: Optimizer) -> torch.optim.Optimizer:
    made: torch.optim.Optimizer = _library().Lion(groups, betas=(settings.beta1, settings.beta2))
    return made


def _library() -> Any:
    with needs_extra("optimizers", "this optimizer", ProbeError):
        import pytorch_optimizer
    return pytorch_optimizer


MAKERS: dict[str, Callable[[list[Group], Optimizer], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "sgd": _sgd,
    "adafactor": _adafactor,
    "lamb": _lamb,
    "lars": _lars,
    "lion": _lion,
}
"""Those that treat all weights alike."""


def restore_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Takes up a state; rates and decays stay this run's own, which may be another branch."""
    own = deepcopy(optimizer.state_dict()["param_groups"])
    kept = [
        {**before, **{name: group[name] for name in ("params", "lr", "peak_rate", "weight_decay")}}
        for before, group in zip(saved["param_groups"], own, strict=True)
    ]
    optimizer.load_state_dict({"state": deepcopy(saved["state"]), "param_groups": kept})


def set_rates(optimizers: Sequence[torch.optim.Optimizer], factor: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_rate"] * factor


def adam_divisors(
    subject: Subject, optimizers: Sequence[torch.optim.Optimizer], settings: Optimizer
) -> list[Tensor]:
    """What Adam divides the gradient of each trained parameter by, sqrt(v / (1 - beta2^t)) + epsilon; one copy only."""
    found = {}
    for optimizer in optimizers:
        for leaf, state in optimizer.state.items():
            corrected = state["exp_avg_sq"] / (1 - settings.beta2 ** float(state["step"]))
            found[leaf.data_ptr()] = corrected.sqrt() + settings.epsilon
    parts: dict[str, list[Tensor]] = {}
    for weight in subject.weights(0):
        parts.setdefault(weight.name, []).append(found[weight.value.data_ptr()])
    return [
        torch.cat(parts[name]).view_as(parameter)
        for name, parameter in subject.model.named_parameters()
        if parameter.requires_grad
    ]
